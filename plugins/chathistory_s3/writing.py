"""The commit of an append, a forget and a delete, and what is removed after it.

Each is one conditional PUT of the head's object. What it will name is stored before it, what it no longer names is
removed after it: whoever dies in between leaves a whole conversation, and at most objects that nobody names. Of one
incarnation, segments that begin below the head's start, and markers behind its time, are never named again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from chathistory.errors import Conflict, CorruptRecord, StoreError, StoreUnavailable
from chathistory.store import Head, Key, Stamp
from chathistory_s3.bucket import Bucket
from chathistory_s3.content import Content, Grave
from chathistory_s3.faults import Overtaken
from chathistory_s3.heads import Found, Heads
from chathistory_s3.layout import Layout, first_of, marker_time, place_of, token
from chathistory_s3.lines import encoded
from chathistory_s3.segments import Changed, Gone, Shelf, grown, trimmed

__all__ = ["Writer"]

_ROUNDS = 30  # commits that others overtake with what is no conflict (forgets), or deletes that others overtake


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes into one bucket; `width`: microseconds within which a marker stays where it is."""

    bucket: Bucket
    layout: Layout
    heads: Heads
    width: int

    def append(self, key: Key, batch: Sequence[str], *, after: Head | None, stamp: Stamp, first: int) -> Head:
        """Append as `HistoryStore.append` says."""
        found, writer = self._base(key, after), token()
        for _ in range(_ROUNDS):
            if after is None and found is not None and isinstance(found.content, Grave):
                gone = self.finish(place_of(key), found.content, found.etag)
                found = None if gone else found
            base = _living(found)
            _check_version(key, base, after.stamp.version if after else None)
            try:
                return self._commit(base or _begun(key, stamp, first), batch, stamp, over=found, writer=writer)
            except Overtaken as lost:
                found = self._look_again(key, lost)
                base = _living(found)
                if lost.uncertain and base is not None and base.writer == writer:
                    return base.head
        raise _restless()

    def _base(self, key: Key, after: Head | None) -> Found | None:
        """Return what to append to, as far as known; whoever makes a conversation expects nothing."""
        if after is None:
            return None
        seen = self.heads.seen(key)
        base = _living(seen)
        if base is not None and base.head.stamp.version == after.stamp.version:
            return seen
        return self.heads.look(key)

    def _look_again(self, key: Key, lost: Overtaken) -> Found | None:
        try:
            return self.heads.look(key)
        except StoreUnavailable as error:
            if not lost.uncertain:
                raise
            msg = "the service did not tell what became of a write"
            raise StoreUnavailable(msg, outcome="unknown") from error.__cause__

    def _commit(self, base: Content, batch: Sequence[str], stamp: Stamp, *, over: Found | None, writer: str) -> Head:
        key, end = base.head.key, base.head.end
        shelf = self._shelf(base)
        changed = grown(shelf, base, encoded(batch, end))
        time = marker_time(stamp.updated, self.width)
        time = min(base.marker, time) if base.marker else time
        if time != base.marker:
            self.bucket.put(self.layout.marker(key, time, base.incarnation), b"")
        head = Head(key, base.head.start, end + len(batch), stamp)
        content = _moved(replace(base, head=head, marker=time, writer=writer), changed)
        try:
            self.heads.put(key, content, over=over)
        except Overtaken as lost:
            made = [shelf.object(segment) for segment in changed.made]
            self._discard(lost, made if base.marker else [*made, self.layout.marker(key, time, base.incarnation)])
            raise
        left = [shelf.object(segment) for segment in changed.left]
        if base.marker and time != base.marker:
            left.append(self.layout.marker(key, base.marker, base.incarnation))
        self._tidy(left)
        return head

    def forget(self, key: Key, *, before: int) -> Head | None:
        """Forget as `HistoryStore.forget` says; a second call removes what a crash of the first one left."""
        gone: Found | None = None
        for _ in range(_ROUNDS):
            found = self.heads.look(key)
            base = _living(found)
            if found is None or base is None:
                return None
            try:
                head = self._forget(base, before, over=found)
            except Overtaken:
                continue
            except Gone as lost:
                if gone is not None and gone.etag == found.etag:
                    raise CorruptRecord(key, lost.position, "its segment is gone") from lost.__cause__
                gone = found
                continue
            self._remove_below(base, head.start)
            return head
        raise _restless()

    def _forget(self, base: Content, before: int, *, over: Found) -> Head:
        start = min(max(before, base.head.start), base.head.end)
        if start == base.head.start:
            return base.head
        shelf = self._shelf(base)
        changed = trimmed(shelf, base, start)
        head = replace(base.head, start=start)
        try:
            self.heads.put(head.key, _moved(replace(base, head=head), changed), over=over)
        except Overtaken as lost:
            self._discard(lost, [shelf.object(segment) for segment in changed.made])
            raise
        return head

    def _remove_below(self, base: Content, start: int) -> None:
        below = self.layout.segments(base.head.key, base.incarnation)
        names = [entry.object for entry in self.bucket.listed(below)]
        self.bucket.remove_all([name for name in names if 0 <= first_of(name) < start])

    def delete(self, key: Key, *, version: str | None) -> bool:
        """Delete as `HistoryStore.delete` says."""
        deleter = token()
        tried: str | None = None  # the incarnation that we may have buried, although no answer said so
        for _ in range(_ROUNDS):
            found = self.heads.look(key)
            base = _living(found)
            if found is None or (base is not None and tried not in {None, base.incarnation}):
                return tried is not None
            if isinstance(found.content, Grave):
                self.finish(place_of(key), found.content, found.etag)
                return found.content.deleter == deleter
            base = found.content
            if version is not None:
                _check_version(key, base, version)
            try:
                grave = Grave(base.incarnation, base.marker, deleter)
                etag = self.heads.put(key, grave, over=found).etag
            except Overtaken as lost:
                tried = base.incarnation if lost.uncertain else tried
                continue
            self.finish(place_of(key), grave, etag)
            return True
        raise _restless()

    def finish(self, place: str, grave: Grave, etag: str) -> bool:
        """Remove what is left of the conversation in whose place there is a grave; tell whether that is gone too."""
        left = [entry.object for entry in self.bucket.listed(self.layout.segments_at(place, grave.incarnation))]
        self.bucket.remove_all([*left, self.layout.marker_at(place, grave.marker, grave.incarnation)])
        if not self.bucket.service.deletes:
            return False
        with suppress(Overtaken):
            self.bucket.remove(self.layout.heads(None) + place, etag=etag)
        return True

    def _shelf(self, content: Content) -> Shelf:
        return Shelf(self.bucket, self.layout, content.head.key, content.incarnation)

    def _discard(self, lost: Overtaken, objects: Sequence[str]) -> None:
        """Remove what was stored for a commit that was refused; what may have been committed stays."""
        if not lost.uncertain:
            self._tidy(objects)

    def _tidy(self, objects: Sequence[str]) -> None:
        """Remove objects that nobody names (any more); if that fails they are left for the sweep."""
        with suppress(StoreError):
            self.bucket.remove_all(objects)


def _living(found: Found | None) -> Content | None:
    return found.content if found is not None and isinstance(found.content, Content) else None


def _begun(key: Key, stamp: Stamp, first: int) -> Content:
    return Content(Head(key, first, first, stamp), token(), "", (), first)


def _moved(content: Content, changed: Changed) -> Content:
    return replace(content, segments=changed.segments, edge=changed.edge, tail=changed.tail)


def _check_version(key: Key, base: Content | None, version: str | None) -> None:
    head = base.head if base else None
    if version != (head.stamp.version if head else None):
        raise Conflict(key, head)


def _restless() -> StoreUnavailable:
    return StoreUnavailable(f"others changed the conversation {_ROUNDS} times meanwhile", outcome="not stored")
