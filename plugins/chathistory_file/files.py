"""The folder and the files of a conversation: their names, how they are opened and made, and their bytes in chunks.

    <root>/.locks/00 ... 3f                 see `locks`
    <root>/<scope>/<conversation>.jsonl     the conversation
    <root>/<scope>/<conversation>.aside     what belongs to no record: an uncommitted tail, or left over from a repair
    <root>/<scope>/<conversation>.tmp       a rewrite that has not taken the conversation's place (yet)

Files have mode 0600, folders 0700, whatever the umask. Anything else in the folders is somebody else's. Nothing outside
the root is read or written: neither a file nor the folder of a scope is reached through a link.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote
from zlib import crc32

from chathistory.errors import InvalidInput
from chathistory.storage.safe_names import safe_name
from chathistory.storage.values import Key
from chathistory_file.errors import Damage
from chathistory_file.schema import LF, LONGEST_LINE

__all__ = [
    "ASIDE",
    "LARGEST_CHUNK",
    "SAFE_FLAGS",
    "SUFFIX",
    "TEMPORARY",
    "ChunkReader",
    "OpenFile",
    "Paths",
    "close_fd",
    "create_folder",
    "folder_exists",
    "is_safe_name",
    "open_existing",
    "open_fd",
    "open_file",
    "regular_file_size",
    "sync_folder",
]

SUFFIX = ".jsonl"
ASIDE = ".aside"
TEMPORARY = ".tmp"

SAFE_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags to open a file with that are neither led astray by a link nor kept waiting by a pipe."""

LOCKS = 64
"""Lock files of a store; to change this is to let writers of two versions in at once."""
LARGEST_CHUNK = 1024 * 1024

_LARGEST_SEARCH_BUFFER = 32 * 1024 * 1024  # bytes that are kept at hand while the end of a line is looked for
_SAFE_NAME = re.compile(r"[a-z0-9_=][a-z0-9_.=~-]{0,119}")


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths of one conversation.

    Attributes:
        folder: That of its scope.
        stem: The name of its files, without suffix.
        name: What it is called below the root, however that is spelled.
        main: The conversation itself.
        aside: What was set aside.
        temporary: A rewrite on its way.
        lock: The name of its lock file, which other conversations may share.
    """

    folder: str
    stem: str
    name: str
    main: str
    aside: str
    temporary: str
    lock: str

    @classmethod
    @lru_cache(maxsize=1024)
    def for_key(cls, root: str, key: Key) -> Paths:
        """Return the paths of `key` below `root`."""
        return cls.in_folder(f"{root}/{safe_name(key.scope)}", safe_name(key.id))

    @classmethod
    def in_folder(cls, folder: str, stem: str) -> Paths:
        """Return the paths of the files in a folder that have this stem."""
        path = f"{folder}/{stem}"
        name = f"{folder.rpartition('/')[2]}/{stem}"
        lock = f"{crc32(name.encode()) % LOCKS:02x}"
        return cls(folder, stem, name, path + SUFFIX, path + ASIDE, path + TEMPORARY, lock)

    def belong_to(self, key: Key) -> bool:
        """Return whether this is the place of `key`."""
        return f"{safe_name(key.scope)}/{safe_name(key.id)}" == self.name

    def decode_key(self) -> Key | None:
        """Return the key that the names tell; None: a name was cut, or is not one of this store."""
        names = (self.folder.rpartition("/")[2], self.stem)
        try:
            key = Key(*(unquote(name.replace("=", "%"), errors="strict") for name in names))
        except (InvalidInput, UnicodeDecodeError):
            return None
        return key if self.belong_to(key) else None


def is_safe_name(name: str) -> bool:
    """Return whether a name, without suffix, may be one that `safe_name` gave."""
    return _SAFE_NAME.fullmatch(name) is not None


def folder_exists(folder: str) -> bool:
    """Return whether the folder of a scope exists; raises `OSError` if it is a link, or cannot be looked at."""
    try:
        mode = os.lstat(folder).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, "the folder of a scope must not be a symbolic link", folder)
    return True


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file, opened; `status` and `size` (bytes) are of that moment."""

    fd: int
    status: os.stat_result
    size: int

    def has_changed(self) -> bool:
        """Return whether somebody wrote to it since."""
        now, then = os.fstat(self.fd), self.status
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (then.st_size, then.st_mtime_ns, then.st_ctime_ns)


def open_fd(fds: list[int], path: str, flags: int) -> None:
    """Open a file and note its number in `fds`.

    The handler of a signal may raise an exception between any two steps. So both is one assignment to a slice, which
    is a single step of the interpreter; and whoever closes the file tries it twice.
    """
    fds[:] = map(os.open, (path,), (flags | os.O_CLOEXEC,), (0o600,))


def close_fd(fds: list[int]) -> None:
    """Close the file in `fds`, and empty that, in a single step; a second call does nothing."""
    fds[:] = filter(None, map(os.close, fds))


@contextmanager
def open_existing(path: str, flags: int = os.O_RDONLY) -> Iterator[OpenFile | None]:
    """Open a regular file for the time of the body; None: it does not exist."""
    fds: list[int] = []
    try:
        try:
            try:
                open_fd(fds, path, flags | SAFE_FLAGS)
            except FileNotFoundError:
                file = None
            else:
                status = os.fstat(fds[0])
                if not stat.S_ISREG(status.st_mode):
                    raise OSError(errno.EINVAL, "not a regular file", path)
                file = OpenFile(fds[0], status, status.st_size)
            yield file
        finally:
            close_fd(fds)
    finally:
        close_fd(fds)


@contextmanager
def open_file(path: str, flags: int) -> Iterator[int]:
    """Open a file or a folder for the time of the body; what the flags let it make has mode 0600 in any case."""
    fds: list[int] = []
    try:
        try:
            open_fd(fds, path, flags)
            if flags & os.O_CREAT:
                os.fchmod(fds[0], 0o600)
            yield fds[0]
        finally:
            close_fd(fds)
    finally:
        close_fd(fds)


def regular_file_size(path: str) -> int | None:
    """Return the bytes of a regular file; None: there is no such file."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def create_folder(path: str) -> None:
    """Make a folder and those above it that are missing, durably."""
    if Path(path).is_dir():
        return
    above = str(Path(path).parent)
    create_folder(above)
    with suppress(FileExistsError):  # another writer made it just now, or it is not a folder: the next step tells
        Path(path).mkdir(0o700)
        Path(path).chmod(0o700)
    sync_folder(above)


def sync_folder(path: str) -> None:
    """Make durable which files a folder holds."""
    with open_file(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


class ChunkReader:
    """The first `size` bytes of an open file, read in chunks: `step` bytes, then twice that, up to 1 MiB."""

    def __init__(self, fd: int, size: int, *, step: int) -> None:
        self.fd = fd
        self.size = size
        self._step = step
        self._base = 0
        self._chunk = b""

    @classmethod
    def from_bytes(cls, data: bytes) -> ChunkReader:
        """Return a source of bytes that are in no file."""
        source = cls(-1, len(data), step=1)
        source._chunk = data
        return source

    def clone(self, step: int) -> ChunkReader:
        """Return another source of the same bytes, with a chunk of its own."""
        twin = ChunkReader(self.fd, self.size, step=step)
        twin._base, twin._chunk = self._base, self._chunk
        return twin

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from `start` to `stop`."""
        self._load_range(start, stop)
        return self._chunk[start - self._base : stop - self._base]

    def find(self, text: bytes, start: int, stop: int) -> int:
        """Return the offset of the first `text` in that range, -1: there is none; holds a part at a time."""
        seen = start
        while seen + len(text) <= stop:
            self._load_range(start if seen - start < _LARGEST_SEARCH_BUFFER else seen, seen + len(text))
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
            self._load_range(offset, offset + 1)
            chunk, base = self._chunk, self._base
            last = chunk.rfind(LF, offset - base, stop - base)
            if last < 0:  # the line is longer than what is at hand
                end = self.find(LF, offset, stop)
                end = stop if end < 0 else end
                step = max(end - offset, 1) if end - offset <= LONGEST_LINE else LARGEST_CHUNK
                for start in range(offset, max(end, offset + 1), step):
                    yield start, self.read(start, min(start + step, end))
                offset = end + 1
                continue
            for line in chunk[offset - base : last].split(LF):
                yield offset, line
                offset += len(line) + 1

    def _load_range(self, start: int, stop: int) -> None:
        """Have the bytes from `start` to `stop` at hand, and some more behind them."""
        base, end = self._base, self._base + len(self._chunk)
        if base <= start and stop <= end:
            return
        if start < base <= stop <= end:  # what is missing is before the chunk
            begin, count = start, base - start
            before, behind = b"", self._chunk
        else:
            before, behind = (self._chunk[start - base :] if base <= start < end else b""), b""
            begin = start + len(before)
            ahead = min(
                max(self._step, min(len(before), _LARGEST_SEARCH_BUFFER)), self.size - begin
            )  # doubling keeps joining linear
            count = max(stop - begin, ahead)
            self._step = min(2 * self._step, LARGEST_CHUNK)
        parts = [before]
        while count > 0:
            part = os.pread(self.fd, count, begin)
            if not part:
                raise Damage(None, "the file became shorter while it was read")
            parts.append(part)
            count, begin = count - len(part), begin + len(part)
        self._base, self._chunk = start, b"".join(filter(None, [*parts, behind]))  # one part is not copied
