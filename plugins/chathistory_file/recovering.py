"""What is left of a conversation whose head is damaged or whose lines were moved, and a new head for it.

A file is looked through once for all lines that are sound, wherever they stand; of each, at most thirty-two bytes are
kept in memory. Reading and writing anew take the same line for a record. What an editor saved as UTF-16, or with line
ends of CR alone, is turned back first, all of it in memory.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import NamedTuple

from chathistory.errors import Conflict
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.store import Head, Key, Record
from chathistory_file.faults import Damage, LaterLayout, OtherConversation
from chathistory_file.layout import File, Files, opened
from chathistory_file.lines import LF, Piece, RecordLine, body_in
from chathistory_file.reading import NO_LINE
from chathistory_file.source import Source
from chathistory_file.states import State, contents_of, is_utf16, look, state_of
from chathistory_file.writing import replace, set_aside

__all__ = ["Recovery", "put_in_order", "restore"]

_PART = 1024 * 1024
_STEP = 64 * 1024
_MEANINGLESS = b"\r\n\x00 \t\xef\xbb\xbf"  # line ends, blanks, holes, byte order marks
_LARGEST_TURNED_BACK = 256 * 1024 * 1024  # bytes of a file that is turned back, in memory, from what an editor saved
_NO_APPEND = "no append to it was completed"


class _Append(NamedTuple):
    """Where the lines of an append were written, and where they are now if they moved together with its commit.

    end: the position after its last record. size: the bytes of its lines.
    """

    end: int
    size: int
    written: int
    now: int


@dataclass(slots=True)
class _Index:
    """Where the sound lines of a conversation's records are in its file, and what else is there.

    positions, offsets, lengths: of each line, in the order of their positions. commits: the numbers of an `_Append` for
    each of its sound commits. start: the position that the sound commits say the conversation begins with; None: there
    is no such commit. rest: offset and length of what is in none of its sound lines.
    """

    positions: array[int] = field(default_factory=lambda: array("Q"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    commits: array[int] = field(default_factory=lambda: array("q"))
    start: int | None = None
    rest: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source, key: Key, stop: int) -> _Index:
        """Look through the file up to `stop`."""
        index = cls()
        settled = 0  # so many lines belong to an append whose commit was seen
        for offset, line in source.lines(0, stop):
            found = contents_of(line, ended=offset + len(line) < source.size)
            for piece in found:
                content = piece.content
                if isinstance(content, RecordLine):
                    index._add(content.position, offset + piece.start, piece.stop - piece.start)
                elif content.head.key == key:
                    index.start, settled = content.head.start, len(index.positions)
                    begin = offset + piece.start - content.size
                    index.commits.extend(_Append(content.head.end, content.size, content.at, begin))
                else:  # these lines are of another conversation
                    index._leave(settled)
                    index._add_rest(offset + piece.start, piece.stop - piece.start)
            index._add_gaps(offset, line, found)
        index._sort()
        index._leave_far(stop)
        return index

    def _add(self, position: int, offset: int, length: int) -> None:
        self.positions.append(position)
        self.offsets.append(offset)
        self.lengths.append(length)

    def _leave(self, count: int) -> None:
        """Keep the first `count` lines only."""
        for offset, length in zip(self.offsets[count:], self.lengths[count:], strict=True):
            self._add_rest(offset, length)
        del self.positions[count:], self.offsets[count:], self.lengths[count:]

    def _add_gaps(self, offset: int, line: bytes, found: list[Piece]) -> None:
        """Add what is in no piece of a line to the rest, unless it has no meaning."""
        stops = [0, *(piece.stop for piece in found)]
        starts = [*(piece.start for piece in found), len(line)]
        for start, stop in zip(stops, starts, strict=True):
            if line[start:stop].strip(_MEANINGLESS):
                self._add_rest(offset + start, stop - start)

    def _add_rest(self, offset: int, length: int) -> None:
        if self.rest and sum(self.rest[-1]) + 1 == offset:  # the next line
            begin = self.rest.pop()[0]
            offset, length = begin, offset + length - begin
        self.rest.append((offset, length))

    def _sort(self) -> None:
        """Bring the lines into the order of their positions; of several with one position one is kept."""
        positions = self.positions
        if all(positions[at - 1] < positions[at] for at in range(1, len(positions))):
            return
        appends = sorted(map(_Append._make, zip(*[iter(self.commits)] * len(_Append._fields), strict=True)))
        rank = partial(self._rank, appends)
        places: list[int] = []
        for at in sorted(range(len(positions)), key=positions.__getitem__):  # sorted: those of one position in order
            if places and positions[places[-1]] == positions[at]:
                places[-1], left = sorted((places[-1], at), key=rank, reverse=True)  # of equals the first stays first
                self.rest.append((self.offsets[left], self.lengths[left]))
            else:
                places.append(at)
        self._keep(places)

    def _rank(self, appends: list[_Append], at: int) -> tuple[bool, int]:
        """Return how likely a line is the one that was written at its position.

        That is: its append would have it there; and the lines beside it are those of the positions beside it.
        """
        positions, offset, last = self.positions, self.offsets[at], len(self.positions) - 1
        place, stop = bisect_right(appends, positions[at], key=attrgetter("end")), offset + self.lengths[at]
        its = [append for append in appends[place:] if append.end == appends[place].end]
        starts = [(start, append.size) for append in its for start in self._starts(append)]
        before = at == 0 or positions[at - 1] + 1 == positions[at]
        behind = at == last or positions[at + 1] == positions[at] + 1
        return any(start <= offset and stop <= start + size for start, size in starts), before + behind

    def _starts(self, append: _Append) -> Iterator[int]:
        """Yield where the lines of an append begin: so far before its commit, or where written, if a line is there."""
        if append.now == append.written or self._begins(append.now):
            yield append.now
        if self._begins(append.written + append.size):
            yield append.written

    def _begins(self, offset: int) -> bool:
        at = bisect_left(self.offsets, offset)
        return at < len(self.offsets) and self.offsets[at] == offset

    def _leave_far(self, size: int) -> None:
        """Leave out what cannot be the conversation's, for a file of this size has no room for all that is between."""
        if self.positions:
            near = self.positions[len(self.positions) // 2]
            ends = self.commits[:: len(_Append._fields)]
            low, high = (0, max(ends) + size) if ends else (max(near - size, 0), near + size)
            first, last = bisect_left(self.positions, low), bisect_left(self.positions, high)
            left = [*range(first), *range(last, len(self.positions))]
            if left:
                self.rest += [(self.offsets[at], self.lengths[at]) for at in left]
                self._keep(range(first, last))

    def _keep(self, places: Sequence[int]) -> None:
        """Keep the lines at these places, in this order."""
        for name in ("positions", "offsets", "lengths"):
            column = getattr(self, name)
            setattr(self, name, array("Q", [column[at] for at in places]))


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that was looked through; `state` is None where its head is damaged, and `problem` says how."""

    source: Source
    state: State | None
    problem: str | None

    @classmethod
    def of(cls, file: File, key: Key) -> _Opened:
        """Find out in which state a file is. Raises `OtherConversation` and `LaterLayout`."""
        try:
            state = state_of(file, own=key.__eq__)
        except OtherConversation:
            raise
        except Damage as damage:
            return cls(_lines_of(file), None, damage.reason)
        source = Source(file.fd, file.size, step=_STEP)
        return cls(source, state, None if state else _NO_APPEND)

    def index(self, key: Key) -> _Index:
        """Look for the sound lines; those behind a sound head are none of the conversation."""
        if self.state is None:
            return _Index.of(self.source, key, self.source.size)
        index = _Index.of(self.source, key, self.state.stop)
        if self.state.tail and not self.state.moved:
            index._add_rest(self.state.after, self.state.tail)  # noqa: SLF001
        return index


def _lines_of(file: File) -> Source:
    """Return what is in a file, in the encoding and with the line ends that it was written with; not if it is huge."""
    source = Source(file.fd, file.size, step=_STEP)
    if file.size > _LARGEST_TURNED_BACK:
        return source
    if is_utf16(source):
        source = Source.of(source.take(0, file.size).decode("utf-16", "replace").encode())
    if source.find(LF, 0, source.size) < 0:
        source = Source.of(source.take(0, source.size).replace(b"\r", LF))
    return source


class Recovery:
    """Finds the records of damaged conversations, and remembers where they are in the file that was looked at last."""

    def __init__(self) -> None:
        self._last: tuple[tuple[object, ...], _Index] | None = None  # of which file, as it was then

    def find(self, files: Files, key: Key) -> FoundRecords | None:
        """Return what is found in a conversation's file; None: there is none."""
        with opened(files.main) as file:
            if file is None or not file.size:
                return None
            there = _Opened.of(file, key)
            index = there.index(key)
            self._last = (_identity(file, key), index)
            token = _token(file)
        if there.state is not None:
            head = there.state.head
            return FoundRecords(key, token, head.start, head.end, None)
        first, last = (index.positions[0], index.positions[-1]) if index.positions else (0, -1)
        start = first if index.start is None else index.start
        return FoundRecords(key, token, start, max(start, last + 1), there.problem)

    def bodies(self, state: State, low: int, high: int) -> Iterator[bytes]:
        """Yield what `bodies_from` does, of a file in which lines were moved."""
        source = state.source
        file = File(source.fd, os.fstat(source.fd))
        key = state.head.key
        index = self._index_of(file, key, lambda: _Opened(source, state, None).index(key))
        for position in range(low, high):
            at = bisect_left(index.positions, position)
            if at == len(index.positions) or index.positions[at] != position:
                raise Damage(position, NO_LINE)
            line = source.take(index.offsets[at], index.offsets[at] + index.lengths[at])
            body = body_in(line, position)
            if body is None:
                raise Damage(position, NO_LINE)
            yield body

    def _index_of(self, file: File, key: Key, look_through: Callable[[], _Index]) -> _Index:
        last, identity = self._last, _identity(file, key)
        if last is None or last[0] != identity:
            last = self._last = (identity, look_through())
        return last[1]

    def read(self, files: Files, key: Key, start: int, stop: int) -> list[Record]:
        """Return the sound records of a range."""
        records: list[Record] = []
        with opened(files.main) as file:
            if file is None:
                return records
            index = self._index_of(file, key, lambda: _Opened.of(file, key).index(key))
            source = _lines_of(file)
            for at in range(bisect_left(index.positions, start), bisect_left(index.positions, stop)):
                position, offset = index.positions[at], index.offsets[at]
                body = body_in(source.take(offset, offset + index.lengths[at]), position)
                if body is not None:
                    with suppress(UnicodeDecodeError):
                        records.append(Record(position, body.decode()))
        return records


def _identity(file: File, key: Key) -> tuple[object, ...]:
    status = file.status
    return key, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _token(file: File) -> str:
    digest = hashlib.sha256()
    for offset in range(0, file.size, _PART):
        digest.update(os.pread(file.fd, min(_PART, file.size - offset), offset))
    return digest.hexdigest()


def restore(files: Files, found: FoundRecords, head: Head) -> None:
    """Put a file of the sound lines and a new head in a conversation's place; set the rest aside. Under its lock."""
    key = found.key
    with opened(files.main) as file:
        if file is None or _token(file) != found.token:
            raise Conflict(key, _present(files, key))
        there = _Opened.of(file, key)
        index = there.index(key)
        _rewrite(files, there.source, index, head)


def put_in_order(files: Files, state: State) -> None:
    """Write a file anew in which lines were moved, with its head, so that positions have one line each. Under its lock.

    What is in no sound line of the conversation is set aside.
    """
    key = state.head.key
    _rewrite(files, state.source, _Opened(state.source, state, None).index(key), state.head)


def _rewrite(files: Files, source: Source, index: _Index, head: Head) -> None:
    """Put the sound lines that a head names into a new file, and set the rest aside."""
    low, high = bisect_left(index.positions, head.start), bisect_left(index.positions, head.end)
    rest = sorted([*index.rest, *_spans(index, 0, low), *_spans(index, high, len(index.positions))])
    if rest:
        set_aside(files, _parts(source, rest))
    lines = (source.take(offset, offset + length) + LF for offset, length in _spans(index, low, high))
    replace(files, lines, head, keep_aside=True)


def _present(files: Files, key: Key) -> Head | None:
    with suppress(Damage, LaterLayout):
        head: Head | None = look(files, attrgetter("head"), own=key.__eq__)
        return head
    return None


def _spans(index: _Index, low: int, high: int) -> Iterator[tuple[int, int]]:
    return zip(index.offsets[low:high], index.lengths[low:high], strict=True)


def _parts(source: Source, spans: list[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of these spans, a line feed behind each."""
    for offset, length in spans:
        for start in range(offset, offset + length, _PART):
            yield source.take(start, min(start + _PART, offset + length))
        yield LF
