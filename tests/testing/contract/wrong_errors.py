"""Stores with mistakes in names, errors, reprs and log lines."""

from __future__ import annotations

import fnmatch
import logging
import unicodedata
from contextlib import suppress
from dataclasses import replace

from wrong_stores import Wrong, caught_by

from chathistory.errors import ChatHistoryError, Conflict, InvalidInput, StoreUnavailable
from chathistory.storage.values import Key, Page

NEIGHBOUR = "test_a_call_never_reaches_a_similar_name"


class Reaching(Wrong):
    """Reaches conversations that were not meant."""

    def others(self, key):
        with self._data.lock:
            keys = [found.head.key for scope in self._data.scopes.values() for found in scope.values()]
        return [other for other in keys if other != key and self.reaches(key, other)]

    def reaches(self, key, other):
        return other.scope == key.scope and other.id.startswith(key.id)


@caught_by(NEIGHBOUR)
class DeleteByPrefix(Reaching):
    def delete(self, key, *, version=None):
        deleted = super().delete(key, version=version)
        for other in self.others(key):
            deleted = super().delete(other) or deleted
        return deleted


@caught_by(NEIGHBOUR)
class ForgetByPrefix(Reaching):
    def forget(self, key, *, before):
        for other in self.others(key):
            super().forget(other, before=before)
        return super().forget(key, before=before)


@caught_by(NEIGHBOUR)
class DeleteByPattern(DeleteByPrefix):
    def reaches(self, key, other):
        return other.scope == key.scope and fnmatch.fnmatchcase(other.id, key.id)


@caught_by(NEIGHBOUR, "test_every_scope_is_a_scope_of_its_own")
class ScopesByPattern(DeleteByPrefix):
    def reaches(self, key, other):
        return other.id == key.id and fnmatch.fnmatchcase(other.scope, key.scope)


@caught_by("test_a_listing_shows_its_own_scope_only")
class KeysByPrefix(Wrong):
    def keys(self, scope=None):
        return (key for key in list(super().keys()) if key.scope.startswith(scope or ""))


@caught_by("test_a_listing_shows_its_own_scope_only")
class HeadsByPattern(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after, limit=limit)
        more = [head for name in list(self._data.scopes) if name != scope and fnmatch.fnmatchcase(name, scope)
                for head in self.all_heads(name)]  # fmt: skip
        return Page([*page.items, *more][:limit], page.next)


class Mixing(Wrong):
    """Takes two names for one."""

    def fold_name(self, text):
        return text

    def fold_key(self, key):
        return key.scope, self.fold_name(key.id)

    def _find_conversation(self, key):
        folded = self.fold_key(key)
        scopes = list(self._data.scopes.values())
        return next(
            (found for kept in scopes for found in kept.values() if self.fold_key(found.head.key) == folded), None
        )


@caught_by("test_every_id_is_a_conversation_of_its_own")
class CaseFolded(Mixing):
    def fold_name(self, text):
        return text.lower()


@caught_by("test_every_id_is_a_conversation_of_its_own", NEIGHBOUR)
class NamesNormalised(Mixing):
    def fold_name(self, text):
        return unicodedata.normalize("NFC", text)


@caught_by("test_every_id_is_a_conversation_of_its_own")
class NamesStripped(Mixing):
    def fold_name(self, text):
        return text.strip() or text


@caught_by("test_every_id_is_a_conversation_of_its_own")
class NamesCut(Mixing):
    def fold_name(self, text):
        return text[:254]


@caught_by("test_every_scope_is_a_scope_of_its_own", NEIGHBOUR)
class ScopesFolded(Mixing):
    def fold_key(self, key):
        return key.scope.lower(), key.id


@caught_by("test_scope_and_id_are_not_joined_ambiguously")
class NamesJoined(Mixing):
    def fold_key(self, key):
        return f"{key.scope}/{key.id}"


@caught_by("test_listings_return_every_id_unchanged")
class ListedBySafeName(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after, limit=limit)
        safe = [replace(head, key=replace(head.key, id=head.key.id.replace("\\", "/"))) for head in page.items]
        return Page(safe, page.next)


class Talkative(Wrong):
    """Says more than it may when an append is refused."""

    def said(self, error, key, bodies, revision):
        raise AssertionError

    def append(self, key, bodies, *, after, revision, first=0):
        try:
            return super().append(key, bodies, after=after, revision=revision, first=first)
        except (InvalidInput, Conflict, StoreUnavailable) as error:
            self.said(error, key, bodies, revision)
            raise


@caught_by("test_a_refusal_shows_no_message_text")
class TextInARefusal(Talkative):
    def said(self, error, key, bodies, revision):
        if isinstance(error, InvalidInput):
            raise InvalidInput(f"cannot store {bodies!r}")


@caught_by("test_a_conflict_shows_no_message_text")
class TextInAConflict(Talkative):
    def said(self, error, key, bodies, revision):
        if isinstance(error, Conflict):
            error.add_note(f"info was {revision.payload}")


@caught_by("test_an_unreachable_store_raises_store_unavailable_or_rejected")
class TextInACause(Talkative):
    def said(self, error, key, bodies, revision):
        if isinstance(error, StoreUnavailable):
            raise StoreUnavailable("no answer") from OSError(f"sent {bodies!r}")


@caught_by("test_no_log_line_shows_message_text")
class TextInALogLine(Talkative):
    def said(self, error, key, bodies, revision):
        logging.getLogger("chathistory.wrong").debug("refused %r", bodies)


@caught_by("test_no_repr_shows_message_text")
class TextInARepr(Wrong):
    def __repr__(self):
        with suppress(ChatHistoryError):
            return f"Store({[r.body for key in self.keys() for r in self.read(key).records]})"
        return "Store()"


class Cut(Wrong):
    """Answers in its own way when it is cut off."""

    def dead(self):
        raise AssertionError

    def read(self, key, *, start=0, stop=None):
        try:
            return super().read(key, start=start, stop=stop)
        except StoreUnavailable:
            return self.dead()


UNREACHABLE = "test_an_unreachable_store_raises_store_unavailable_or_rejected"


@caught_by(UNREACHABLE)
class ClientsErrorEscapes(Cut):
    def dead(self):
        raise ConnectionError("no answer")


@caught_by(UNREACHABLE)
class WithoutACause(Cut):
    def dead(self):
        raise StoreUnavailable("no answer") from None


@caught_by(UNREACHABLE)
class DeadReadsAsAbsent(Cut):
    def dead(self):
        return None


@caught_by(UNREACHABLE)
class WriteErrorSwallowed(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        with suppress(StoreUnavailable):
            return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by("test_invalid_input_is_refused_before_the_backend_is_reached")
class AsksTheBackendFirst(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        self.present_head(key)
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by("test_an_argument_that_is_not_a_key_is_refused")
class AnythingIsAKey(Wrong):
    def read(self, key, *, start=0, stop=None):
        return super().read(key, start=start, stop=stop) if isinstance(key, Key) else None


@caught_by("test_an_argument_that_is_not_a_scope_is_refused")
class AnythingIsAScope(Wrong):
    def heads(self, scope, *, after=None, limit=20):
        return super().heads(scope, after=after, limit=limit) if isinstance(scope, str) else Page([])
