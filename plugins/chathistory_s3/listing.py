"""The conversations of a scope, newest first, from the names of the markers; all conversations, from their own names.

A marker contains the hour in which a conversation was last written, or the microsecond if markers move with each
append. The heads are authoritative for which conversations exist and when each was written: a marker that its head does
not name is skipped. So each conversation is listed once, whatever crashed. A damaged head names no marker, and is
reported where a marker leads to it. A marker may move between listing the names and reading the head. Then its
conversation is now nearer to the beginning, where a walk from the beginning may have missed it. So it is listed at its
old place, unless it was listed before.

The markers with one time are a *group*. In a group of up to 100, all heads are read and sorted. A larger group is
listed by the names of its markers.

No walk fails because of one object. Markers are only an index: `scan_keys` creates lost markers again, because a
conversation without a marker is missing from the listing of its scope.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count as count_up
from typing import Any

from chathistory.errors import CorruptRecord, StoreError
from chathistory.storage.cursors import pack_cursor, unpack_cursor
from chathistory.storage.values import LARGEST_NUMBER, Cursor, Damaged, Head, Key, Page
from chathistory_s3.heads import Heads, S3StoredHead
from chathistory_s3.names import Marker, is_name, object_path
from chathistory_s3.schema import TOMBSTONE_SIZE

__all__ = ["list_damaged_keys", "list_keys", "list_page", "scan_keys"]

GROUP = 100
"""The most markers of one time to sort."""

_MAX_LEFTOVERS = 100  # if more markers than this follow a page, there is a next page: they cannot all be leftovers
_TIME, _SUFFIX = re.compile("[0-9]{19}"), re.compile("([a-z0-9_.=~-]{1,120}/[0-9a-f]{16})?")


@dataclass(frozen=True, slots=True)
class _Position:
    """A point in a listing: in a sorted group (updated, name = id), else the name of a marker within its time."""

    time: str
    name: str = ""
    updated: int | None = None

    @property
    def order(self) -> tuple[int, str]:
        return self.updated or 0, self.name

    def encode(self) -> Cursor:
        return pack_cursor(self.time, self.name, self.updated)

    @classmethod
    def decode(cls, cursor: Cursor) -> _Position:
        def is_valid(time: Any, name: Any, updated: Any) -> bool:
            by_name = updated is None and _SUFFIX.fullmatch(name) is not None
            is_sorted = type(updated) is int and 0 <= updated <= LARGEST_NUMBER and isinstance(name, str)
            return _TIME.fullmatch(time) is not None and (by_name or is_sorted)

        return cls(*unpack_cursor(cursor, is_valid))


@dataclass(frozen=True, slots=True)
class _ListingRow:
    """A conversation in a listing, or a damaged one, and its position there."""

    position: _Position
    found: Head | Damaged


@dataclass(frozen=True, slots=True)
class _Group:
    markers: Sequence[Marker]
    is_sorted: bool


def list_page(heads: Heads, scope: str, *, after: Cursor | None, limit: int, exact: bool) -> Page[Head]:
    """Return a page, as `BaseStore._list_page` describes.

    Args:
        heads: The heads.
        scope: The scope.
        after: The cursor of the page before; None for the first page.
        limit: The most heads to return.
        exact: Whether to sort groups of any size.
    """
    walk = _Walk(heads, scope, _Position.decode(after) if after is not None else None, exact=exact)
    rows: list[_ListingRow] = []
    listed: set[Key] = set()  # a conversation that moves twice is found at two markers
    more = False
    while len(listed) <= limit and not more:
        groups = walk.take(max(limit - len(listed), 1))
        if not groups:
            break
        names = [heads.names.head_at(marker.place) for group in groups for marker in group.markers]
        found = iter(heads.peek_all(names, scope))
        for group in groups:
            for row in walk.make_rows(group, found):
                if isinstance(row.found, Damaged):
                    rows.append(row)
                elif row.found.key not in listed:
                    listed.add(row.found.key)
                    rows.append(row)
        more = len(listed) == limit and walk.fill(_MAX_LEFTOVERS + 1) > _MAX_LEFTOVERS
    ends = [at for at, row in enumerate(rows) if isinstance(row.found, Head)]
    more = more or len(ends) > limit
    shown = rows[: ends[limit - 1] + 1] if more else rows
    items = [row.found for row in shown if isinstance(row.found, Head)]
    damaged = {row.found.where: row.found for row in shown if isinstance(row.found, Damaged)}
    return Page(items, shown[-1].position.encode() if more else None, tuple(damaged.values()))


class _Walk:
    """The groups of a scope after a position, loaded as they are needed."""

    def __init__(self, heads: Heads, scope: str, start: _Position | None, *, exact: bool) -> None:
        names = heads.names
        prefix = names.markers(scope)
        after = f"{prefix}{start.time}/{start.name if start.updated is None else ''}" if start else ""
        parsed = (names.parse_marker(entry.name) for entry in heads.bucket.list_objects(prefix, after=after))
        self._rest = (marker for marker in parsed if marker is not None)
        self._next: deque[Marker] = deque()
        self._start = start
        self._by_name = start.time if start is not None and start.updated is None else None  # time of an unsorted group
        self._exact = exact

    def fill(self, count: int) -> int:
        """Load markers until `count` are waiting, or all are loaded; return how many are waiting."""
        while len(self._next) < count and (marker := next(self._rest, None)) is not None:
            self._next.append(marker)
        return len(self._next)

    def take(self, count: int) -> list[_Group]:
        """Return the next groups, with at least `count` markers in total if there are so many."""
        groups: list[_Group] = []
        while count > 0 and self.fill(1):
            time = self._next[0].time
            begun_sorted = self._start is not None and self._start.updated is not None and time == self._start.time
            size = self._count_of_time(time, GROUP + 1)
            is_sorted = begun_sorted or (time != self._by_name and (size <= GROUP or self._exact))
            if is_sorted:
                size = self._count_of_time(time, None)
            else:
                self._by_name, size = time, min(size, count)  # a group is continued in the order in which it began
            groups.append(_Group([self._next.popleft() for _ in range(size)], is_sorted))
            count -= size
        return groups

    def _count_of_time(self, time: str, most: int | None) -> int:
        """Return how many of the next markers have this time, counting to `most`."""
        for size in count_up() if most is None else range(most):
            if self.fill(size + 1) <= size or self._next[size].time != time:
                return size
        return most or 0

    def make_rows(self, group: _Group, found: Iterator[S3StoredHead | Damaged | None]) -> list[_ListingRow]:
        """Return the rows of a group in the order of the listing.

        In a sorted group, damaged conversations come first, because the time of their last write is unknown: they are
        on the page where their group begins.

        Args:
            group: The group.
            found: The heads of all its markers come next here, in the order of the markers.
        """
        rows: list[_ListingRow] = []
        for marker in group.markers:
            row = self._resolve_marker(marker, next(found))
            if isinstance(row, Head) and group.is_sorted:
                rows.append(_ListingRow(_Position(marker.time, row.key.id, row.revision.updated), row))
            elif row is not None:
                rows.append(_ListingRow(_Position(marker.time, marker.suffix), row))
        if not group.is_sorted:
            return rows
        rows.sort(key=lambda row: (isinstance(row.found, Damaged), row.position.order), reverse=True)
        start = self._start
        if start is None or start.updated is None or start.time != group.markers[0].time:
            return rows
        return [row for row in rows if isinstance(row.found, Head) and row.position.order < start.order]

    def _resolve_marker(self, marker: Marker, found: S3StoredHead | Damaged | None) -> Head | Damaged | None:
        """Return the head or the damaged head that a marker leads to; None if the marker is a leftover."""
        if isinstance(found, Damaged):
            return found
        content = found.living if found is not None else None
        if content is None or content.incarnation != marker.incarnation:
            return None
        if content.marker == marker.time:
            return content.head
        # The marker has moved. A walk from the beginning may have passed its new place before the head named it.
        has_moved_forward = content.marker < marker.time and self._start is None
        return content.head if has_moved_forward else None


@dataclass(frozen=True, slots=True)
class _FoundObject:
    """The object of a conversation.

    Attributes:
        name: The name of the object.
        key: The key of the conversation; None if it cannot be determined.
        found: The head, if it had to be read.
    """

    name: str
    key: Key | None
    found: S3StoredHead | Damaged | None = None


def _find_objects(heads: Heads, scope: str | None) -> Iterator[_FoundObject]:
    """Yield the objects of conversations, also of damaged ones, but no tombstones.

    Reads only the objects with shortened names, and those with the size of a tombstone.
    """
    names = heads.names
    for batch in heads.bucket.list_batches(names.heads(scope)):
        entries = [entry for entry in batch if names.parse_head(entry.name) is not None]
        keys = {entry.name: names.key_of(entry.name, scope) for entry in entries}
        unclear = [entry.name for entry in entries if keys[entry.name] is None or entry.size == TOMBSTONE_SIZE]
        read = dict(zip(unclear, heads.peek_all(unclear, scope), strict=True))
        for name, key in keys.items():
            found = read.get(name)
            if name not in read:
                yield _FoundObject(name, key)
            elif isinstance(found, Damaged):
                yield _FoundObject(name, found.key, found)
            elif found is not None and found.living is not None:
                yield _FoundObject(name, found.living.head.key, found)


def list_keys(heads: Heads, scope: str | None) -> Iterator[Key]:
    """Yield the keys of the conversations, also of those with damaged heads.

    Args:
        heads: The heads.
        scope: The scope; None for all scopes.
    """
    return (each.key for each in _find_objects(heads, scope) if each.key is not None)


def scan_keys(heads: Heads, scope: str | None) -> Iterator[Key]:
    """Yield the keys of `list_keys`, and create lost markers again.

    Without the right to write, the markers stay lost; the keys are the same.

    Args:
        heads: The heads.
        scope: The scope; None for all scopes.
    """
    listed = (heads.names.parse_marker(entry.name) for entry in heads.bucket.list_objects(heads.names.markers(scope)))
    marked = {hash(marker.place) for marker in listed if marker is not None}
    for each in _find_objects(heads, scope):
        if each.key is None:
            continue
        if hash(heads.names.parse_head(each.name)) not in marked:
            with suppress(StoreError):
                found = each.found or heads.peek(each.name)
                if isinstance(found, S3StoredHead) and (content := found.living) is not None:
                    place = object_path(content.head.key)
                    heads.bucket.put(heads.names.marker(place, content.marker, content.incarnation), b"")
        yield each.key


def list_damaged_keys(heads: Heads, scope: str | None) -> Iterator[Damaged]:
    """Yield objects below the prefix that belong to no conversation with a known key.

    These are damaged heads with a shortened name and without a readable id, and objects with a name that this layout
    does not use. Objects outside of the folder of a scope are reported for every scope.

    Args:
        heads: The heads.
        scope: The scope; None for all scopes.
    """
    for each in _find_objects(heads, scope):
        if isinstance(each.found, Damaged) and each.key is None:
            yield each.found
    names, bucket = heads.names, heads.bucket
    for folder, parse in (
        (names.heads, names.parse_head),
        (names.segments, names.parse_segment),
        (names.markers, names.parse_marker),
    ):
        strays = [entry.name for entry in bucket.list_objects(folder(scope)) if parse(entry.name) is None]
        if scope is not None:
            strays += [
                child for child in bucket.list_children(folder())
                if not (child.endswith("/") and is_name(child.removeprefix(folder()).removesuffix("/")))
            ]  # fmt: skip
        for name in strays:
            reason = "the name of this object is not one of this store; move or remove the object"
            yield Damaged(None, name, CorruptRecord(None, None, reason))
