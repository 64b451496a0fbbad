"""The commit of an append, a forget and a delete, and what is removed after it.

Each is one conditional PUT of the head's object. What it will name is stored before it, what it no longer names is
removed after it: whoever dies in between leaves a whole conversation, and at most objects that nobody names. Of one
incarnation, segments that begin below the head's start, and markers behind its time, are never named again.

Segments of other incarnations at the same place are of first appends that broke off. Their writers may still be about
to make the conversation, which they only can where no object is. So such segments are removed while an object is
there, the conversation itself or a grave, and from then on there is always one, as a *fence*: who makes a conversation
over a grave marks it, the grave of a marked one stays, and only the sweep removes graves, a day after they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from chathistory.errors import Conflict, CorruptRecord, StoreError, StoreUnavailable, UnsupportedRecord
from chathistory.storage.store import Damaged, Head, Key, Revision
from chathistory_s3.bucket import Bucket
from chathistory_s3.content import Content, Grave, told_tokens
from chathistory_s3.content import encoded as encoded_head
from chathistory_s3.faults import Missing, Overtaken
from chathistory_s3.heads import Found, Heads
from chathistory_s3.layout import Layout, first_of, marker_time, place_of, token
from chathistory_s3.lines import encoded
from chathistory_s3.segments import Changed, Gone, Shelf, grown, trimmed

__all__ = ["NO_TIME", "Writer"]

_ROUNDS = 30  # commits that others overtake with what is no conflict (forgets), or deletes that others overtake


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes into one bucket; `width`: microseconds within which a marker stays where it is."""

    bucket: Bucket
    layout: Layout
    heads: Heads
    width: int

    def append(self, key: Key, batch: Sequence[str], *, after: Head | None, revision: Revision, first: int) -> Head:
        """Append as `HistoryStore.append` says."""
        found, writer = self._base(key, after), token()
        for _ in range(_ROUNDS):
            if after is None and found is not None and isinstance(found.content, Grave):
                found = self.finish(place_of(key), found.content, found.etag, stays=True)
            base = _living(found)
            _check_version(key, base, after.revision.version if after else None)
            try:
                base = base or _begun(key, revision, first, fenced=found is not None)
                return self._commit(base, batch, revision, over=found, writer=writer)
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
        if base is not None and base.head.revision.version == after.revision.version:
            return seen
        return self.heads.look(key)

    def _look_again(self, key: Key, lost: Overtaken) -> Found | None:
        try:
            return self.heads.look(key)
        except StoreUnavailable as error:
            if not lost.uncertain:
                raise
            raise StoreUnavailable(
                "the service did not tell what became of a write", outcome="unknown"
            ) from error.__cause__

    def _commit(
        self, base: Content, batch: Sequence[str], revision: Revision, *, over: Found | None, writer: str
    ) -> Head:
        key, end = base.head.key, base.head.end
        shelf = self._shelf(base)
        changed = grown(shelf, base, encoded(batch, end))
        time = self.next_marker(base.marker, revision)
        if time != base.marker:
            self.bucket.put(self.layout.marker(key, time, base.incarnation), b"")
        head = Head(key, base.head.start, end + len(batch), revision)
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
        self.tidy(left)
        return head

    def next_marker(self, marker: str, revision: Revision) -> str:
        """Return the time of the marker after an append; it never goes back. `marker` is the present one, or ""."""
        time = marker_time(revision.updated, self.width)
        return min(marker, time) if marker else time

    def forget(self, key: Key, *, before: int) -> Head | None:
        """Forget as `HistoryStore.forget` says; a second call removes what a crash of the first one left."""
        gone: Found | None = None
        for _ in range(_ROUNDS):
            found = self.heads.look(key)
            base = _living(found)
            if found is None or base is None:
                return None
            settled = gone is not None and gone.etag == found.etag
            try:
                found = self._forget(base, before, over=found, settled=settled)
                base = _living(found) or base
                self._remove_below(base, found)
            except Overtaken:
                continue
            except Gone:
                gone = found
                continue
            return base.head
        raise _restless()

    def _forget(self, base: Content, before: int, *, over: Found, settled: bool) -> Found:
        start = min(max(before, base.head.start), base.head.end)
        if start == base.head.start:
            return over
        shelf = self._shelf(base)
        changed = trimmed(shelf, base, start, settled=settled)
        head = replace(base.head, start=start)
        try:
            return self.heads.put(head.key, _moved(replace(base, head=head), changed), over=over)
        except Overtaken as lost:
            self._discard(lost, [shelf.object(segment) for segment in changed.made])
            raise

    def _remove_below(self, base: Content, over: Found) -> None:
        """Remove the segments that begin below the head, and those of other incarnations: these have the same text."""
        place = place_of(base.head.key)
        own = self.layout.segments_at(place, base.incarnation)
        names = [entry.object for entry in self.bucket.listed(self.layout.segments_below(place))]
        below = [name for name in names if name.startswith(own) and 0 <= first_of(name) < base.head.start]
        others = self._of_others(names, base.incarnation)
        if others and not base.fenced:
            self.heads.put(base.head.key, replace(base, fenced=True, writer=token()), over=over)
        self.bucket.remove_all([*below, *others])

    def _of_others(self, names: Sequence[str], incarnation: str) -> list[str]:
        """Return the segments that are of another incarnation; what is no segment is not ours."""
        return [name for name in names if self.layout.incarnation_of_segment(name) not in {"", incarnation}]

    def delete(self, key: Key, *, version: str | None) -> bool:
        """Delete as `HistoryStore.delete` says; a damaged one too, unless it must have a `version`."""
        deleter = token()
        tried: str | None = None  # the incarnation that we may have buried, although no answer said so
        for _ in range(_ROUNDS):
            try:
                found = self.heads.look(key)
            except (CorruptRecord, UnsupportedRecord):
                if version is not None:
                    raise
                if self.remove_damaged(self.layout.head(key)):
                    return True
                continue
            base = _living(found)
            if found is None or (base is not None and tried not in {None, base.incarnation}):
                return tried is not None
            if isinstance(found.content, Grave):
                self.finish(place_of(key), found.content, found.etag, stays=True)
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
            self.finish(place_of(key), grave, etag, stays=base.fenced)
            return True
        raise _restless()

    def remove_damaged(self, name: str) -> bool:
        """Remove a head that cannot be read, and all that is at its place; False: it has changed meanwhile."""
        raw = self.heads.raw(name)
        if raw is None or not isinstance(self.heads.parsed(name, *raw), Damaged):
            return False
        data, etag = raw
        incarnation, marker = told_tokens(data)
        grave = Grave(incarnation or token(), marker or NO_TIME, token())
        try:
            etag = self.bucket.replace(name, encoded_head(grave), etag=etag)
        except (Missing, Overtaken):
            return False
        self.finish(name.removeprefix(self.layout.heads(None)), grave, etag, stays=True)
        return True

    def finish(self, place: str, grave: Grave, etag: str, *, stays: bool) -> Found | None:
        """Remove what is left of the conversation in whose place there is a grave; return the grave if it is there yet.

        It stays where the service has no conditional DELETE, if it `stays` on purpose, and if there were segments of
        other incarnations. It is written anew before these are removed: whoever had seen it, and stores segments to
        come in its place, is refused.
        """
        names = [entry.object for entry in self.bucket.listed(self.layout.segments_below(place))]
        own = self.layout.segments_at(place, grave.incarnation)
        marker = self.layout.marker_at(place, grave.marker, grave.incarnation)
        self.bucket.remove_all([*(name for name in names if name.startswith(own)), marker])
        name, others = self.layout.heads(None) + place, self._of_others(names, grave.incarnation)
        try:
            if others:
                grave = replace(grave, deleter=token())
                etag = self.bucket.replace(name, encoded_head(grave), etag=etag)
                self.bucket.remove_all(others)
            elif self.bucket.service.deletes and not stays:
                self.bucket.remove(name, etag=etag)
                return None
        except (Missing, Overtaken):
            return None
        return Found(grave, etag)

    def _shelf(self, content: Content) -> Shelf:
        return Shelf(self.bucket, self.layout, content.head.key, content.incarnation)

    def _discard(self, lost: Overtaken, objects: Sequence[str]) -> None:
        """Remove what was stored for a commit that was refused; what may have been committed stays."""
        if not lost.uncertain:
            self.tidy(objects)

    def tidy(self, objects: Sequence[str]) -> None:
        """Remove objects that nobody names (any more); if that fails they are left for the sweep."""
        with suppress(StoreError):
            self.bucket.remove_all(objects)


NO_TIME = "0" * 19
"""The time of a marker that nobody knows."""


def _living(found: Found | None) -> Content | None:
    return found.content if found is not None and isinstance(found.content, Content) else None


def _begun(key: Key, revision: Revision, first: int, *, fenced: bool) -> Content:
    return Content(Head(key, first, first, revision), token(), "", (), first, fenced=fenced)


def _moved(content: Content, changed: Changed) -> Content:
    return replace(content, segments=changed.segments, edge=changed.edge, tail=changed.tail)


def _check_version(key: Key, base: Content | None, version: str | None) -> None:
    head = base.head if base else None
    if version != (head.revision.version if head else None):
        raise Conflict(key, head)


def _restless() -> StoreUnavailable:
    return StoreUnavailable(f"others changed the conversation {_ROUNDS} times meanwhile", outcome="not stored")
