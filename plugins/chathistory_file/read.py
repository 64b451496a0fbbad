"""The last commit of a file, and its records: whatever is sound, wherever damage stands beside it.

The state of a conversation is its last sound commit. What a crash leaves behind it is the beginning of an append, or an
append with holes: sectors that never reached the disk, and so are zeros. Anything else that has a sound record, or what
is left of a commit, was an append that is damaged now; that is an error, and nobody writes over it.

Nothing is remembered: all of it is found in the file, each time, for other processes write to it too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from chathistory.storage.values import Head, Key
from chathistory_file.errors import Damage, OtherConversation
from chathistory_file.files import ChunkReader, OpenFile, Paths, open_existing
from chathistory_file.schema import (
    COMMIT,
    LF,
    LONGEST_LINE,
    CommitLine,
    RecordLine,
    decode_body,
    decode_commit,
    find_lines,
    looks_like_commit,
    may_be_cut_line,
    may_hold_record,
)

__all__ = [
    "NO_LINE",
    "UNSYNCED",
    "FileState",
    "find_state",
    "is_utf16",
    "iter_bodies",
    "iter_kept_lines",
    "load_state",
    "scan_lines",
    "use_state",
]

T = TypeVar("T")

UNSYNCED = 64 * 1024
"""Bytes of records that are written together with their commit. Those of a larger append are on the disk before it."""

NO_LINE = "no sound line of this record is in the file"

_STEP = 4096  # bytes that are read at first
_SECTOR = 512
_PART = 1024 * 1024
_LONGEST_COMMIT = 16 * 1024 * 1024  # bytes at the end of a file in which its last commit is looked for first
_NEAR = 16 * 1024  # bytes that are rather read through than searched
_EARLIER_LAYOUT = b'\t{"commit":'
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NUMBER = re.compile(rb"\[([0-9]{1,19})(?![0-9])")


@dataclass(slots=True)
class FileState:
    """What a file holds: its last commit.

    Attributes:
        reader: The bytes of the file.
        commit: The last sound commit.
        after: Where its line ends, with the line feed if there is one.
        is_ended: Whether a line feed ends it.
        head: The head of the conversation.
        stop: Where the lines of the records end: before the commit, or anywhere if lines were moved.
        tail_size: How many bytes are behind the last commit.
    """

    reader: ChunkReader
    commit: CommitLine
    after: int
    is_ended: bool
    head: Head = field(init=False)
    stop: int = field(init=False)
    tail_size: int = field(init=False)

    def __post_init__(self) -> None:
        self.head = self.commit.head
        self.stop = self.reader.size if self.commit.has_moved else self.commit.start
        self.tail_size = self.reader.size - self.after


def find_state(paths: Paths, *, is_own: Callable[[Key], bool]) -> FileState | None:
    """Return the state of the conversation in a file, of which nothing is read further; see `use_state`."""
    return use_state(paths, lambda state: state, is_own=is_own)


def use_state(
    paths: Paths, use: Callable[[FileState], T], *, is_own: Callable[[Key], bool], step: int = _STEP
) -> T | None:
    """Return what `use` makes of the conversation in a file as it is at one moment; None: there is no conversation.

    Takes no lock: if an append is undone just now, what was seen of it is no damage, so look again.

    Raises:
        Damage: See `load_state`.
    """
    tries = 5
    while True:
        with open_existing(paths.main) as file:
            try:
                state = load_state(file, is_own=is_own, step=step)
                return use(state) if state else None
            except Damage:
                tries -= 1
                if file is None or not tries or not file.has_changed():
                    raise


def load_state(file: OpenFile | None, *, is_own: Callable[[Key], bool], step: int = _STEP) -> FileState | None:
    """Find the last commit of a file.

    Args:
        file: The file; None: there is no file.
        is_own: Tells whether a key is the one whose file this is.
        step: Bytes that are read at first.

    Returns:
        None if the file has no commit, so that all that it may hold is the tail of an append that was not completed.

    Raises:
        Damage: What is behind the last sound commit was a commit.
        OtherConversation: The commits are those of another conversation.
        NewerLayout: A later version wrote a commit.
    """
    if file is None or not file.size:
        return None
    reader = ChunkReader(file.fd, file.size, step=step)
    span = step
    while True:
        state = _find_commit_in_place(reader, span, is_own)
        if state is not None and not state.tail_size:
            return state
        if state is not None or span >= min(file.size, _LONGEST_COMMIT):
            return _search_commit(reader, state, is_own)
        span *= 4


def _find_commit_in_place(reader: ChunkReader, span: int, is_own: Callable[[Key], bool]) -> FileState | None:
    """Return the last sound commit that stands where it was written, if that is in the last `span` bytes."""
    base = max(reader.size - span, 0)
    data = reader.read(base, reader.size)
    at = len(data)
    while at > 0:
        at = data.rfind(COMMIT, 0, at)
        if at < 0 or (at == 0 and base > 0):
            return None
        if at > 0 and data[at - 1 : at] != LF:
            continue
        end = data.find(LF, at)
        line = data[at:end] if end >= 0 else data[at:]
        commit = decode_commit(line, base + at)
        if commit and not commit.has_moved and is_own(commit.head.key):
            is_whole = commit.size > UNSYNCED or not _has_zeroed_sector(reader, commit.start - commit.size, commit.stop)
            if is_whole:  # all of the append has reached the disk
                return FileState(reader, commit, commit.stop + (end >= 0), is_ended=end >= 0)
    return None


def _has_zeroed_sector(reader: ChunkReader, start: int, stop: int) -> bool:
    """Return whether there is a sector of which all that is in [start, stop) is zeros."""
    start = max(start, 0)
    while start < stop:
        end = stop if stop - start <= _PART else start - start % _PART + _PART
        data = reader.read(start, end)
        if b"\0" in data:
            borders = [0, *range(-start % _SECTOR or _SECTOR, len(data), _SECTOR), len(data)]
            if any(not data[low:high].strip(b"\0") for low, high in pairwise(borders)):
                return True
        start = end
    return False


@dataclass(frozen=True, slots=True)
class ScannedLine:
    """What stands between two line feeds, and the sound lines in it: one, or none, or more if line feeds were changed.

    Attributes:
        start: Its offset.
        data: The bytes.
        after: Where it ends, with its line feed if there is one.
        lines: The sound lines.
    """

    start: int
    data: bytes
    after: int
    lines: list[RecordLine | CommitLine]

    @property
    def is_ended(self) -> bool:
        """Whether a line feed ends it."""
        return self.after > self.start + len(self.data)


def scan_lines(reader: ChunkReader, start: int, stop: int) -> Iterator[ScannedLine]:
    """Yield all that is in [start, stop) of a file, line by line."""
    for offset, data in reader.iter_lines(start, stop):
        end = offset + len(data)
        is_ended = end < reader.size
        yield ScannedLine(offset, data, end + is_ended, find_lines(data, offset, ended=is_ended))


def _search_commit(reader: ChunkReader, state: FileState | None, is_own: Callable[[Key], bool]) -> FileState | None:
    """Find the last commit where the last line is not one, or not one as it was written; `state`: one in its place."""
    tail, has_others = _Tail.after_commit_of(state), False
    for scanned in scan_lines(reader, state.after if state else 0, reader.size):
        for line in scanned.lines:
            if isinstance(line, RecordLine):
                tail.add_record(line.position, scanned.after)
            elif not is_own(line.head.key):
                tail, has_others = _Tail.after_commit_of(state), True
            elif (state is None or line.head.end >= state.head.end) and (
                line.size > UNSYNCED or not _has_zeroed_sector(reader.clone(_STEP), line.start - line.size, line.stop)
            ):
                is_last = scanned.start + len(scanned.data) - line.stop <= 1
                after = scanned.after if is_last else line.stop
                state = FileState(reader, line, after, is_ended=is_last and scanned.is_ended)
                tail = _Tail.after_commit_of(state)
        if not scanned.lines:
            tail.add_junk(scanned.data, ended=scanned.is_ended)
    after = state.after if state else 0
    if tail.is_damaged and not any(_has_zeroed_sector(reader, start, reader.size) for start in (after, tail.stop)):
        raise Damage(None, "the last commit is not sound")
    if state is None:
        _check_uncommitted(reader, has_others=has_others)
    return state


def _check_uncommitted(reader: ChunkReader, *, has_others: bool) -> None:
    """Raise `Damage` if a file without any commit of its conversation is not one that a crash tore."""
    if has_others:
        raise OtherConversation
    if is_utf16(reader):
        raise Damage(None, "the file was saved as UTF-16, perhaps by an editor")
    if any(line.startswith(_EARLIER_LAYOUT) for _, line in reader.iter_lines(0, reader.size)):
        raise Damage(None, "the file has the layout of a version that was never released")


def is_utf16(reader: ChunkReader) -> bool:
    """Return whether a file begins like text that an editor saved as UTF-16."""
    return reader.read(0, min(reader.size, 2)) in _UTF16


@dataclass(slots=True)
class _Tail:
    """What is behind a commit, to tell the beginning of an append, as a crash leaves it, from a damaged one.

    Attributes:
        end: The position after the last record of that commit; None: there is no commit.
        stop: Where its lines end, and the regular ones behind them: a large append is written up to there and synced,
            and then its commit is written.
        next: The position of the next record of a regular append.
        is_regular: Whether all so far is what a crash leaves.
        has_stored_data: Whether it holds data of a completed append, which must not be lost.
    """

    end: int | None
    stop: int
    next: int | None = field(init=False)
    is_regular: bool = True
    has_stored_data: bool = False

    def __post_init__(self) -> None:
        self.next = self.end

    @classmethod
    def after_commit_of(cls, state: FileState | None) -> _Tail:
        return cls(state.head.end, state.after) if state else cls(None, 0)

    @property
    def is_damaged(self) -> bool:
        return self.has_stored_data and not self.is_regular

    def add_record(self, position: int, stop: int) -> None:
        """Add the record at this position, whose line ends at `stop`."""
        self.is_regular = self.is_regular and self.next in (None, position)
        self.stop = stop if self.is_regular else self.stop
        self.has_stored_data = self.has_stored_data or self.end is None or position >= self.end
        self.next = position + 1

    def add_junk(self, data: bytes, *, ended: bool) -> None:
        """Add a line that is not sound; a crash leaves one that is not ended."""
        is_commit = looks_like_commit(data, ended=ended)
        self.is_regular = self.is_regular and not ended and not is_commit and may_be_cut_line(data)
        self.has_stored_data = self.has_stored_data or is_commit


def iter_bodies(state: FileState, wanted: range) -> Iterator[bytes]:
    """Yield the bodies of records that are kept.

    What is beside them is not looked at. A record is found wherever it stands, also where two lines changed places. For
    a state whose lines were moved there is `FileRecovery.iter_bodies`.

    Raises:
        Damage: At the first record that is not sound.
    """
    position, stop = wanted.start, wanted.stop
    offset: int | None = 0 if position == state.head.start else _find_offset_before(state, position)
    while position < stop:
        if offset is None:
            raise Damage(position, NO_LINE)
        for body in _iter_in_order(state, offset, position):
            yield body
            position += 1
            if position == stop:
                return
        offset = _find_misplaced(state, position)


def _iter_in_order(state: FileState, offset: int, position: int) -> Iterator[bytes]:
    """Yield the bodies from `position` on that follow each other from `offset` on; ends where the next one does not."""
    for start, data in state.reader.iter_lines(offset, state.stop):
        body = decode_body(data, position)
        if body is not None:
            yield body
            position += 1
        elif not data.startswith(COMMIT) or may_hold_record(data):
            records = [line for line in find_lines(data, start) if isinstance(line, RecordLine)]
            for record in records:
                if record.position == position:
                    yield record.body
                    position += 1
            if any(record.position > position for record in records):
                return


def _find_misplaced(state: FileState, position: int) -> int | None:
    """Return the offset of the sound line of a record that is not where it belongs; None: there is no such line."""
    reader, beginning = state.reader.clone(_STEP), b'[%d,"' % position
    found = reader.find(beginning, 0, state.stop)
    while found >= 0:
        before = max(found - _PART, 0)
        start = before + reader.read(before, found).rfind(LF) + 1
        end = reader.find(LF, found, state.stop)
        stop = end if end >= 0 else state.stop
        for line in find_lines(reader.read(start, min(stop, start + _PART + LONGEST_LINE)), start):
            if isinstance(line, RecordLine) and line.position == position:
                return line.start
        found = reader.find(beginning, stop, state.stop)
    return None


def _find_offset_before(state: FileState, position: int) -> int:
    """Return the offset of a line at or before that of `position`, and near it.

    Looks at a few lines: nearer and nearer to the end for a tail, else by halving. What is not sound is passed over.
    """
    head, low, high = state.head, 0, state.stop
    back = (head.end - position) * high // (head.end - head.start) * 5 // 4 + 512  # if all records were about alike
    while back < state.stop:
        record = _find_record(state, state.stop - back, high)
        if record is not None and record.position <= position:
            low = record.start
            break
        high, back = state.stop - back, 2 * back
    while high - low > _NEAR:
        middle = (low + high) // 2
        record = _find_record(state, middle, high)
        if record is not None and record.position <= position:
            low = record.start
        else:
            high = middle
    return low


def _find_record(state: FileState, start: int, stop: int) -> RecordLine | None:
    """Return the first sound line of a record that begins in [start, stop)."""
    reader = state.reader.clone(_STEP)
    before = reader.find(LF, start, stop)
    if before < 0:
        return None
    scanned = scan_lines(reader, before + 1, stop)
    return next((line for each in scanned for line in each.lines if isinstance(line, RecordLine)), None)


def iter_kept_lines(state: FileState, first: int) -> Iterator[bytes]:
    """Yield the lines of the records from `first` on, for a file without those before.

    A line that is not sound stays as it is where it stands behind one of these, and does not begin like an earlier one:
    so the records that are left out are gone for good, and those that are damaged stay damaged.
    """
    place = _find_offset_before(state, first)
    has_begun = False
    for scanned in scan_lines(state.reader, 0, state.stop):  # all of it: two lines may have changed places
        for line in scanned.lines:
            if isinstance(line, RecordLine) and line.position >= first:
                has_begun = has_begun or line.start >= place
                yield scanned.data[line.start - scanned.start : line.stop - scanned.start] + LF
        if not scanned.lines and has_begun:
            number = _NUMBER.match(scanned.data)
            if number is None or int(number[1]) >= first:
                yield scanned.data + LF
