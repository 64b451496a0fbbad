"""The records of a conversation whose head is damaged or whose lines were moved, and a new head for it.

A file is looked through once for all lines that are sound, wherever they stand; only where they are is kept in memory.
Reading and writing anew take the same line for a record. What an editor saved as UTF-16, or with line ends of CR alone,
is turned back first, all of it in memory.
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
from chathistory_file.errors import Damage, NewerLayout, OtherConversation
from chathistory_file.files import ChunkReader, OpenFile, Paths, open_existing
from chathistory_file.read import NO_LINE, FileState, ScannedLine, find_state, is_utf16, load_state, scan_lines
from chathistory_file.schema import LF, CommitLine, RecordLine, decode_body
from chathistory_file.write import quarantine, replace_file

__all__ = ["FileRecovery", "restore_order"]

_PART = 1024 * 1024
_STEP = 64 * 1024
_MEANINGLESS = b"\r\n\x00 \t\xef\xbb\xbf"  # line ends, blanks, holes, byte order marks
_LARGEST_REENCODED = 256 * 1024 * 1024  # bytes of a file that is turned back, in memory, from what an editor saved

Span: TypeAlias = tuple[int, int]  # from one offset to another


class RecordSpan(NamedTuple):
    """Where the sound line of a record stands."""

    position: int
    start: int
    stop: int


@dataclass(slots=True)
class LineIndex:
    """Where the sound lines of a conversation's records are in its file, and what else is there.

    Attributes:
        records: The lines, in the order of their positions; one for each.
        commits: The sound commits.
        rest: What is in none of its sound lines.
    """

    records: list[RecordSpan] = field(default_factory=list)
    commits: list[CommitLine] = field(default_factory=list)
    rest: list[Span] = field(default_factory=list)

    @classmethod
    def scan(cls, reader: ChunkReader, key: Key, stop: int) -> LineIndex:
        """Look through a file up to `stop`."""
        index, settled = cls(), 0  # so many lines belong to an append whose commit was seen
        for scanned in scan_lines(reader, 0, stop):
            for line in scanned.lines:
                if isinstance(line, RecordLine):
                    index.records.append(RecordSpan(line.position, line.start, line.stop))
                elif line.head.key == key:
                    index.commits.append(line)
                    settled = len(index.records)
                else:  # these lines are of another conversation
                    index.rest += [record[1:] for record in index.records[settled:]] + [(line.start, line.stop)]
                    del index.records[settled:]
            index._add_gaps(scanned)
        index._drop_duplicates()
        if index.records:  # leave out what the file has no room for: all that is between would have to be in it, too
            near = index.records[len(index.records) // 2].position
            ends = [commit.head.end for commit in index.commits]
            low, high = (0, max(ends) + stop) if ends else (max(near - stop, 0), near + stop)
            index.rest += [record[1:] for record in index.records if not low <= record.position < high]
            index.records = index.select(low, high)
        return index

    def select(self, start: int, stop: int) -> list[RecordSpan]:
        """Return the lines of the positions of [start, stop)."""
        low, high = (bisect_left(self.records, position, key=attrgetter("position")) for position in (start, stop))
        return self.records[low:high]

    def _add_gaps(self, scanned: ScannedLine) -> None:
        """Add what is between sound lines to the rest, unless it has no meaning."""
        offset = scanned.start
        starts = [offset, *(line.stop for line in scanned.lines)]
        stops = [*(line.start for line in scanned.lines), offset + len(scanned.data)]
        for start, stop in zip(starts, stops, strict=True):
            if scanned.data[start - offset : stop - offset].strip(_MEANINGLESS):
                self.rest.append((start, stop))

    def _drop_duplicates(self) -> None:
        """Bring the lines into the order of their positions, and keep the likeliest of several with one position.

        That is a line that stands where its append would have it, and beside the lines of the positions beside it.
        """
        records = self.records
        if all(before.position < behind.position for before, behind in pairwise(records)):
            return
        appends = _Appends(self.commits, {record.start for record in records})

        def rank(at: int) -> tuple[bool, int]:
            position = records[at].position
            before = at == 0 or records[at - 1].position + 1 == position
            behind = at == len(records) - 1 or records[at + 1].position == position + 1
            return appends.is_in_place(records[at]), before + behind

        self.records = []
        in_order = sorted(range(len(records)), key=lambda at: records[at].position)
        for _, group in groupby(in_order, key=lambda at: records[at].position):
            same = list(group)
            best = max(same, key=rank) if len(same) > 1 else same[0]  # of equals the first
            self.records.append(records[best])
            self.rest += [records[at][1:] for at in same if at != best]


class _Appends:
    """Where the lines of appends may stand: before their commit, or where they were written, if a line is there."""

    def __init__(self, commits: list[CommitLine], record_starts: set[int]) -> None:
        self._commits = sorted(commits, key=lambda commit: commit.head.end)
        self._record_starts = record_starts

    def is_in_place(self, record: RecordSpan) -> bool:
        """Return whether a record stands where the append of its position would have it."""
        at = bisect_left(self._commits, record.position + 1, key=lambda commit: commit.head.end)
        for commit in self._commits[at:]:
            if commit.head.end != self._commits[at].head.end:
                break
            now = commit.start - commit.size
            places = [now] if now == commit.at or now in self._record_starts else []
            places += [commit.at] if commit.at + commit.size in self._record_starts else []
            if any(place <= record.start and record.stop <= place + commit.size for place in places):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Inspection:
    """A file that was looked through; `state` is None where its head is damaged, and `problem` says how."""

    reader: ChunkReader
    state: FileState | None
    problem: str | None
    index: LineIndex

    @classmethod
    def of_file(cls, file: OpenFile, key: Key) -> Inspection:
        """Look through a file. Raises `OtherConversation` and `NewerLayout`."""
        problem = "no append to it was completed"
        reader = ChunkReader(file.fd, file.size, step=_STEP)
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
    """Look for the sound lines of a conversation that has a head; those behind that are not the conversation's."""
    reader = ChunkReader(state.reader.fd, state.reader.size, step=_STEP)
    index = LineIndex.scan(reader, state.head.key, state.stop)
    if state.tail_size and not state.commit.has_moved:
        index.rest.append((state.after, reader.size))
    return index


def _undo_reencoding(reader: ChunkReader) -> ChunkReader:
    """Return what is in a file, in the encoding and with the line ends that it was written with; not if it is huge."""
    if reader.size > _LARGEST_REENCODED:
        return reader
    if is_utf16(reader):
        reader = ChunkReader.from_bytes(reader.read(0, reader.size).decode("utf-16", "replace").encode())
    if reader.find(LF, 0, reader.size) < 0:
        reader = ChunkReader.from_bytes(reader.read(0, reader.size).replace(b"\r", LF))
    return reader


class FileRecovery:
    """Finds the records of damaged conversations, and remembers where they are in the file that was looked at last."""

    def __init__(self) -> None:
        self._last: tuple[object, LineIndex] | None = None  # of which file, as it was then

    def find(self, paths: Paths, key: Key) -> FoundRecords | None:
        """Return what is found in a conversation's file; None: there is none."""
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
        """Return the sound records of a range."""
        records: list[Record] = []
        with open_existing(paths.main) as file:
            if file is None:
                return records
            if self._last is None or self._last[0] != _file_identity(file.status, key):
                self._last = (_file_identity(file.status, key), Inspection.of_file(file, key).index)
            reader = _undo_reencoding(ChunkReader(file.fd, file.size, step=_STEP))
            for record in self._last[1].select(start, stop):
                body = decode_body(reader.read(record.start, record.stop), record.position)
                if body is not None:
                    with suppress(UnicodeDecodeError):
                        records.append(Record(record.position, body.decode()))
        return records

    def iter_bodies(self, state: FileState, wanted: range) -> Iterator[bytes]:
        """Yield what `read.iter_bodies` does, of a file in which lines were moved."""
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
        """Put a file of the sound lines and a new head in a conversation's place; set the rest aside. Under its lock.

        Raises:
            Conflict: The file is not the one that was found, whose hash is `token`.
        """
        with open_existing(paths.main) as file:
            if file is None or _hash_file(file) != token:
                present = None
                with suppress(Damage, NewerLayout):
                    present = find_state(paths, is_own=key.__eq__)
                raise Conflict(key, present.head if present else None)
            inspection = Inspection.of_file(file, key)
            _rewrite_in_order(paths, inspection.reader, inspection.index, head)
        return head


def _file_identity(status: os.stat_result, key: Key) -> object:
    return key, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash_file(file: OpenFile) -> str:
    digest = hashlib.sha256()
    for offset in range(0, file.size, _PART):
        digest.update(os.pread(file.fd, min(_PART, file.size - offset), offset))
    return digest.hexdigest()


def restore_order(paths: Paths, state: FileState) -> None:
    """Write a file anew in which lines were moved, with its head, so that positions have one line each. Under its lock.

    What is in no sound line of the conversation is set aside.
    """
    _rewrite_in_order(paths, state.reader, index_state(state), state.head)


def _rewrite_in_order(paths: Paths, reader: ChunkReader, index: LineIndex, head: Head) -> None:
    """Put the sound lines that a head names into a new file, and set the rest aside."""
    kept = index.select(head.start, head.end)
    rest = sorted(index.rest + [record[1:] for record in index.records if not head.start <= record.position < head.end])
    if rest:
        parts = (
            (offset, min(offset + _PART, stop), stop) for start, stop in rest for offset in range(start, stop, _PART)
        )
        quarantine(paths, (reader.read(low, high) + (LF if high == stop else b"") for low, high, stop in parts))
    lines = (reader.read(record.start, record.stop) + LF for record in kept)
    replace_file(paths, lines, head, keep_aside=True)
