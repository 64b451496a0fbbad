"""Stores with wrong types of columns: collations, time zones, narrow numbers, trimmed text."""

from __future__ import annotations

import sqlite3
import unicodedata
from dataclasses import replace

import chathistory_template
from wrong_sql_base import SQL
from wrong_stores import caught_by

from chathistory.storage.checks import check_append
from chathistory.storage.values import Page, ReadResult

IDS = "test_every_id_is_a_conversation_of_its_own"
VERSIONS = "test_versions_are_compared_character_by_character"
TIES = "test_heads_orders_equal_times_by_id"
STAMPS = "test_every_method_returns_the_revision_unchanged"
CLOCKS = "test_times_around_daylight_saving_come_back_unchanged"


class Columns(SQL):
    """Declares the columns of its tables in its own way."""

    scope = ""
    id = ""

    def _connect(self):
        self._path.touch()
        db = sqlite3.connect(self._path, 60, isolation_level=None, check_same_thread=False)
        db.create_collation("custom", self.compare)
        schema, columns = chathistory_template.SCHEMA, f"scope {self.scope}, id {self.id}, "
        for after in ("low", "position, body"):
            schema = schema.replace(f"scope, id, {after}", columns + after)
        db.executescript(schema)
        return db

    def compare(self, one, other):
        first, second = self.fold(one), self.fold(other)
        return (first > second) - (first < second)

    def fold(self, text):
        return text


@caught_by(IDS)
class IdsWithoutCase(Columns):
    """A collation for which `A` is `a`."""

    id = "TEXT COLLATE NOCASE"


@caught_by("test_every_scope_is_a_scope_of_its_own")
class ScopesWithoutCase(Columns):
    scope = "TEXT COLLATE NOCASE"


@caught_by(IDS)
class IdsWithoutAccents(Columns):
    """A collation for which `é` is `e`."""

    id = "TEXT COLLATE custom"

    def fold(self, text):
        return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


@caught_by(IDS)
class IdsPadded(Columns):
    """A collation that pads with blanks, so that `x` is `x `."""

    id = "TEXT COLLATE RTRIM"


@caught_by(IDS)
class IdsOfOnePlane(Columns):
    """A collation for which all characters beyond the first plane are one."""

    id = "TEXT COLLATE custom"

    def fold(self, text):
        return "".join(char if char <= "\uffff" else "\ufffd" for char in text)


@caught_by(IDS)
class NamesAreNumbers(SQL):
    """A column that stores what looks like a number as one."""

    def _named(self, key):
        return replace(key, id=str(int(key.id))) if key.id.isascii() and key.id.isdigit() else key

    def append(self, key, bodies, *, after, revision, first=0):
        return super().append(self._named(key), bodies, after=after, revision=revision, first=first)

    def read(self, key, *, start=0, stop=None):
        return super().read(self._named(key), start=start, stop=stop)


class Versions(SQL):
    """Takes two versions for one."""

    def append(self, key, bodies, *, after, revision, first=0):
        present = (run := self.read(key, stop=0)) and run.head
        if after and present and self.fold(after.revision.version) == self.fold(present.revision.version):
            after = present
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by(VERSIONS)
class VersionsWithoutCase(Versions):
    def fold(self, text):
        return text.lower()


@caught_by(VERSIONS)
class VersionsPadded(Versions):
    def fold(self, text):
        return text.rstrip(" ")


@caught_by(VERSIONS)
class VersionsAreNumbers(Versions):
    def fold(self, text):
        try:
            return float(text)
        except ValueError:
            return text


class Ordered(SQL):
    """Orders ids by a locale."""

    def order(self, head):
        return head.revision.updated, self.weight(head.key.id)

    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after, limit=limit)
        return Page(sorted(page.items, key=self.order, reverse=True), page.next)


@caught_by(TIES)
class IdsOrderedWithoutCase(Ordered):
    def weight(self, text):
        return text.lower()


@caught_by(TIES)
class IdsOrderedByLocale(Ordered):
    """As a dictionary does: letters first, then accents, then case."""

    def weight(self, text):
        plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
        return plain.casefold(), text.casefold(), text.swapcase()


@caught_by(TIES, "test_heads_orders_appends_at_one_time_by_id")
class TiesByLastWrite(SQL):
    """Orders equal times by when they were written."""

    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after, limit=limit)
        return Page(sorted(page.items, key=self.order, reverse=True), page.next)

    def order(self, head):
        return head.revision.updated, self.run_now("SELECT rowid FROM heads WHERE id = ?", head.key.id)


@caught_by("test_an_append_with_the_same_updated_does_not_change_the_order")
class OrderedByLastWrite(TiesByLastWrite):
    """Orders by the time of the last append in the database, not by `updated`."""

    def order(self, head):
        return super().order(head)[1]


class Times(SQL):
    """Changes the times on their way in."""

    def append(self, key, bodies, *, after, revision, first=0):
        batch = check_append(bodies, revision, self.traits, first=first)
        expires = revision.expires if revision.expires is None else self.stored(revision.expires)
        changed = replace(revision, updated=self.stored(revision.updated), expires=expires)
        return super().append(key, batch, after=after, revision=changed, first=first)


@caught_by(CLOCKS, "test_heads_orders_times_around_daylight_saving")
class TimesOfTheWall(Times):
    """Stores local time without its zone: of the hour that comes twice in autumn one is lost."""

    def stored(self, time):
        changed, hour = 1_761_440_400_000_000, 3_600_000_000
        wall = time + (2 * hour if time < changed else hour)
        return wall - (hour if wall >= changed + hour else 2 * hour)


@caught_by(STAMPS)
class TimesAsFloatingSeconds(Times):
    def stored(self, time):
        return int(float(time) / 1e6 * 1e3) * 1000 + time % 1000 // 2


@caught_by(STAMPS, CLOCKS)
class TimesOf32Bits(Times):
    """Seconds that end in 2038, and none of their parts."""

    def stored(self, time):
        return min(time // 1_000_000, 2**31 - 1) * 1_000_000


@caught_by("test_a_new_conversation_starts_at_first")
class PositionsOf32Bits(SQL):
    def append(self, key, bodies, *, after, revision, first=0):
        return super().append(key, bodies, after=after, revision=revision, first=first & 0xFFFFFFFF)


class Bodies(SQL):
    """Changes the texts on their way in."""

    def payload(self, text):
        return text

    def body(self, text):
        return text

    def append(self, key, bodies, *, after, revision, first=0):
        batch = [self.body(body) for body in check_append(bodies, revision, self.traits, first=first)]
        return super().append(
            key, batch, after=after, revision=replace(revision, payload=self.payload(revision.payload)), first=first
        )


@caught_by("test_read_returns_each_body_unchanged", "test_every_method_returns_the_payload_unchanged")
class TextIsTrimmed(Bodies):
    """A column of fixed length: blanks at the end are lost."""

    def body(self, text):
        return text.rstrip(" ")

    payload = body


@caught_by("test_read_returns_each_body_unchanged")
class EmptyIsNull(Bodies):
    """A database for which empty text is no text."""

    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        return run and ReadResult(run.head, [replace(record, body=record.body or "None") for record in run.records])


@caught_by("test_read_returns_a_long_payload_unchanged")
class InfoOf64Kilobytes(Bodies):
    def payload(self, text):
        return text.encode()[:65_535].decode(errors="ignore")


@caught_by("test_read_returns_a_body_of_a_megabyte_unchanged", "test_read_returns_a_body_of_30_mb_unchanged")
class BodyOf64Kilobytes(Bodies):
    def body(self, text):
        return text.encode()[:65_535].decode(errors="ignore")


@caught_by("test_read_returns_each_body_unchanged")
class TextOfOneByte(Bodies):
    """A Latin-1 column: other characters become question marks."""

    def body(self, text):
        return text.encode("latin-1", errors="replace").decode("latin-1")
