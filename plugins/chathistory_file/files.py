"""The folder and the files of a conversation: their names, how they are opened and created, and reading in chunks.

    <root>/.locks/00 ... 3f                 see `locks`
    <root>/<scope>/<conversation>.jsonl     the conversation
    <root>/<scope>/<conversation>.aside     bytes that belong to no record: an uncommitted tail, the rest of a repair
    <root>/<scope>/<conversation>.tmp       a rewrite that has not (yet) replaced the conversation

Files have mode 0600 and folders 0700, whatever the umask is. Any other file in these folders belongs to somebody else.
Nothing outside the root is read or written: links are never followed, neither to a file nor to the folder of a scope.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote
from zlib import crc32

from chathistory.errors import InvalidInput, PluginError
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

if not hasattr(os, "O_NOFOLLOW"):
    raise PluginError(
        f"file: needs a POSIX system such as Linux or macOS, and this is {sys.platform}; choose another backend "
        "(the command `chathistory backends` lists them)"
    )

SAFE_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags for opening a file: fail at a symbolic link, and do not block on a pipe."""

LOCKS = 64
"""Number of lock files of a store. Never change it: two versions would use different locks for one conversation."""
LARGEST_CHUNK = 1024 * 1024

_LARGEST_SEARCH_BUFFER = 32 * 1024 * 1024  # bytes that stay in memory during a search for the end of a line
_SAFE_NAME = re.compile(r"[a-z0-9_=][a-z0-9_.=~-]{0,119}")


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths of one conversation.

    Attributes:
        folder: The folder of its scope.
        stem: The name of its files, without suffix.
        name: Folder and stem, relative to the root.
        main: The conversation itself.
        aside: Bytes that were set aside.
        temporary: A rewrite in progress.
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
        """Return True if these are the paths of `key`."""
        return f"{safe_name(key.scope)}/{safe_name(key.id)}" == self.name

    def decode_key(self) -> Key | None:
        """Return the key that the file names encode; None if a name was shortened, or is not a name of this store."""
        names = (self.folder.rpartition("/")[2], self.stem)
        try:
            key = Key(*(unquote(name.replace("=", "%"), errors="strict") for name in names))
        except (InvalidInput, UnicodeDecodeError):
            return None
        return key if self.belong_to(key) else None


def is_safe_name(name: str) -> bool:
    """Return True if a name, without suffix, may be a result of `safe_name`."""
    return _SAFE_NAME.fullmatch(name) is not None


def folder_exists(folder: str) -> bool:
    """Return True if the folder of a scope exists. Raises `OSError` if it is a link, or cannot be examined."""
    try:
        mode = os.lstat(folder).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise OSError(
            errno.ELOOP, "the folder of a scope is a symbolic link; replace the link with the folder itself", folder
        )
    return True


@dataclass(frozen=True, slots=True)
class OpenFile:
    """An open file, with its `status` and `size` (bytes) when it was opened."""

    fd: int
    status: os.stat_result
    size: int

    def has_changed(self) -> bool:
        """Return True if the file was written to since it was opened."""
        now, then = os.fstat(self.fd), self.status
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (then.st_size, then.st_mtime_ns, then.st_ctime_ns)


def open_fd(fds: list[int], path: str, flags: int) -> None:
    """Open a file and put its descriptor into `fds`.

    A signal handler may raise an exception between any two steps. So both are one assignment to a slice, which is a
    single step of the interpreter; and callers close the file in two nested `finally` blocks.

    Args:
        fds: A list that receives the descriptor.
        path: The path of the file.
        flags: The flags of `os.open`.
    """
    fds[:] = map(os.open, (path,), (flags | os.O_CLOEXEC,), (0o600,))


def close_fd(fds: list[int]) -> None:
    """Close the file in `fds` and empty the list, in a single step; a second call does nothing."""
    fds[:] = filter(None, map(os.close, fds))


@contextmanager
def open_existing(path: str, flags: int = os.O_RDONLY) -> Iterator[OpenFile | None]:
    """Open a regular file while the body runs; yields None if it does not exist.

    Args:
        path: The path of the file.
        flags: The flags of `os.open`; `SAFE_FLAGS` are added.

    Raises:
        OSError: It is not a regular file, or cannot be opened.
    """
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
    """Open a file or a folder while the body runs. A file that is created gets mode 0600, whatever the umask is."""
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
    """Return the size of a regular file in bytes; None if there is no regular file at this path."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def create_folder(path: str) -> None:
    """Create a folder and its missing parents, durably."""
    if Path(path).is_dir():
        return
    above = str(Path(path).parent)
    create_folder(above)
    with suppress(FileExistsError):  # another writer just created it, or it is not a folder: then `sync_folder` fails
        Path(path).mkdir(0o700)
        Path(path).chmod(0o700)
    sync_folder(above)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    with open_file(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


class ChunkReader:
    """Reads the first `size` bytes of an open file in chunks: `step` bytes first, then twice as many, up to 1 MiB."""

    def __init__(self, fd: int, size: int, *, step: int) -> None:
        self.fd = fd
        self.size = size
        self._step = step
        self._base = 0
        self._chunk = b""

    @classmethod
    def from_bytes(cls, data: bytes) -> ChunkReader:
        """Return a reader of bytes in memory."""
        reader = cls(-1, len(data), step=1)
        reader._chunk = data
        return reader

    def clone(self, step: int) -> ChunkReader:
        """Return another reader of the same bytes, with a chunk of its own that starts at `step` bytes."""
        clone = ChunkReader(self.fd, self.size, step=step)
        clone._base, clone._chunk = self._base, self._chunk
        return clone

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes of [start, stop)."""
        self._load_range(start, stop)
        return self._chunk[start - self._base : stop - self._base]

    def find(self, text: bytes, start: int, stop: int) -> int:
        """Return the offset of the first `text` in [start, stop); -1 if it is not there.

        Loads one part of the range at a time.
        """
        offset = start
        while offset + len(text) <= stop:
            self._load_range(start if offset - start < _LARGEST_SEARCH_BUFFER else offset, offset + len(text))
            found = self._chunk.find(text, offset - self._base, stop - self._base)
            if found >= 0:
                return found + self._base
            offset = self._base + len(self._chunk) - len(text) + 1
        return -1

    def iter_lines(self, offset: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Yield the offset of each line of [offset, stop), and the line without its line feed.

        The last line need not end in a line feed. A line that is too long for this store is yielded in parts.

        Args:
            offset: The offset of the first line.
            stop: The offset at which to stop, also within a line.
        """
        while offset < stop:
            self._load_range(offset, offset + 1)
            chunk, base = self._chunk, self._base
            last = chunk.rfind(LF, offset - base, stop - base)
            if last < 0:  # the line is longer than the chunk
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
        """Load the bytes of [start, stop) into the chunk, and some more after them."""
        base, end = self._base, self._base + len(self._chunk)
        if base <= start and stop <= end:
            return
        if start < base <= stop <= end:  # the missing bytes are before the chunk
            begin, count = start, base - start
            before, after = b"", self._chunk
        else:
            before, after = (self._chunk[start - base :] if base <= start < end else b""), b""
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
                raise Damage(None, "the file became shorter while it was being read")
            parts.append(part)
            count, begin = count - len(part), begin + len(part)
        self._base, self._chunk = start, b"".join(filter(None, [*parts, after]))  # one part is not copied
