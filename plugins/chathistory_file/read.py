"""Find the last commit of a file, and read its records. Damaged lines do not prevent reading the sound ones.

The state of a conversation is its last sound commit. If a write crashed, the commit is followed by the beginning of an
append, or by an append with holes: sectors that never reached the disk and are zeros. Anything else that has a sound
record, or the rest of a commit, was a completed append that is damaged now. That is an error, and no append overwrites
it.

Nothing is cached: everything is read from the file each time, because other processes write to it as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from chathistory.storage.values import Head, Key
from chathistory_file.errors import Damage, OtherConversation, OtherLayout
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
    "MAX_UNSYNCED_SIZE",
    "NO_LINE",
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

MAX_UNSYNCED_SIZE = 64 * 1024
"""The records of an append are written together with their commit if they have at most this many bytes; otherwise they
are synced before it."""

NO_LINE = "its line is missing, or does not match its checksum"

_FIRST_READ_SIZE = 4096  # bytes to read first
_SECTOR = 512
_CHUNK_SIZE = 1024 * 1024  # bytes to examine at a time
_LONGEST_COMMIT = 16 * 1024 * 1024  # bytes at the end of a file that are searched for its last commit first
_MAX_LINEAR_SEARCH = 16 * 1024  # a range of at most this many bytes is read line by line instead of bisected
_EARLIER_LAYOUT = b'\t{"commit":'
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NUMBER = re.compile(rb"\[([0-9]{1,19})(?![0-9])")


@dataclass(slots=True)
class FileState:
    """The last commit of a file, and where it is.

    Attributes:
        reader: The bytes of the file.
        commit: The last sound commit.
        after: The offset of the end of its line, including the line feed if there is one.
        is_ended: Whether the line ends in a line feed.
        head: The head of the conversation.
        stop: The offset at which the lines of the records end: the commit, or the end of the file if lines moved.
        tail_size: Bytes after the last commit.
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
    """Return the state of the conversation in a file, without reading records; None if there is no conversation.

    Args:
        paths: The paths of the conversation.
        is_own: Returns True for the key of the conversation that the file belongs to.

    Raises:
        Damage: See `load_state`.
    """
    return use_state(paths, lambda state: state, is_own=is_own)


def use_state(
    paths: Paths, use: Callable[[FileState], T], *, is_own: Callable[[Key], bool], step: int = _FIRST_READ_SIZE
) -> T | None:
    """Call `use` with a consistent state of the conversation in a file, and return its result.

    The file is read without a lock. An append that is being undone at the same time looks like damage, so a file that
    looks damaged and has changed during the read is read again.

    Args:
        paths: The paths of the conversation.
        use: Called with the state; it may read from the state's file.
        is_own: Returns True for the key of the conversation that the file belongs to.
        step: Bytes to read first.

    Returns:
        The result of `use`; None if there is no conversation.

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


def load_state(
    file: OpenFile | None, *, is_own: Callable[[Key], bool], step: int = _FIRST_READ_SIZE
) -> FileState | None:
    """Find the last commit of a file.

    Args:
        file: The file; None if it does not exist.
        is_own: Returns True for the key of the conversation that the file belongs to.
        step: Bytes to read first.

    Returns:
        The state; None if the file has no commit, so that it holds at most an append that was not completed.

    Raises:
        Damage: The last commit is damaged.
        OtherConversation: All commits are of another conversation.
        OtherLayout: A version with another layout wrote a commit.
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
    """Return the last sound commit at the offset where it was written, if it is in the last `span` bytes."""
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
            is_whole = commit.size > MAX_UNSYNCED_SIZE or not _has_zeroed_sector(
                reader, commit.start - commit.size, commit.stop
            )
            if is_whole:  # the whole append has reached the disk
                return FileState(reader, commit, commit.stop + (end >= 0), is_ended=end >= 0)
    return None


def _has_zeroed_sector(reader: ChunkReader, start: int, stop: int) -> bool:
    """Return True if there is a sector with only zeros in its part of [start, stop)."""
    start = max(start, 0)
    while start < stop:
        end = stop if stop - start <= _CHUNK_SIZE else start - start % _CHUNK_SIZE + _CHUNK_SIZE
        data = reader.read(start, end)
        if b"\0" in data:
            borders = [0, *range(-start % _SECTOR or _SECTOR, len(data), _SECTOR), len(data)]
            if any(not data[low:high].strip(b"\0") for low, high in pairwise(borders)):
                return True
        start = end
    return False


@dataclass(frozen=True, slots=True)
class ScannedLine:
    """The bytes between two line feeds, and the sound lines in them: one, none, or more if line feeds were changed.

    Attributes:
        start: The offset of the bytes.
        data: The bytes.
        after: The offset of their end, including the line feed if there is one.
        lines: The sound lines.
    """

    start: int
    data: bytes
    after: int
    lines: list[RecordLine | CommitLine]

    @property
    def is_ended(self) -> bool:
        """Whether the line ends in a line feed."""
        return self.after > self.start + len(self.data)


def scan_lines(reader: ChunkReader, start: int, stop: int) -> Iterator[ScannedLine]:
    """Yield a part of a file line by line, with the sound lines in it.

    Args:
        reader: The bytes of the file.
        start: The offset of the first line.
        stop: The offset at which to stop.
    """
    for offset, data in reader.iter_lines(start, stop):
        end = offset + len(data)
        is_ended = end < reader.size
        yield ScannedLine(offset, data, end + is_ended, find_lines(data, offset, ended=is_ended))


def _search_commit(reader: ChunkReader, state: FileState | None, is_own: Callable[[Key], bool]) -> FileState | None:
    """Find the last commit of a file that does not end in one, or not at the offset where it was written.

    `state` is the last commit at its own offset, if there is one.
    """
    tail, has_others = _Tail.after_commit_of(state), False
    for scanned in scan_lines(reader, state.after if state else 0, reader.size):
        for line in scanned.lines:
            if isinstance(line, RecordLine):
                tail.add_record(line.position, scanned.after)
            elif not is_own(line.head.key):
                tail, has_others = _Tail.after_commit_of(state), True
            elif (state is None or line.head.end >= state.head.end) and (
                line.size > MAX_UNSYNCED_SIZE
                or not _has_zeroed_sector(reader.clone(_FIRST_READ_SIZE), line.start - line.size, line.stop)
            ):
                is_last = scanned.start + len(scanned.data) - line.stop <= 1
                after = scanned.after if is_last else line.stop
                state = FileState(reader, line, after, is_ended=is_last and scanned.is_ended)
                tail = _Tail.after_commit_of(state)
        if not scanned.lines:
            tail.add_junk(scanned.data, ended=scanned.is_ended)
    after = state.after if state else 0
    if state is None and any(line.startswith(_EARLIER_LAYOUT) for _, line in reader.iter_lines(0, reader.size)):
        raise OtherLayout(1)
    if tail.is_damaged and not any(_has_zeroed_sector(reader, start, reader.size) for start in (after, tail.stop)):
        raise Damage(None, "the last commit is damaged")
    if state is None:
        _check_uncommitted(reader, has_others=has_others)
    return state


def _check_uncommitted(reader: ChunkReader, *, has_others: bool) -> None:
    """Raise an error if a file without any commit of its conversation is not the beginning of a first append."""
    if has_others:
        raise OtherConversation
    if is_utf16(reader):
        raise Damage(None, "the file was saved as UTF-16, perhaps by an editor; save it as UTF-8")


def is_utf16(reader: ChunkReader) -> bool:
    """Return True if a file begins like text that an editor saved as UTF-16."""
    return reader.read(0, min(reader.size, 2)) in _UTF16


@dataclass(slots=True)
class _Tail:
    """The lines after a commit: distinguishes an append that a crash interrupted from a damaged one.

    Attributes:
        end: The position after the last record of that commit; None if there is no commit.
        stop: The offset at which the lines of the commit, and regular lines after it, end. A large append is written up
            to here and synced before its commit is written.
        next: The position of the next record of a regular append.
        is_regular: Whether a crash may have left everything so far.
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
        """Add the record at this position; its line ends at offset `stop`."""
        self.is_regular = self.is_regular and self.next in (None, position)
        self.stop = stop if self.is_regular else self.stop
        self.has_stored_data = self.has_stored_data or self.end is None or position >= self.end
        self.next = position + 1

    def add_junk(self, data: bytes, *, ended: bool) -> None:
        """Add a line that is not sound; a crash leaves such a line only without its line feed.

        Args:
            data: The line, without its line feed.
            ended: Whether a line feed follows.
        """
        is_commit = looks_like_commit(data, ended=ended)
        self.is_regular = self.is_regular and not ended and not is_commit and may_be_cut_line(data)
        self.has_stored_data = self.has_stored_data or is_commit


def iter_bodies(state: FileState, wanted: range) -> Iterator[bytes]:
    """Yield the bodies of a range of stored records.

    Reads little else. Finds a record at any offset, also after two lines have changed places. For a file with moved
    lines use `FileRecovery.iter_bodies`.

    Args:
        state: The state of the conversation.
        wanted: The positions of the records.

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
    """Yield the bodies of consecutive positions from `position` on, starting at `offset`; ends at the first gap."""
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
    """Return the offset of the sound line of a record that is not where it belongs; None if there is no such line."""
    reader, beginning = state.reader.clone(_FIRST_READ_SIZE), b'[%d,"' % position
    found = reader.find(beginning, 0, state.stop)
    while found >= 0:
        before = max(found - _CHUNK_SIZE, 0)
        start = before + reader.read(before, found).rfind(LF) + 1
        end = reader.find(LF, found, state.stop)
        stop = end if end >= 0 else state.stop
        for line in find_lines(reader.read(start, min(stop, start + _CHUNK_SIZE + LONGEST_LINE)), start):
            if isinstance(line, RecordLine) and line.position == position:
                return line.start
        found = reader.find(beginning, stop, state.stop)
    return None


def _find_offset_before(state: FileState, position: int) -> int:
    """Return the offset of a line at or shortly before the line of `position`.

    Reads a few lines: for records near the end it steps back from the end, otherwise it bisects. Skips lines that are
    not sound.
    """
    head, low, high = state.head, 0, state.stop
    back = (head.end - position) * high // (head.end - head.start) * 5 // 4 + 512  # if all records had about one size
    while back < state.stop:
        record = _find_record(state, state.stop - back, high)
        if record is not None and record.position <= position:
            low = record.start
            break
        high, back = state.stop - back, 2 * back
    while high - low > _MAX_LINEAR_SEARCH:
        middle = (low + high) // 2
        record = _find_record(state, middle, high)
        if record is not None and record.position <= position:
            low = record.start
        else:
            high = middle
    return low


def _find_record(state: FileState, start: int, stop: int) -> RecordLine | None:
    """Return the first sound line of a record that begins after a line feed in [start, stop); None without one."""
    reader = state.reader.clone(_FIRST_READ_SIZE)
    before = reader.find(LF, start, stop)
    if before < 0:
        return None
    scanned = scan_lines(reader, before + 1, stop)
    return next((line for each in scanned for line in each.lines if isinstance(line, RecordLine)), None)


def iter_kept_lines(state: FileState, first: int) -> Iterator[bytes]:
    """Yield the lines of the records from `first` on, for a file without the earlier ones.

    A line that is not sound is kept as it is if it comes after one of these and does not begin like an earlier one. So
    the dropped records are gone permanently, and damaged records stay damaged.

    Args:
        state: The state of the conversation.
        first: The position of the first record to keep.
    """
    begin = _find_offset_before(state, first)
    has_begun = False
    for scanned in scan_lines(state.reader, 0, state.stop):  # the whole file: two lines may have changed places
        for line in scanned.lines:
            if isinstance(line, RecordLine) and line.position >= first:
                has_begun = has_begun or line.start >= begin
                yield scanned.data[line.start - scanned.start : line.stop - scanned.start] + LF
        if not scanned.lines and has_begun:
            number = _NUMBER.match(scanned.data)
            if number is None or int(number[1]) >= first:
                yield scanned.data + LF
