"""The commit of an append, a forget and a delete, and what is removed after it.

Each is one conditional PUT of the head's object. What it will name is stored before it, what it no longer names is
removed after it: whoever dies in between leaves a whole conversation, and at most objects that nobody names. Of one
incarnation, segments that begin below the head's start, and markers behind its time, are never named again.

Segments of other incarnations at the same place are of first appends that broke off. Their writers may still be about
to make the conversation, which they only can where no object is. So such segments are removed while an object is there,
the conversation itself or a tombstone, and from then on there is always one, as a *fence*: who makes a conversation
over a tombstone marks it, the tombstone of a marked one stays, and only the sweep removes tombstones, a day after they
were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from chathistory.errors import Conflict, CorruptRecord, StoreError, StoreUnavailable, UnsupportedRecord
from chathistory.storage.checks import check_version
from chathistory.storage.values import Damaged, Head, Key, Revision
from chathistory_s3.errors import ObjectMissing, ObjectUnavailable, PreconditionFailed
from chathistory_s3.heads import Heads, S3StoredHead
from chathistory_s3.lines import encode_lines
from chathistory_s3.names import UNKNOWN_TIME, marker_time, new_token, object_path
from chathistory_s3.schema import HeadContent, Tombstone, encode_head, find_tokens
from chathistory_s3.segments import SegmentMissing, SegmentStore

__all__ = ["S3Writer"]

_ATTEMPTS = 100  # commits that others overtake with what is no conflict, and forgets and deletes that others overtake


class S3Writer:
    """Writes into one bucket; `width`: microseconds within which a marker stays where it is."""

    def __init__(self, heads: Heads, width: int) -> None:
        self.heads = heads
        self.bucket = heads.bucket
        self.names = heads.names
        self._width = width

    def append(self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int) -> Head:
        """Append as `BaseStore._append_records` says."""
        found: S3StoredHead | None = None  # whoever makes a conversation expects nothing
        if after is not None:
            found = self.heads.get_cached(key)
            known = found.living if found is not None else None
            if known is None or known.head.revision.version != after.revision.version:
                found = self.heads.load(key)
        writer = new_token()
        for _ in range(_ATTEMPTS):
            if after is None and found is not None and isinstance(found.content, Tombstone):
                found = self.finish_delete(object_path(key), found.content, found.etag, stays=True)
            base = found.living if found is not None else None
            check_version(key, base.head if base else None, after)
            if base is None:
                base = HeadContent(
                    Head(key, first, first, revision), new_token(), "", (), first, fenced=found is not None
                )
            try:
                return self._commit_append(base, bodies, revision, over=found, writer=writer)
            except PreconditionFailed as lost:
                found = self._reload_head(key, lost)
                base = found.living if found is not None else None
                if lost.uncertain and base is not None and base.writer == writer:
                    return base.head
        raise _too_many_conflicts()

    def _reload_head(self, key: Key, lost: PreconditionFailed) -> S3StoredHead | None:
        try:
            return self.heads.load(key)
        except StoreUnavailable as error:
            if not lost.uncertain:
                raise
            raise StoreUnavailable(
                "the service did not tell what became of a write", outcome="unknown"
            ) from error.__cause__

    def _commit_append(
        self, base: HeadContent, bodies: Sequence[str], revision: Revision, *, over: S3StoredHead | None, writer: str
    ) -> Head:
        key, end = base.head.key, base.head.end
        segments = SegmentStore(self.heads, key, base.incarnation)
        placement = segments.add_lines(base, encode_lines(bodies, end))
        time = self.next_marker(base.marker, revision)
        marker = self.names.marker(object_path(key), time, base.incarnation)
        if time != base.marker:
            self.bucket.put(marker, b"")
        head = Head(key, base.head.start, end + len(bodies), revision)
        content = placement.apply(replace(base, head=head, marker=time, writer=writer))
        created = segments.names_of(placement.created)
        self._put_head(key, content, over=over, created=created if base.marker else [*created, marker])
        obsolete = segments.names_of(placement.obsolete)
        if base.marker and time != base.marker:
            obsolete.append(self.names.marker(object_path(key), base.marker, base.incarnation))
        self.remove_unnamed(obsolete)
        return head

    def _put_head(
        self, key: Key, content: HeadContent, *, over: S3StoredHead | None, created: Sequence[str]
    ) -> S3StoredHead:
        """Put a head; if that is refused for certain, remove what was created for it. Raises `PreconditionFailed`."""
        try:
            return self.heads.put(key, content, over=over)
        except PreconditionFailed as lost:
            if not lost.uncertain:
                self.remove_unnamed(created)
            raise

    def next_marker(self, marker: str, revision: Revision) -> str:
        """Return the time of the marker after an append; it never goes back. `marker` is the present one, or ""."""
        time = marker_time(revision.updated, self._width)
        return min(marker, time) if marker else time

    def forget(self, key: Key, before: int) -> Head | None:
        """Forget as `BaseStore._forget_records` says; a second call removes what a crash of the first one left."""
        last: S3StoredHead | None = None  # of the look before, when a segment was missing
        for _ in range(_ATTEMPTS):
            stored = self.heads.load(key)
            content = stored.living if stored is not None else None
            if stored is None or content is None:
                return None
            head = content.head.drop_below(before)
            missing_is_damage = last is not None and last.etag == stored.etag
            try:
                if head != content.head:
                    segments = SegmentStore(self.heads, key, content.incarnation)
                    placement = segments.drop_below(content, head.start, missing_is_damage=missing_is_damage)
                    content = placement.apply(replace(content, head=head))
                    stored = self._put_head(key, content, over=stored, created=segments.names_of(placement.created))
                self._remove_below(content, stored)
            except PreconditionFailed:
                continue
            except SegmentMissing:
                last = stored
                continue
            return head
        raise _too_many_conflicts()

    def _remove_below(self, content: HeadContent, over: S3StoredHead) -> None:
        """Remove the segments that begin below the head, and those of other incarnations: these have the same text."""
        head, place = content.head, object_path(content.head.key)
        below: list[str] = []
        others: list[str] = []
        for entry in self.bucket.list_objects(self.names.segments_at(place)):
            segment = self.names.parse_segment(entry.name)
            if segment is not None and segment.incarnation != content.incarnation:
                others.append(entry.name)
            elif segment is not None and segment.first < head.start:
                below.append(entry.name)
        if others and not content.fenced:
            self.heads.put(head.key, replace(content, fenced=True, writer=new_token()), over=over)
        self.bucket.delete_all([*below, *others])

    def delete(self, key: Key, version: str | None) -> bool:
        """Delete as `BaseStore._delete` says; a damaged one too, unless it must have a `version`."""
        deleter = new_token()
        tried: str | None = None  # the incarnation that we may have deleted, although no answer said so
        for _ in range(_ATTEMPTS):
            try:
                stored = self.heads.load(key)
            except (CorruptRecord, UnsupportedRecord):
                if version is not None:
                    raise
                if self.delete_damaged(self.names.head(key)):
                    return True
                continue
            if stored is None:
                return tried is not None
            if isinstance(stored.content, Tombstone):
                self.finish_delete(object_path(key), stored.content, stored.etag, stays=True)
                return stored.content.deleter == deleter
            content = stored.content
            if tried not in {None, content.incarnation}:
                return True
            if version not in {None, content.head.revision.version}:
                raise Conflict(key, content.head)
            tombstone = Tombstone(content.incarnation, content.marker, deleter)
            try:
                etag = self.heads.put(key, tombstone, over=stored).etag
            except PreconditionFailed as lost:
                tried = content.incarnation if lost.uncertain else tried
                continue
            self.finish_delete(object_path(key), tombstone, etag, stays=content.fenced)
            return True
        raise _too_many_conflicts()

    def delete_damaged(self, name: str) -> bool:
        """Remove a head that cannot be read, and all that is at its place; False: it has changed meanwhile."""
        try:
            data, etag = self.bucket.get(name)
        except ObjectMissing:
            return False
        except ObjectUnavailable:
            data, etag = b"", next((entry.etag for entry in self.bucket.list_objects(name) if entry.name == name), "")
        if not etag or not isinstance(self.heads.parse(name, data, etag), Damaged):
            return False
        incarnation, marker = find_tokens(data)
        tombstone = Tombstone(incarnation or new_token(), marker or UNKNOWN_TIME, new_token())
        try:
            etag = self.bucket.replace(name, encode_head(tombstone), etag=etag)
        except (ObjectMissing, PreconditionFailed):
            return False
        self.finish_delete(name.removeprefix(self.names.heads()), tombstone, etag, stays=True)
        return True

    def finish_delete(self, place: str, tombstone: Tombstone, etag: str, *, stays: bool) -> S3StoredHead | None:
        """Remove what is left of the conversation in whose place there is a tombstone; return that if it is there yet.

        It stays where the service has no conditional DELETE, if it `stays` on purpose, and if there were segments of
        other incarnations. It is written anew before these are removed: whoever had seen it, and stores segments to
        come in its place, is refused.
        """
        own = [self.names.marker(place, tombstone.marker, tombstone.incarnation)]
        others: list[str] = []
        for entry in self.bucket.list_objects(self.names.segments_at(place)):
            segment = self.names.parse_segment(entry.name)
            if segment is not None:
                (own if segment.incarnation == tombstone.incarnation else others).append(entry.name)
        self.bucket.delete_all(own)
        name = self.names.head_at(place)
        try:
            if others:
                tombstone = replace(tombstone, deleter=new_token())
                etag = self.bucket.replace(name, encode_head(tombstone), etag=etag)
                self.bucket.delete_all(others)
            elif self.bucket.service.conditional_delete and not stays:
                self.bucket.delete(name, etag=etag)
                return None
        except (ObjectMissing, PreconditionFailed):
            return None
        return S3StoredHead(tombstone, etag)

    def remove_unnamed(self, names: Sequence[str]) -> None:
        """Remove objects that nobody names any longer; if that fails they are left for the sweep."""
        with suppress(StoreError):
            self.bucket.delete_all(names)


def _too_many_conflicts() -> StoreUnavailable:
    return StoreUnavailable(f"others changed the conversation {_ATTEMPTS} times during the call", outcome="not stored")
