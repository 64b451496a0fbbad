"""A scope's conversations, newest first, from the names of the markers; and all keys, from the names of the heads.

A marker says in which hour a conversation was written last, or to the microsecond if markers move with each append.
Which conversations there are, and when each was written, the heads say: a marker that its head does not name is
passed over. So each conversation is listed once, whatever crashed.

The markers of one time are a *group*. Of a group of up to 100 all heads are read and put in order. A larger one is
walked by the names of its markers.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count as count_up
from itertools import islice
from typing import Literal, TypeGuard

from chathistory.errors import InvalidInput
from chathistory.store import LARGEST_NUMBER, Cursor, Head, Key, Page
from chathistory_s3.bucket import Bucket
from chathistory_s3.content import GRAVE_SIZE, Content, Grave
from chathistory_s3.heads import Heads
from chathistory_s3.layout import Layout, Marker

__all__ = ["keys", "page"]

GROUP = 100
"""Markers of one time that are put in order."""

_MANY = 100  # markers behind a page that cannot all be leftovers
_TOGETHER = 64  # heads that `keys` reads side by side


_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # what no id has, and no request can carry


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
        texts = isinstance(time, str) and isinstance(place, str) and not _UNFIT.search(time + place)
        if not (texts and (updated is None or (type(updated) is int and 0 <= updated <= LARGEST_NUMBER))):
            msg = "this is not a cursor that a page of this listing gave"
            raise InvalidInput(msg)
        return cls(time, place, updated)


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
    items: list[tuple[Head, _Place]] = []
    more = False
    while len(items) <= limit and not more:
        groups = walk.take(max(limit - len(items), 1))
        if not groups:
            break
        items += _read(bucket, layout, heads, groups, behind)
        more = len(items) == limit and walk.has_many()
    more = more or len(items) > limit
    return Page([head for head, _ in items[:limit]], items[limit - 1][1].encode() if more else None)


class _Walk:
    """The groups of a scope behind a place, as they are needed."""

    def __init__(self, bucket: Bucket, layout: Layout, scope: str, behind: _Place | None, *, exact: bool) -> None:
        prefix = layout.markers(scope)
        after = f"{prefix}{behind.time}/{behind.place if behind.updated is None else ''}" if behind else ""
        parsed = (layout.parsed_marker(entry.object) for entry in bucket.listed(prefix, after=after))
        self._rest = (marker for marker in parsed if marker is not None)
        self._next: deque[Marker] = deque()
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
        return len(self._next)


def _read(
    bucket: Bucket, layout: Layout, heads: Heads, groups: Sequence[_Group], behind: _Place | None
) -> list[tuple[Head, _Place]]:
    """Return the heads that the groups' markers lead to, in the order of the listing, each with its place."""
    markers = [marker for group in groups for marker in group.markers]
    found = iter(bucket.together([partial(heads.glance, layout.of(marker)) for marker in markers]))
    items: list[tuple[Head, _Place]] = []
    for group in groups:
        named = [(content.head, marker) for marker in group.markers if _names(content := next(found), marker)]
        items += _in_order(named, behind) if group.in_order else [(head, _by_name(marker)) for head, marker in named]
    return items


def _names(content: Content | Grave | None, marker: Marker) -> TypeGuard[Content]:
    """Tell whether a marker is the one of the conversation that it leads to."""
    return isinstance(content, Content) and content.incarnation == marker.incarnation and content.marker == marker.time


def _by_name(marker: Marker) -> _Place:
    return _Place(marker.time, marker.place)


def _in_order(named: Sequence[tuple[Head, Marker]], behind: _Place | None) -> list[tuple[Head, _Place]]:
    """Return the heads of one time by (updated, id), those behind the place where the page before ended."""
    places = [(head, _Place(marker.time, head.key.id, head.stamp.updated)) for head, marker in named]
    places.sort(key=lambda item: _order(item[1]), reverse=True)
    if behind is None or behind.updated is None:
        return places
    return [(head, place) for head, place in places if place.time != behind.time or _order(place) < _order(behind)]


def _order(place: _Place) -> tuple[int, str]:
    return place.updated or 0, place.place


def keys(bucket: Bucket, layout: Layout, heads: Heads, scope: str | None) -> Iterator[Key]:
    """Yield keys as `HistoryStore.keys` says, of damaged heads too; only those with names that were cut are read."""
    entries = (entry for entry in bucket.listed(layout.heads(scope)) if entry.size != GRAVE_SIZE)
    while chunk := list(islice(entries, _TOGETHER)):
        found = [(entry.object, _named(layout, entry.object)) for entry in chunk]
        yield from (key for _, key in found if isinstance(key, Key))
        cut = [name for name, key in found if key == "cut"]
        for content in bucket.together([partial(heads.glance, name) for name in cut]) if cut else []:
            if isinstance(content, Content):
                yield content.head.key


def _named(layout: Layout, name: str) -> Key | Literal["cut"] | None:
    """Return the key that an object's name tells; "cut": only its head does; None: it is not ours."""
    key = layout.key_of(name)
    return key or ("cut" if "~" in (layout.place(name) or "") else None)
