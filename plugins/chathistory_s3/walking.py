"""All conversations, by the names of their own objects; and what is stored where a conversation's key cannot be told.

No walk fails because of one object. A marker is only an index: `scan_keys` makes those anew that were lost, for without
one a conversation is not in the listing of its scope.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

from chathistory.errors import CorruptRecord, StoreError
from chathistory.storage.store import Damaged, Key
from chathistory_s3.bucket import Bucket, Listed
from chathistory_s3.content import GRAVE_SIZE, Content
from chathistory_s3.heads import Found, Heads
from chathistory_s3.layout import Layout, is_name

__all__ = ["damaged_keys", "keys", "scan_keys"]

_TOGETHER = 64  # heads that are read side by side


@dataclass(frozen=True, slots=True)
class _Place:
    """An object of a conversation. `key` is None if nothing tells it; `found` what was read, if it had to be."""

    object: str
    key: Key | None
    found: Found | Damaged | None = None


def keys(bucket: Bucket, layout: Layout, heads: Heads, scope: str | None) -> Iterator[Key]:
    """Yield keys as `HistoryStore.keys` says: those whose heads are damaged too."""
    return (place.key for place in _places(bucket, layout, heads, scope) if place.key is not None)


def scan_keys(bucket: Bucket, layout: Layout, heads: Heads, scope: str | None) -> Iterator[Key]:
    """Yield what `keys` yields, having made the markers anew that were lost.

    Where the right to write is missing, the markers stay lost; the keys are the same.
    """
    listed = (layout.parsed_marker(entry.object) for entry in bucket.listed(layout.markers(scope)))
    marked = {hash(f"{marker.scope}/{marker.id}") for marker in listed if marker is not None}
    for place in _places(bucket, layout, heads, scope):
        if place.key is None:
            continue
        if hash(layout.place(place.object)) not in marked:
            with suppress(StoreError):
                _make_marker(bucket, layout, heads, place)
        yield place.key


def _make_marker(bucket: Bucket, layout: Layout, heads: Heads, place: _Place) -> None:
    found = place.found or heads.glance(place.object)
    if isinstance(found, Found) and isinstance(found.content, Content):
        content = found.content
        bucket.put(layout.marker(content.head.key, content.marker, content.incarnation), b"")


def damaged_keys(bucket: Bucket, layout: Layout, heads: Heads, scope: str | None) -> Iterator[Damaged]:
    """Yield what is stored where conversations are, and whose key cannot be told.

    That is a damaged head whose name was cut and which no longer tells its id, and any object of which this layout
    does not make the name. What is not in the folder of a scope is told for every scope.
    """
    for place in _places(bucket, layout, heads, scope):
        if isinstance(place.found, Damaged) and place.key is None:
            yield place.found
    for folder, read_name in (
        (layout.heads, layout.place),
        (layout.segments_of, layout.place_of_segment),
        (layout.markers, layout.parsed_marker),
    ):
        for entry in bucket.listed(folder(scope)):
            if read_name(entry.object) is None:
                yield _stray(entry.object)
        if scope is not None:
            for name in bucket.folders(folder(None)):
                scope_name = name.removeprefix(folder(None)).removesuffix("/")
                if not (name.endswith("/") and is_name(scope_name)):
                    yield _stray(name)


def _stray(name: str) -> Damaged:
    return Damaged(None, name, CorruptRecord(None, None, "no object of this store has such a name"))


def _places(bucket: Bucket, layout: Layout, heads: Heads, scope: str | None) -> Iterator[_Place]:
    """Yield where conversations are, damaged ones too, but no graves.

    Read are only those whose names were cut, and those that have the size of a grave.
    """
    entries = (entry for entry in bucket.listed(layout.heads(scope)) if layout.place(entry.object) is not None)
    while chunk := list(islice(entries, _TOGETHER)):
        read = [entry for entry in chunk if layout.key_of(entry.object, scope) is None or entry.size == GRAVE_SIZE]
        works = [partial(heads.glance, entry.object, scope) for entry in read]
        found = dict(zip((entry.object for entry in read), bucket.together(works), strict=True)) if works else {}
        yield from (place for entry in chunk if (place := _placed(layout, entry, scope, found)) is not None)


def _placed(
    layout: Layout, entry: Listed, scope: str | None, read: Mapping[str, Found | Damaged | None]
) -> _Place | None:
    if entry.object not in read:
        return _Place(entry.object, layout.key_of(entry.object, scope))
    found = read[entry.object]
    if isinstance(found, Damaged):
        return _Place(entry.object, found.key, found)
    content = found.content if found is not None else None
    return _Place(entry.object, content.head.key, found) if isinstance(content, Content) else None
