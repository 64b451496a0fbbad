"""A scope's conversations, newest first, from the names of the markers.

A marker says in which hour a conversation was written last, or to the microsecond if markers move with each append.
Which conversations there are, and when each was written, the heads say: a marker that its head does not name is
passed over. So each conversation is listed once, whatever crashed. A damaged head names no marker: it is told where a
marker leads to it. A marker may move between the look at the names and the look at the head; then its conversation
stands nearer to the beginning, where a walk that began there has not seen it, and so it is listed where it was.

The markers of one time are a *group*. Of a group of up to 100 all heads are read and put in order. A larger one is
walked by the names of its markers.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count as count_up

from chathistory.errors import InvalidInput
from chathistory.storage.store import LARGEST_NUMBER, Cursor, Damaged, Head, Page
from chathistory_s3.bucket import Bucket
from chathistory_s3.content import Content
from chathistory_s3.heads import Found, Heads
from chathistory_s3.layout import Layout, Marker

__all__ = ["page"]

GROUP = 100
"""Markers of one time that are put in order."""

_MANY = 100  # markers behind a page that cannot all be leftovers


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page ended. In a group that is in order: behind (updated, id); else behind the marker at `place`."""

    time: str
    place: str = ""
    updated: int | None = None

    def encode(self) -> Cursor:
        text = json.dumps([self.time, self.place, self.updated])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: Cursor) -> _Place:
        try:
            time, place, updated = json.loads(base64.b64decode(cursor + "==", altchars=b"-_"))
        except (ValueError, TypeError, RecursionError, binascii.Error):
            time, place, updated = None, None, None
        by_name = updated is None and isinstance(place, str) and _BY_NAME.fullmatch(place)
        in_order = type(updated) is int and 0 <= updated <= LARGEST_NUMBER and isinstance(place, str)
        if not (isinstance(time, str) and _TIME.fullmatch(time) and (by_name or in_order)):
            raise InvalidInput("this is not a cursor that a page of this listing gave")
        return cls(time, str(place), updated)


_TIME, _BY_NAME = re.compile("[0-9]{19}"), re.compile("([a-z0-9_.=~-]{1,120}/[0-9a-f]{16})?")


@dataclass(frozen=True, slots=True)
class _Row:
    """What a listing has at a place."""

    place: _Place
    found: Head | Damaged


@dataclass(frozen=True, slots=True)
class _Group:
    markers: Sequence[Marker]
    in_order: bool


def page(
    bucket: Bucket, layout: Layout, heads: Heads, scope: str, *, after: Cursor | None, limit: int, exact: bool
) -> Page[Head]:
    """Return a page as `HistoryStore.heads` says; `exact`: groups of any size are put in order."""
    behind = _Place.decode(after) if after is not None else None
    walk = _Walk(bucket, layout, scope, behind, exact=exact)
    rows: list[_Row] = []
    more = False
    while (count := sum(isinstance(row.found, Head) for row in rows)) <= limit and not more:
        groups = walk.take(max(limit - count, 1))
        if not groups:
            break
        markers = [marker for group in groups for marker in group.markers]
        works = [partial(heads.glance, layout.of(marker), scope) for marker in markers]
        rows += _once(_rows(groups, bucket.together(works), behind, walk), rows)
        more = sum(isinstance(row.found, Head) for row in rows) == limit and walk.has_many()
    return _cut(rows, limit, more=more)


def _once(rows: Sequence[_Row], before: Sequence[_Row]) -> list[_Row]:
    """Return the rows of conversations that do not stand before: one that moves twice is met at two markers."""
    seen = {row.found.key for row in before if isinstance(row.found, Head)}
    kept: list[_Row] = []
    for row in rows:
        if isinstance(row.found, Head):
            if row.found.key in seen:
                continue
            seen.add(row.found.key)
        kept.append(row)
    return kept


def _cut(rows: Sequence[_Row], limit: int, *, more: bool) -> Page[Head]:
    """Return the page of the first `limit` heads, and of the damaged ones that stand before the next head."""
    places = [at for at, row in enumerate(rows) if isinstance(row.found, Head)]
    more = more or len(places) > limit
    shown = rows[: places[limit - 1] + 1] if more else rows
    damaged = {row.found.where: row.found for row in shown if isinstance(row.found, Damaged)}
    items = [row.found for row in shown if isinstance(row.found, Head)]
    return Page(items, shown[-1].place.encode() if more else None, tuple(damaged.values()))


class _Walk:
    """The groups of a scope behind a place, as they are needed."""

    def __init__(self, bucket: Bucket, layout: Layout, scope: str, behind: _Place | None, *, exact: bool) -> None:
        self.layout = layout
        prefix = layout.markers(scope)
        after = f"{prefix}{behind.time}/{behind.place if behind.updated is None else ''}" if behind else ""
        parsed = (layout.parsed_marker(entry.object) for entry in bucket.listed(prefix, after=after))
        self._rest = (marker for marker in parsed if marker is not None)
        self._next: deque[Marker] = deque()
        self._passed: set[str] | None = set() if behind is None else None  # markers from the beginning on
        self._behind = behind
        self._exact = exact

    def has_many(self) -> bool:
        """Tell whether so many markers are left that a conversation must be among them."""
        return self._fill(_MANY + 1) > _MANY

    def take(self, count: int) -> list[_Group]:
        """Return the next groups, of at least `count` markers if there are so many."""
        groups: list[_Group] = []
        while count > 0 and (group := self._group(count)) is not None:
            groups.append(group)
            count -= len(group.markers)
        return groups

    def _group(self, count: int) -> _Group | None:
        if not self._fill(1):
            return None
        time = self._next[0].time
        size = self._size(time, GROUP + 1)
        in_order = size <= GROUP or self._exact
        if self._behind is not None and time == self._behind.time:  # a walk goes on as it began
            in_order = self._behind.updated is not None
        elif in_order is False:
            self._behind = _Place(time)
        size = self._size(time, None) if in_order else min(size, count)
        return _Group([self._next.popleft() for _ in range(size)], in_order)

    def _size(self, time: str, most: int | None) -> int:
        """Return how many of the next markers have this time, counting to `most`."""
        for size in count_up() if most is None else range(most):
            if self._fill(size + 1) <= size or self._next[size].time != time:
                return size
        return most or 0

    def _fill(self, count: int) -> int:
        while len(self._next) < count and (marker := next(self._rest, None)) is not None:
            self._next.append(marker)
            if self._passed is not None:
                self._passed.add(marker.object)
        return len(self._next)

    def has_missed(self, marker: str) -> bool:
        """Tell whether this marker came in front of the walk after it had passed there."""
        return self._passed is not None and marker not in self._passed


def _rows(
    groups: Sequence[_Group], found: Sequence[Found | Damaged | None], behind: _Place | None, walk: _Walk
) -> list[_Row]:
    """Return what the groups' markers lead to, which is `found`, in the order of the listing."""
    rows: list[_Row] = []
    at = 0
    for group in groups:
        led = zip(group.markers, found[at : at + len(group.markers)], strict=True)
        named = [
            _Row(_place(marker, one, in_order=group.in_order), one)
            for marker, each in led
            if (one := _named(each, marker, walk)) is not None
        ]
        rows += _in_order(named, behind) if group.in_order else named
        at += len(group.markers)
    return rows


def _named(found: Found | Damaged | None, marker: Marker, walk: _Walk) -> Head | Damaged | None:
    """Return the head that a marker is of, or the damaged one that it leads to; None: it is left over."""
    if isinstance(found, Damaged):
        return found
    content = found.content if found is not None else None
    if not isinstance(content, Content) or content.incarnation != marker.incarnation:
        return None
    if content.marker == marker.time:
        return content.head
    present = walk.layout.marker(content.head.key, content.marker, content.incarnation)
    return content.head if content.marker < marker.time and walk.has_missed(present) else None


def _place(marker: Marker, found: Head | Damaged, *, in_order: bool) -> _Place:
    if isinstance(found, Head) and in_order:
        return _Place(marker.time, found.key.id, found.revision.updated)
    return _Place(marker.time, marker.place)


def _in_order(rows: Sequence[_Row], behind: _Place | None) -> list[_Row]:
    """Return the rows of one time by (updated, id), those behind the place where the page before ended.

    Damaged ones come first, for nothing tells when they were written: they are on the page where their time begins.
    """
    first = [row for row in rows if isinstance(row.found, Damaged)]
    rest = [row for row in rows if isinstance(row.found, Head)]
    rest.sort(key=lambda row: _order(row.place), reverse=True)
    if behind is None or behind.updated is None:
        return [*first, *rest]
    begun = [row for row in first if row.place.time != behind.time]
    return [*begun, *(row for row in rest if row.place.time != behind.time or _order(row.place) < _order(behind))]


def _order(place: _Place) -> tuple[int, str]:
    return place.updated or 0, place.place
