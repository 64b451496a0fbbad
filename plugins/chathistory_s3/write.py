"""The commit of an append, a forget and a delete, and the removal of old objects after it.

Each is one conditional PUT of the head's object. Objects that the new head refers to are stored before it, and objects
that it no longer refers to are removed after it. A crash in between leaves a complete conversation, and at most objects
that no head refers to. Within one incarnation, no head refers again to segments that begin below the head's start, or
to markers of earlier times.

Segments of other incarnations at the same place belong to interrupted first appends. Their writers may still be about
to create the conversation, which succeeds only where no object exists. So such segments are removed while an object
exists, the conversation itself or a tombstone, and from then on an object always exists, as a *fence*: a conversation
that replaces a tombstone is marked, the tombstone of a marked conversation stays, and only the sweep removes
tombstones, a day after they were created.
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

_ATTEMPTS = 100  # attempts of a commit, a forget or a delete while others change the head without a conflict


class S3Writer:
    """Writes conversations into one bucket.

    Args:
        heads: The heads.
        width: Microseconds within which a marker does not move.
    """

    def __init__(self, heads: Heads, width: int) -> None:
        self.heads = heads
        self.bucket = heads.bucket
        self.names = heads.names
        self._width = width

    def append(self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int) -> Head:
        """Append records, as `BaseStore._append_records` describes.

        Args:
            key: The conversation.
            bodies: The bodies of the new records.
            after: The head that the writer has seen; None to create the conversation.
            revision: The new revision.
            first: The position of the first record of a new conversation.

        Returns:
            The new head.

        Raises:
            Conflict: The conversation has another version than `after`, or exists.
            StoreError: A request failed.
        """
        found: S3StoredHead | None = None  # for a new conversation, no object is expected
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
                "append failed: the response to the write was lost, and the head could not be read after it",
                outcome="unknown",
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
        """Put a head; if that has certainly failed, remove the objects `created`. Raises `PreconditionFailed`."""
        try:
            return self.heads.put(key, content, over=over)
        except PreconditionFailed as lost:
            if not lost.uncertain:
                self.remove_unnamed(created)
            raise

    def next_marker(self, marker: str, revision: Revision) -> str:
        """Return the time of the marker after an append; it never moves back.

        Args:
            marker: The current time of the marker; "" if there is no marker yet.
            revision: The new revision.
        """
        time = marker_time(revision.updated, self._width)
        return min(marker, time) if marker else time

    def forget(self, key: Key, before: int) -> Head | None:
        """Remove the records below a position; a second call finishes a call that was interrupted.

        Args:
            key: The conversation.
            before: The first position to keep.

        Returns:
            The new head; None if there is no such conversation.

        Raises:
            CorruptRecord: The head is damaged.
            StoreError: A request failed.
        """
        last: S3StoredHead | None = None  # the head of the attempt before, if a segment was missing
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
        """Remove segments that begin below the head, and those of other incarnations, which may have the same text."""
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
        """Remove a conversation.

        Args:
            key: The conversation.
            version: The version that it must have; None removes any, also a damaged conversation.

        Returns:
            False if there was no such conversation.

        Raises:
            Conflict: It has another version.
            CorruptRecord: It is damaged, and must have a version.
            StoreError: A request failed.
        """
        deleter = new_token()
        tried: str | None = None  # the incarnation that may have been deleted although the response was lost
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
        """Remove an unreadable head, and all objects at its place; return False if it has changed meanwhile.

        Args:
            name: The name of the head's object.
        """
        try:
            data, etag = self.bucket.get(name)
        except ObjectMissing:
            return False
        except ObjectUnavailable:
            data, etag = b"", next((entry.etag for entry in self.bucket.list_objects(name) if entry.name == name), "")
        if not etag or not isinstance(self.heads.decode_prefix(name, data, etag), Damaged):
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
        """Remove the objects of a deleted conversation, and then its tombstone unless it must stay.

        It stays if the service has no conditional DELETE, if `stays` is True, and if there were segments of other
        incarnations. Before these are removed, the tombstone is written again: a writer that has seen it, and stores
        segments for a conversation in its place, is then refused.

        Args:
            place: The place of the conversation.
            tombstone: The tombstone.
            etag: Its ETag.
            stays: Whether it must stay.

        Returns:
            The tombstone with its new ETag; None if it no longer exists.
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
        """Remove objects that no head refers to; if that fails, the sweep removes them later."""
        with suppress(StoreError):
            self.bucket.delete_all(names)


def _too_many_conflicts() -> StoreUnavailable:
    return StoreUnavailable(
        f"others changed the conversation during each of {_ATTEMPTS} attempts; try again", outcome="not stored"
    )
