"""The records of a conversation with a damaged head or with moved lines, and a new head for it.

A file is scanned once for sound lines, at any offset; only their offsets stay in memory. Reading and rewriting use the
same line for a record. A file that an editor saved as UTF-16, or with CR as its line ends, is converted back first, in
memory.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from chathistory.errors import Conflict
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.values import Head, Key, Record
from chathistory_file.errors import Damage, OtherConversation, OtherLayout
from chathistory_file.files import ChunkReader, OpenFile, Paths, open_existing
from chathistory_file.read import NO_LINE, FileState, ScannedLine, find_state, is_utf16, load_state, scan_lines
from chathistory_file.schema import LF, CommitLine, RecordLine, decode_body
from chathistory_file.write import replace_file, set_aside

__all__ = ["FileRecovery", "restore_order"]

_CHUNK_SIZE = 1024 * 1024  # bytes to hash or copy at a time
_READ_SIZE = 64 * 1024  # bytes to read first
_MEANINGLESS = b"\r\n\x00 \t\xef\xbb\xbf"  # line ends, blanks, holes, byte order marks
_LARGEST_REENCODED = 256 * 1024 * 1024  # bytes of a file whose encoding by an editor is undone, in memory

Span: TypeAlias = tuple[int, int]  # from one offset to another


class RecordSpan(NamedTuple):
    """The position of a record, and the offsets [start, stop) of its sound line."""

    position: int
    start: int
    stop: int


@dataclass(slots=True)
class LineIndex:
    """The offsets of the sound lines of a conversation in its file, and of everything else there.

    Attributes:
        records: The lines of records, ordered by position; one for each position.
        commits: The sound commits.
        rest: The spans outside of the conversation's sound lines.
    """

    records: list[RecordSpan] = field(default_factory=list)
    commits: list[CommitLine] = field(default_factory=list)
    rest: list[Span] = field(default_factory=list)

    @classmethod
    def scan(cls, reader: ChunkReader, key: Key, stop: int) -> LineIndex:
        """Scan the first `stop` bytes of a file for the lines of a conversation.

        Args:
            reader: The bytes of the file.
            key: The conversation.
            stop: The offset at which to stop.
        """
        index, committed = cls(), 0  # the number of lines that belong to an append with a commit
        for scanned in scan_lines(reader, 0, stop):
            for line in scanned.lines:
                if isinstance(line, RecordLine):
                    index.records.append(RecordSpan(line.position, line.start, line.stop))
                elif line.head.key == key:
                    index.commits.append(line)
                    committed = len(index.records)
                else:  # these lines are of another conversation
                    index.rest += [record[1:] for record in index.records[committed:]] + [(line.start, line.stop)]
                    del index.records[committed:]
            index._add_gaps(scanned)
        index._drop_duplicates()
        if index.records:  # drop positions that the file has no room for: all positions between would be in it as well
            near = index.records[len(index.records) // 2].position
            ends = [commit.head.end for commit in index.commits]
            low, high = (0, max(ends) + stop) if ends else (max(near - stop, 0), near + stop)
            index.rest += [record[1:] for record in index.records if not low <= record.position < high]
            index.records = index.select(low, high)
        return index

    def select(self, start: int, stop: int) -> list[RecordSpan]:
        """Return the lines of the positions [start, stop) that have one, in order."""
        low, high = (bisect_left(self.records, position, key=attrgetter("position")) for position in (start, stop))
        return self.records[low:high]

    def _add_gaps(self, scanned: ScannedLine) -> None:
        """Add the bytes between sound lines to the rest, unless they are blank."""
        offset = scanned.start
        starts = [offset, *(line.stop for line in scanned.lines)]
        stops = [*(line.start for line in scanned.lines), offset + len(scanned.data)]
        for start, stop in zip(starts, stops, strict=True):
            if scanned.data[start - offset : stop - offset].strip(_MEANINGLESS):
                self.rest.append((start, stop))

    def _drop_duplicates(self) -> None:
        """Order the lines by position, and keep the likeliest of several lines with one position.

        That is a line at the offset where its append would have it, between the lines of the neighbouring positions.
        """
        records = self.records
        if all(one.position < following.position for one, following in pairwise(records)):
            return
        appends = _Appends(self.commits, {record.start for record in records})

        def rank(at: int) -> tuple[bool, int]:
            position = records[at].position
            follows = at == 0 or records[at - 1].position + 1 == position
            is_followed = at == len(records) - 1 or records[at + 1].position == position + 1
            return appends.is_in_place(records[at]), follows + is_followed

        self.records = []
        in_order = sorted(range(len(records)), key=lambda at: records[at].position)
        for _, group in groupby(in_order, key=lambda at: records[at].position):
            same = list(group)
            best = max(same, key=rank) if len(same) > 1 else same[0]  # the first of several with the same rank
            self.records.append(records[best])
            self.rest += [records[at][1:] for at in same if at != best]


class _Appends:
    """The offsets at which lines of appends may be: before their commit, or where they were written."""

    def __init__(self, commits: list[CommitLine], record_starts: set[int]) -> None:
        self._commits = sorted(commits, key=lambda commit: commit.head.end)
        self._record_starts = record_starts

    def is_in_place(self, record: RecordSpan) -> bool:
        """Return True if a record is at an offset where the append of its position may have written it."""
        at = bisect_left(self._commits, record.position + 1, key=lambda commit: commit.head.end)
        for commit in self._commits[at:]:
            if commit.head.end != self._commits[at].head.end:
                break
            now = commit.start - commit.size
            offsets = [now] if now == commit.at or now in self._record_starts else []
            offsets += [commit.at] if commit.at + commit.size in self._record_starts else []
            if any(offset <= record.start and record.stop <= offset + commit.size for offset in offsets):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result of scanning a file.

    Attributes:
        reader: The bytes of the file, with the encoding of an editor undone.
        state: Its last commit; None if that is damaged.
        problem: What is wrong with the head; None if it is sound.
        index: The sound lines.
    """

    reader: ChunkReader
    state: FileState | None
    problem: str | None
    index: LineIndex

    @classmethod
    def of_file(cls, file: OpenFile, key: Key) -> Inspection:
        """Scan a file.

        Args:
            file: The file.
            key: The conversation that it belongs to.

        Raises:
            OtherConversation: All commits are of another conversation.
            OtherLayout: A version with another layout wrote a commit.
        """
        problem = "no append to the file was completed"
        reader = ChunkReader(file.fd, file.size, step=_READ_SIZE)
        try:
            state = load_state(file, is_own=key.__eq__)
        except OtherConversation:
            raise
        except Damage as damage:
            state, problem, reader = None, damage.reason, _undo_reencoding(reader)
        if state is None:
            return cls(reader, None, problem, LineIndex.scan(reader, key, reader.size))
        return cls(reader, state, None, index_state(state))


def index_state(state: FileState) -> LineIndex:
    """Return the sound lines of a conversation with a head; lines after the head's commit do not belong to it."""
    reader = ChunkReader(state.reader.fd, state.reader.size, step=_READ_SIZE)
    index = LineIndex.scan(reader, state.head.key, state.stop)
    if state.tail_size and not state.commit.has_moved:
        index.rest.append((state.after, reader.size))
    return index


def _undo_reencoding(reader: ChunkReader) -> ChunkReader:
    """Return a file's bytes in their original encoding and with their original line ends; a huge file unchanged."""
    if reader.size > _LARGEST_REENCODED:
        return reader
    if is_utf16(reader):
        reader = ChunkReader.from_bytes(reader.read(0, reader.size).decode("utf-16", "replace").encode())
    if reader.find(LF, 0, reader.size) < 0:
        reader = ChunkReader.from_bytes(reader.read(0, reader.size).replace(b"\r", LF))
    return reader


class FileRecovery:
    """Finds the records of damaged conversations, and caches the line index of the last file."""

    def __init__(self) -> None:
        self._last: tuple[object, LineIndex] | None = None  # the identity of the file's content, and its index

    def find(self, paths: Paths, key: Key) -> FoundRecords | None:
        """Return the range of sound records in a conversation's file; None if there is no file, or an empty one.

        Args:
            paths: The paths of the conversation.
            key: Its key.

        Raises:
            OtherConversation: The file holds another conversation.
            OtherLayout: A version with another layout wrote it.
        """
        with open_existing(paths.main) as file:
            if file is None or not file.size:
                return None
            found = Inspection.of_file(file, key)
            self._last = (_file_identity(file.status, key), found.index)
            token = _hash_file(file)
        if found.state is not None:
            head = found.state.head
            return FoundRecords(key, token, head.start, head.end, None)
        records, commits = found.index.records, found.index.commits
        start = commits[-1].head.start if commits else records[0].position if records else 0
        return FoundRecords(key, token, start, max(start, records[-1].position + 1 if records else 0), found.problem)

    def read(self, paths: Paths, key: Key, start: int, stop: int) -> list[Record]:
        """Return the sound records of the positions [start, stop), in order; [] if there is no file.

        Args:
            paths: The paths of the conversation.
            key: Its key.
            start: The first position.
            stop: The position after the last one.
        """
        records: list[Record] = []
        with open_existing(paths.main) as file:
            if file is None:
                return records
            if self._last is None or self._last[0] != _file_identity(file.status, key):
                self._last = (_file_identity(file.status, key), Inspection.of_file(file, key).index)
            reader = _undo_reencoding(ChunkReader(file.fd, file.size, step=_READ_SIZE))
            for record in self._last[1].select(start, stop):
                body = decode_body(reader.read(record.start, record.stop), record.position)
                if body is not None:
                    with suppress(UnicodeDecodeError):
                        records.append(Record(record.position, body.decode()))
        return records

    def iter_bodies(self, state: FileState, wanted: range) -> Iterator[bytes]:
        """Yield the bodies of a range of records of a file with moved lines; see `read.iter_bodies`.

        Args:
            state: The state of the conversation.
            wanted: The positions of the records.

        Raises:
            Damage: At the first record that is not sound.
        """
        reader, key = state.reader, state.head.key
        identity = _file_identity(os.fstat(reader.fd), key)
        if self._last is None or self._last[0] != identity:
            self._last = (identity, index_state(state))
        records = iter(self._last[1].select(wanted.start, wanted.stop))
        for position in wanted:
            record = next(records, None)
            body = decode_body(reader.read(record.start, record.stop), position) if record else None
            if body is None:
                raise Damage(position, NO_LINE)
            yield body

    def restore(self, paths: Paths, key: Key, token: str, head: Head) -> Head:
        """Replace a conversation's file with its sound lines and a new head, and set the rest aside.

        Run this under the lock of the conversation.

        Args:
            paths: The paths of the conversation.
            key: Its key.
            token: The hash of the file that `find` returned.
            head: The new head.

        Returns:
            The new head.

        Raises:
            Conflict: The file has changed since `find`.
        """
        with open_existing(paths.main) as file:
            if file is None or _hash_file(file) != token:
                current = None
                with suppress(Damage, OtherLayout):
                    current = find_state(paths, is_own=key.__eq__)
                raise Conflict(key, current.head if current else None)
            inspection = Inspection.of_file(file, key)
            _rewrite_in_order(paths, inspection.reader, inspection.index, head)
        return head


def _file_identity(status: os.stat_result, key: Key) -> object:
    return key, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash_file(file: OpenFile) -> str:
    digest = hashlib.sha256()
    for offset in range(0, file.size, _CHUNK_SIZE):
        digest.update(os.pread(file.fd, min(_CHUNK_SIZE, file.size - offset), offset))
    return digest.hexdigest()


def restore_order(paths: Paths, state: FileState) -> None:
    """Rewrite a file with moved lines so that each position has one line; the head stays. Run this under its lock.

    Everything outside the sound lines of the conversation is set aside.

    Args:
        paths: The paths of the conversation.
        state: Its state.
    """
    _rewrite_in_order(paths, state.reader, index_state(state), state.head)


def _rewrite_in_order(paths: Paths, reader: ChunkReader, index: LineIndex, head: Head) -> None:
    """Write the sound lines in the range of a head into a new file, and set the rest aside."""
    kept = index.select(head.start, head.end)
    rest = sorted(index.rest + [record[1:] for record in index.records if not head.start <= record.position < head.end])
    if rest:
        parts = (
            (offset, min(offset + _CHUNK_SIZE, stop), stop)
            for start, stop in rest
            for offset in range(start, stop, _CHUNK_SIZE)
        )
        set_aside(paths, (reader.read(low, high) + (LF if high == stop else b"") for low, high, stop in parts))
    lines = (reader.read(record.start, record.stop) + LF for record in kept)
    replace_file(paths, lines, head, keep_aside=True)
