"""Where the last batch of a file ends, where a position is, and the records from there.

All of it is found in the file itself, each time: other processes write to it too. A `Source` hands out the file's bytes
from a chunk that it keeps, so that nearby questions cost one system call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from chathistory.store import Head
from chathistory_file.blocks import COMMIT, LF, TAB, Block, blocks_in, checked, head_of, is_sound
from chathistory_file.faults import Damage
from chathistory_file.layout import File, opened

__all__ = ["State", "look", "records_from", "state_of"]

T = TypeVar("T")

LARGEST_CHUNK = 1024 * 1024
NEAR = 16 * 1024  # bytes that are rather read through than searched


class Source:
    """The first `size` bytes of an open file, read in chunks: `step` bytes, then twice that, up to 1 MiB."""

    def __init__(self, fd: int, size: int, *, step: int) -> None:
        self.fd = fd
        self.size = size
        self._step = step
        self._base = 0
        self._chunk = b""

    def twin(self, step: int) -> Source:
        """Return another source of the same bytes, with a chunk of its own."""
        twin = Source(self.fd, self.size, step=step)
        twin._base, twin._chunk = self._base, self._chunk
        return twin

    def take(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`."""
        self._cover(start, stop)
        return self._chunk[start - self._base : stop - self._base]

    def blocks(self, offset: int) -> Iterator[Block]:
        """Yield the sound blocks from `offset` on, as far as their bytes are at hand."""
        return blocks_in(self._chunk, offset - self._base, offset) if offset >= self._base else iter(())

    def find(self, byte: bytes, start: int, stop: int) -> int:
        """Return the offset of the first `byte` in that range, -1: there is none."""
        seen = start
        while seen < stop:
            self._cover(start, seen + 1)
            found = self._chunk.find(byte, seen - self._base, stop - self._base)
            if found >= 0:
                return found + self._base
            seen = self._base + len(self._chunk)
        return -1

    def _cover(self, start: int, stop: int) -> None:
        end = self._base + len(self._chunk)
        if self._base <= start and stop <= end:
            return
        kept = self._chunk[start - self._base :] if self._base <= start < end else b""
        due = start + len(kept)
        ahead = min(max(self._step, len(kept)), self.size - due)  # doubling: joining chunks stays linear
        read = _pread(self.fd, max(stop - due, ahead), due)
        self._step = min(2 * self._step, LARGEST_CHUNK)
        self._base, self._chunk = start, kept + read


def _pread(fd: int, count: int, offset: int) -> bytes:
    parts = []
    while count > 0:
        part = os.pread(fd, count, offset)
        if not part:
            reason = "the file became shorter while it was read"
            raise Damage(None, reason)
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True, slots=True)
class State:
    """What a file holds: the head, and the offset `after` its commit. Bytes behind that are torn: never committed."""

    source: Source
    head: Head
    after: int


def look(path: str, use: Callable[[State], T], *, step: int = 4096) -> T | None:
    """Return what `use` makes of the conversation in a file as it is at one moment; None: there is none.

    Raises `Damage`. Takes no lock: if an append is undone just now, what was seen of it is no damage, so look again.
    """
    tries = 5
    while True:
        with opened(path) as file:
            try:
                state = state_of(file, step=step) if file else None
                return use(state) if state else None
            except Damage:
                tries -= 1
                if file is None or not tries or not file.has_changed():
                    raise


def state_of(file: File, *, step: int = 4096) -> State | None:
    """Find the last commit of a file; None: it has none, so all that it may hold is torn.

    Raises `Damage` if the last commit, or what may have been one, is not sound.
    """
    source = Source(file.fd, file.size, step=step)
    line, offset, tail = _last_commit(source, step)
    after = offset + len(line)
    if tail:
        _check_torn(tail, after)
    return State(source, head_of(line), after) if line else None


def _last_commit(source: Source, span: int) -> tuple[bytes, int, bytes]:
    """Return the line of the last commit, its offset, and the bytes behind it; (b"", 0, all) if there is none.

    Looks at the last `span` bytes, and further back if need be.
    """
    while True:
        base = max(source.size - span, 0)
        data = source.take(base, source.size)
        tab = data.rfind(TAB)
        while tab >= 0:
            stop = data.find(LF, tab) + 1
            if stop and _sound(data[tab:stop], base + tab).startswith(COMMIT):
                return data[tab:stop], base + tab, data[stop:]
            tab = data.rfind(TAB, 0, tab)
        if base == 0:
            return b"", 0, data
        span *= 4


def _sound(line: bytes, offset: int) -> bytes:
    if not is_sound(line, offset):
        reason = "the last seal is not sound"
        raise Damage(None, reason)
    return line


def _check_torn(tail: bytes, offset: int) -> None:
    """Raise `Damage` if `tail` would end in a sound commit, were it not for the first or last byte of that line.

    A crash leaves a prefix of a batch, never its last line with one byte changed: then this was a commit.
    """
    stop = tail.rfind(LF) + 1
    start = tail.rfind(LF, 0, max(stop - 1, 0)) + 1
    candidates = (
        (TAB + tail[start + 1 : stop], start),  # the tab became something else,
        (TAB + tail[start:stop], start - 1),  # or a line feed,
        (tail[stop:-1] + LF, stop),  # or the line feed became something else
    )
    if any(line.startswith(COMMIT) and is_sound(line, offset + at) for line, at in candidates):
        reason = "the last commit is not sound"
        raise Damage(None, reason)


class Place(NamedTuple):
    """A boundary between blocks: the offset, and the position of the record that comes next."""

    offset: int
    position: int


def records_from(state: State, low: int, high: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield runs of body lines (without LF), each with its first position: `low` to `high` of what is kept, not empty.

    Raises `Damage` where they are not sound; what is beside them is not looked at.
    """
    offset, first = _locate(state, low)
    while first < high:
        for block in state.source.blocks(offset):
            if block.end > low:
                lines = checked(block, first)[max(low - first, 0) : high - first]
                yield max(first, low), lines
            offset, first = block.after, block.end
            if first >= high:
                return
        offset, first = _fetched(state, Place(offset, first), low)


def _fetched(state: State, place: Place, low: int) -> Place:
    """Read on until the block at `place` is at hand; if its seal is not sound, find a boundary behind it up to `low`.

    Returns where to go on; raises `Damage` if there is no such boundary.
    """
    offset, position = place
    source, stop = state.source, state.after
    tab = source.find(TAB, offset, stop)
    end = source.find(LF, tab, stop) + 1 if tab >= 0 else 0
    bodies, line = source.take(offset, max(tab, offset)), source.take(max(tab, offset), max(end, offset))
    if is_sound(line, tab):
        source.take(offset, end)
        return place
    later = _boundary(source, offset, stop)
    if later is not None and later.position <= low:
        return later
    reason = "the seal of the records is not sound"
    inside = bool(bodies) and not bodies.endswith(LF)  # a tab within a line is a body's damage
    raise Damage(position + bodies.count(LF) if inside else position, reason)


def _locate(state: State, position: int) -> Place:
    """Return a boundary at or before the block that holds `position`, and near it.

    Looks at a few seals: nearer and nearer to the end for a tail, else by halving. An unsound seal is passed over
    here; whether it matters is seen when the records are read.
    """
    head, low, high = state.head, Place(0, state.head.start), state.after
    if position == head.start:
        return low
    back = (head.end - position) * high // (head.end - head.start) * 5 // 4 + 512  # if all records were about alike
    while back < state.after:
        place = _boundary(state.source.twin(4096), state.after - back, high)
        if place is not None and place.position <= position:
            low = place
            break
        high, back = state.after - back, 2 * back
    while high - low.offset > NEAR:
        middle = (low.offset + high) // 2
        place = _boundary(state.source.twin(4096), middle, high)
        if place is not None and place.position <= position:
            low = place
        else:
            high = middle
    return low


def _boundary(source: Source, start: int, stop: int) -> Place | None:
    """Return the boundary behind the first sound seal that begins in [start, stop)."""
    tab = source.find(TAB, start, stop)
    while tab >= 0:
        end = source.find(LF, tab, source.size) + 1
        for block in blocks_in(source.take(tab, end), 0, tab) if end else ():
            return Place(block.after, block.end)
        tab = source.find(TAB, tab + 1, stop)
    return None
