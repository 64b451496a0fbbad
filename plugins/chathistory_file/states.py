"""Where the last append of a file ends: what is behind it was torn by a crash, or is damaged.

The state of a conversation is its last sound commit. What a crash leaves behind it is the beginning of an append, or an
append with holes: sectors that never reached the disk, and so are zeros. Anything else that has a sound record, or what
is left of a commit, was an append that is damaged now; that is an error, and nobody writes over it.

Nothing is remembered: all of it is found in the file, each time, for other processes write to it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from chathistory.storage.store import Head, Key
from chathistory_file.faults import Damage, OtherConversation
from chathistory_file.layout import File, Files, opened
from chathistory_file.lines import (
    COMMIT,
    LF,
    Commit,
    Piece,
    RecordLine,
    commit_in,
    is_beginning,
    looks_like_commit,
    parsed,
    pieces,
)
from chathistory_file.source import Source

__all__ = ["UNSYNCED", "State", "contents_of", "is_utf16", "look", "state_of"]

T = TypeVar("T")

UNSYNCED = 64 * 1024
"""Bytes of records that are written together with their commit. Those of a larger append are on the disk before it."""

_SECTOR = 512
_NEAR = 1024 * 1024  # bytes at the end of a file in which its last commit is looked for first
_LONGEST_COMMIT = 16 * 1024 * 1024  # bytes of a last line that is looked at; a longer commit is found like a moved one
_EARLIER_LAYOUT = b'\t{"commit":'
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class State:
    """What a file holds: the head, and where the last commit begins and ends.

    offset: where the commit's line begins. after: where it ends, with its line
    feed. ended: whether it has one. moved: whether it stands elsewhere than it was written, so lines were put in or
    taken out before it.
    """

    source: Source
    head: Head
    offset: int
    after: int
    ended: bool
    moved: bool = False

    @property
    def stop(self) -> int:
        """Where the lines of the records end: before the commit, or anywhere if lines were moved."""
        return self.source.size if self.moved else self.offset

    @property
    def tail(self) -> int:
        """How many bytes are behind the last commit."""
        return self.source.size - self.after


def look(files: Files, use: Callable[[State], T], *, own: Callable[[Key], bool], step: int = 4096) -> T | None:
    """Return what `use` makes of the conversation in a file as it is at one moment; None: there is none.

    Raises `Damage`. Takes no lock: if an append is undone just now, what was seen of it is no damage, so look again.
    """
    tries = 5
    while True:
        with opened(files.main) as file:
            try:
                state = state_of(file, own=own, step=step) if file else None
                return use(state) if state else None
            except Damage:
                tries -= 1
                if file is None or not tries or not file.has_changed():
                    raise


def state_of(file: File, *, own: Callable[[Key], bool], step: int = 4096) -> State | None:
    """Find the last commit of a file; None: it has none, so all that it may hold is torn.

    `own` tells whether a key is the one whose file this is. Raises `Damage` if what is behind the last sound commit was
    one, `OtherConversation` and `LaterLayout`.
    """
    source = Source(file.fd, file.size, step=step)
    if not file.size:
        return None
    offset, line, after = _last_line(source, step)
    commit = commit_in(line)
    if (
        commit is None
        or commit.offset != offset
        or not own(commit.head.key)
        or _has_holes(source, commit, offset, offset + len(line))
    ):
        return _searched(source, own)
    return State(source, commit.head, offset, after, ended=after > offset + len(line))


def _last_line(source: Source, span: int) -> tuple[int, bytes, int]:
    """Return the offset of the last line, the line, and where it ends; looks at `span` bytes at first.

    Of a line that is too long for a commit it returns the end.
    """
    while True:
        base = max(source.size - span, 0)
        data = source.take(base, source.size)
        end = len(data) - data.endswith(LF)
        start = data.rfind(LF, 0, end) + 1
        if start or not base or span >= _LONGEST_COMMIT:
            return base + start, data[start:end], source.size
        span *= 4


def _has_holes(source: Source, commit: Commit, offset: int, stop: int) -> bool:
    """Tell whether the append whose sound commit is at [offset, stop) is one of which not all reached the disk."""
    if commit.size > UNSYNCED:
        return False
    data = source.take(max(offset - commit.size, 0), stop)
    return b"\0" in data and _is_torn(data, stop - len(data))


def _is_torn(data: bytes, offset: int) -> bool:
    """Tell whether there is a sector of which all that is in `data`, found at that offset, is zeros."""
    borders = [0, *range(-offset % _SECTOR or _SECTOR, len(data), _SECTOR), len(data)]
    return any(not data[start:stop].strip(b"\0") for start, stop in pairwise(borders))


def _searched(source: Source, own: Callable[[Key], bool]) -> State | None:
    """Find the last commit where the last line of the file is not one, or not one as it was written there."""
    best = _last_regular(source, own)
    tail = _Tail.behind(best)
    others = False
    for offset, line in source.lines(best.after if best else 0, source.size):
        stop = offset + len(line)
        ended = stop < source.size
        found = contents_of(line, ended=ended)
        for piece in found:
            content = piece.content
            if isinstance(content, RecordLine):
                tail.add_record(content.position, stop + ended)
            elif not own(content.head.key):
                others, tail = True, _Tail.behind(best)
            elif (best is None or content.head.end >= best.head.end) and not _has_holes(
                source.twin(4096), content, offset + piece.start, offset + piece.stop
            ):
                whole = len(line) - piece.stop <= 1
                after = stop + ended if whole else offset + piece.stop
                begin = offset + piece.start
                best = State(source, content.head, begin, after, ended and whole, moved=content.offset != begin)
                tail = _Tail.behind(best)
        if not found:
            tail.add_junk(line, ended=ended)
    return _judged(source, best, tail, others=others)


def _judged(source: Source, best: State | None, tail: _Tail, *, others: bool) -> State | None:
    """Return the last commit, None if there is none; raises `Damage` if it is not the last one that was written."""
    after = best.after if best else 0
    torn = tail.is_damaged and (_are_torn(source, after) or _are_torn(source, tail.stop))
    if tail.is_damaged and not torn:
        reason = "the last commit is not sound"
        raise Damage(None, reason)
    if best is None:
        _check_known(source, others=others)
    return best


def _check_known(source: Source, *, others: bool) -> None:
    """Raise `Damage` if a file without any commit of its conversation is not one that a crash tore."""
    if others:
        raise OtherConversation
    if is_utf16(source):
        reason = "the file was saved as UTF-16, perhaps by an editor"
        raise Damage(None, reason)
    if any(line.startswith(_EARLIER_LAYOUT) for _, line in source.lines(0, source.size)):
        reason = "the file has the layout of a version that was never released"
        raise Damage(None, reason)


def is_utf16(source: Source) -> bool:
    """Tell whether a file begins like text that an editor saved as UTF-16."""
    return source.take(0, min(source.size, 2)) in _UTF16


def _last_regular(source: Source, own: Callable[[Key], bool]) -> State | None:
    """Return the last sound commit that stands where it was written, if that is near the end of the file."""
    base = max(source.size - _NEAR, 0)
    data = source.take(base, source.size)
    at = data.rfind(LF + COMMIT)
    while at >= 0:
        start = at + 1
        end = data.find(LF, start)
        line = data[start:end] if end >= 0 else data[start:]
        commit = commit_in(line)
        offset = base + start
        if (
            commit
            and commit.offset == offset
            and own(commit.head.key)
            and not _has_holes(source, commit, offset, offset + len(line))
        ):
            return State(source, commit.head, offset, offset + len(line) + (end >= 0), ended=end >= 0)
        at = data.rfind(LF + COMMIT, 0, at)
    return None


def _are_torn(source: Source, start: int) -> bool:
    """Tell whether there is a sector of which all that is behind `start` is zeros."""
    while start < source.size:
        stop = min(start - start % _NEAR + _NEAR, source.size)
        data = source.take(start, stop)
        if b"\0" in data and _is_torn(data, start):
            return True
        start = stop
    return False


def contents_of(line: bytes, *, ended: bool) -> list[Piece]:
    """Return what is sound in a line: all of it, or the lines in it.

    A line that has no line feed may be a torn one, so only what it begins with counts.
    """
    whole = parsed(line)
    if whole is not None:
        return [Piece(0, len(line), whole)]
    return [piece for piece in pieces(line) if ended or (piece.start == 0 and piece.stop >= len(line) - 1)]


@dataclass(slots=True)
class _Tail:
    """What is behind a commit, to tell the beginning of an append, as a crash leaves it, from a damaged one.

    end: the position after the last record of that commit, None: there is no commit. stop: where its lines end, and the
    regular ones behind them: a large append is written up to there and synced, and then its commit is written.
    """

    end: int | None
    stop: int
    next: int | None = field(init=False)
    regular: bool = True
    telling: bool = False  # there is something that was stored, and is not to be lost

    def __post_init__(self) -> None:
        self.next = self.end

    @classmethod
    def behind(cls, state: State | None) -> _Tail:
        return cls(state.head.end, state.after) if state else cls(None, 0)

    @property
    def is_damaged(self) -> bool:
        return self.telling and not self.regular

    def add_record(self, position: int, stop: int) -> None:
        """Take the record at this position, whose line ends at `stop`."""
        self.regular = self.regular and self.next in (None, position)
        self.stop = stop if self.regular else self.stop
        self.telling = self.telling or self.end is None or position >= self.end
        self.next = position + 1

    def add_junk(self, line: bytes, *, ended: bool) -> None:
        """Take a line that is not sound; a crash leaves one that is not ended."""
        commit = looks_like_commit(line, ended=ended)
        self.regular = self.regular and not ended and not commit and is_beginning(line)
        self.telling = self.telling or commit
