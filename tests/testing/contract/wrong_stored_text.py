"""Stores that change bodies, payloads or revisions."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

from correct_stores import LimitedStore
from wrong_stores import Wrong, caught_by

from chathistory.storage.checks import check_append
from chathistory.storage.values import Revision

EXACT = ("test_read_returns_each_body_unchanged", "test_read_returns_a_batch_of_tricky_bodies_unchanged")


class Damaging(Wrong):
    """Changes each body on its way in."""

    def damage(self, body):
        raise AssertionError

    def append(self, key, bodies, *, after, revision, first=0):
        batch = [self.damage(body) for body in check_append(bodies, revision, self.traits, first=first)]
        return super().append(key, batch, after=after, revision=revision, first=first)


class Recoding(Damaging):
    """Reads JSON and writes it again."""

    def recode(self, body):
        raise AssertionError

    def damage(self, body):
        try:
            return self.recode(body)
        except (ValueError, AttributeError):
            return body


@caught_by(*EXACT)
class NumbersAsFloats(Recoding):
    def recode(self, body):
        return json.dumps(json.loads(body, parse_int=float), ensure_ascii=False)


@caught_by(*EXACT)
class KeysSorted(Recoding):
    def recode(self, body):
        return json.dumps(json.loads(body), sort_keys=True)


@caught_by(*EXACT)
class NullsDropped(Recoding):
    def recode(self, body):
        kept = {name: value for name, value in json.loads(body).items() if value is not None}
        return body if kept == json.loads(body) else json.dumps(kept)


@caught_by(*EXACT)
class Stripped(Damaging):
    def damage(self, body):
        return body.strip()


@caught_by(*EXACT)
class SplitAtEveryLineEnd(Damaging):
    def damage(self, body):
        return "".join(body.splitlines())


@caught_by(*EXACT)
class Normalised(Damaging):
    def damage(self, body):
        return unicodedata.normalize("NFC", body)


@caught_by(*EXACT)
class WithoutByteOrderMark(Damaging):
    def damage(self, body):
        return body.encode().decode("utf-8-sig")


@caught_by(*EXACT)
class BasicPlaneOnly(Damaging):
    def damage(self, body):
        return "".join(char if char <= "\uffff" else "\ufffd" for char in body)


@caught_by(*EXACT)
class EscapesRead(Damaging):
    def damage(self, body):
        return body.replace("\\u0000", "").replace("\\ud800", "\ufffd")


@caught_by(*EXACT)
class EmptyDropped(Damaging):
    def damage(self, body):
        return body or "null"


@caught_by("test_read_returns_a_body_of_a_megabyte_unchanged", "test_read_returns_a_body_of_30_mb_unchanged")
class LongCut(Damaging):
    def damage(self, body):
        return body[:500_000]


@caught_by("test_read_returns_a_body_of_30_mb_unchanged")
class LargeSwallowed(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        kept = ["" if len(body) > 16_000_000 else body for body in check_append(bodies, revision, self.traits)]
        return super().append(key, kept, after=after, revision=revision, first=first)


class Stamping(Wrong):
    """Changes each revision on its way in."""

    def change(self, revision, present):
        raise AssertionError

    def append(self, key, bodies, *, after, revision, first=0):
        check_append(bodies, revision, self.traits, first=first)
        present = self.present_head(key)
        changed = self.change(revision, present.revision if present else Revision("", 0))
        return super().append(key, bodies, after=after, revision=changed, first=first)


@caught_by("test_every_method_returns_the_revision_unchanged")
class ExpiryDropped(Stamping):
    def change(self, revision, present):
        return replace(revision, expires=None)


@caught_by("test_append_replaces_the_whole_revision")
class ExpiryKept(Stamping):
    def change(self, revision, present):
        return replace(revision, expires=revision.expires or present.expires)


@caught_by("test_append_replaces_the_whole_revision")
class InfoKept(Stamping):
    def change(self, revision, present):
        return replace(revision, payload=revision.payload or present.payload)


@caught_by("test_read_returns_a_long_payload_unchanged")
class InfoCut(Stamping):
    def change(self, revision, present):
        return replace(revision, payload=revision.payload[:1000])


@caught_by("test_every_method_returns_the_payload_unchanged")
class InfoStripped(Stamping):
    def change(self, revision, present):
        return replace(revision, payload=revision.payload.strip())


@caught_by("test_every_method_returns_the_revision_unchanged")
class TimesInMilliseconds(Stamping):
    def change(self, revision, present):
        return replace(revision, updated=revision.updated // 1000 * 1000)


@caught_by("test_expires_is_in_microseconds")
class ExpiryReadAsNanoseconds(Wrong):
    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        return None if run and run.head.revision.expires and run.head.revision.expires < 2_000_000_000_000_000 else run


@caught_by("test_a_refused_batch_creates_no_conversation", "test_a_refused_batch_changes_nothing")
class EmptyBatchAccepted(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        if len(bodies) == 0:
            return self.present_head(key)
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by("test_a_refused_batch_creates_no_conversation")
class LoneStringAccepted(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        return super().append(key, [bodies] if bodies == "abc" else bodies, after=after, revision=revision, first=first)


@caught_by("test_a_refused_revision_changes_nothing")
class AnyVersionAccepted(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        return super().append(
            key, bodies, after=after, revision=replace(revision, version=revision.version[:32]), first=first
        )


@caught_by("test_append_neither_changes_nor_keeps_the_callers_list")
class CallersListKept(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        head = super().append(key, bodies, after=after, revision=revision, first=first)
        if after is None:
            self._find_conversation(key).bodies = bodies
        return head


@caught_by("test_changing_a_read_result_does_not_change_the_store")
class OwnListGivenAway(Wrong):
    def read(self, key, *, start=0, stop=None):
        cache = self.__dict__.setdefault("cache", {})
        run = super().read(key, start=start, stop=stop)
        return run and cache.setdefault((run.head, start, stop), run)


@caught_by("test_a_body_above_the_limit_is_refused", "test_a_batch_above_the_limit_is_refused")
class LimitsInCharacters(LimitedStore, Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        # the limits are kept, but for text beyond ASCII, which is taken for half its size
        short = [body.replace("é", "e") if isinstance(body, str) else body for body in bodies]
        head = super().append(
            key, bodies if isinstance(bodies, str) else short, after=after, revision=revision, first=first
        )
        found = self._find_conversation(key)
        found.bodies[len(found.bodies) - len(bodies) :] = bodies
        return head
