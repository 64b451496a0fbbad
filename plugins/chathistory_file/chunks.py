"""The bytes of an open file, handed out from a chunk that is kept: nearby questions cost one system call."""

from __future__ import annotations

import os
from collections.abc import Iterator

from chathistory_file.errors import Damage
from chathistory_file.schema import LF, LONGEST_LINE

__all__ = ["LARGEST_CHUNK", "ChunkReader"]

LARGEST_CHUNK = 1024 * 1024

_KEPT = 32 * 1024 * 1024  # bytes that are kept at hand while the end of a line is looked for


class ChunkReader:
    """The first `size` bytes of an open file, read in chunks: `step` bytes, then twice that, up to 1 MiB."""

    def __init__(self, fd: int, size: int, *, step: int) -> None:
        self.fd = fd
        self.size = size
        self._step = step
        self._base = 0
        self._chunk = b""

    @classmethod
    def of(cls, data: bytes) -> ChunkReader:
        """Return a source of bytes that are in no file."""
        source = cls(-1, len(data), step=1)
        source._chunk = data
        return source

    def twin(self, step: int) -> ChunkReader:
        """Return another source of the same bytes, with a chunk of its own."""
        twin = ChunkReader(self.fd, self.size, step=step)
        twin._base, twin._chunk = self._base, self._chunk
        return twin

    def take(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`."""
        self._cover(start, stop)
        return self._chunk[start - self._base : stop - self._base]

    def find(self, text: bytes, start: int, stop: int) -> int:
        """Return the offset of the first `text` in that range, -1: there is none; holds a part at a time."""
        seen = start
        while seen + len(text) <= stop:
            self._cover(start if seen - start < _KEPT else seen, seen + len(text))
            found = self._chunk.find(text, seen - self._base, stop - self._base)
            if found >= 0:
                return found + self._base
            seen = self._base + len(self._chunk) - len(text) + 1
        return -1

    def iter_lines(self, offset: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield the offset of each line from `offset` on, and the line without its line feed; the last may have none.

        What is too long for a line of the store is yielded in parts.
        """
        while offset < stop:
            self._cover(offset, offset + 1)
            chunk, base = self._chunk, self._base
            last = chunk.rfind(LF, offset - base, stop - base)
            if last < 0:  # the line is longer than what is at hand
                end = self.find(LF, offset, stop)
                end = stop if end < 0 else end
                step = max(end - offset, 1) if end - offset <= LONGEST_LINE else LARGEST_CHUNK
                for start in range(offset, max(end, offset + 1), step):
                    yield start, self.take(start, min(start + step, end))
                offset = end + 1
                continue
            for line in chunk[offset - base : last].split(LF):
                yield offset, line
                offset += len(line) + 1

    def _cover(self, start: int, stop: int) -> None:
        """Have the bytes from `start` to `stop` at hand, and some more behind them."""
        base, end = self._base, self._base + len(self._chunk)
        if base <= start and stop <= end:
            return
        if start < base <= stop <= end:
            self._base, self._chunk = start, _pread(self.fd, base - start, start) + self._chunk
            return
        kept = self._chunk[start - base :] if base <= start < end else b""
        begin = start + len(kept)
        ahead = min(max(self._step, min(len(kept), _KEPT)), self.size - begin)  # doubling: joining chunks stays linear
        read = _pread(self.fd, max(stop - begin, ahead), begin)
        self._step = min(2 * self._step, LARGEST_CHUNK)
        self._base, self._chunk = start, kept + read


def _pread(fd: int, count: int, offset: int) -> bytes:
    parts = []
    while count > 0:
        part = os.pread(fd, count, offset)
        if not part:
            raise Damage(None, "the file became shorter while it was read")
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
