"""The folder and the files of a conversation, and how they are opened and made.

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
from pathlib import Path
from urllib.parse import unquote

from chathistory.errors import InvalidInput
from chathistory.storage.safe_names import safe_name
from chathistory.storage.values import Key

__all__ = [
    "ASIDE",
    "SUFFIX",
    "TEMPORARY",
    "OpenFile",
    "Paths",
    "close_fd",
    "create_folder",
    "folder_exists",
    "is_safe_name",
    "open_existing",
    "open_fd",
    "open_or_create",
    "regular_file_size",
    "sync_folder",
]

SUFFIX = ".jsonl"
ASIDE = ".aside"
TEMPORARY = ".tmp"

_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # neither led astray by a link nor kept waiting by a pipe
_SAFE_NAME = re.compile(r"[a-z0-9_=][a-z0-9_.=~-]{0,119}")


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths of one conversation."""

    folder: str
    stem: str

    @classmethod
    def of(cls, root: str, key: Key) -> Paths:
        """Return the paths of `key` below `root`."""
        return cls(f"{root}/{safe_name(key.scope)}", safe_name(key.id))

    @property
    def name(self) -> str:
        """What it is called below the root, however that is spelled."""
        return f"{self.folder.rpartition('/')[2]}/{self.stem}"

    @property
    def main(self) -> str:
        """The conversation itself."""
        return f"{self.folder}/{self.stem}{SUFFIX}"

    @property
    def aside(self) -> str:
        """What was set aside."""
        return f"{self.folder}/{self.stem}{ASIDE}"

    @property
    def temporary(self) -> str:
        """A rewrite on its way."""
        return f"{self.folder}/{self.stem}{TEMPORARY}"

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
    """A conversation's file, opened; `status` is of that moment."""

    fd: int
    status: os.stat_result

    @property
    def size(self) -> int:
        """Its bytes when it was opened."""
        return self.status.st_size

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
def _open(path: str, flags: int) -> Iterator[int | None]:
    """Open a file for the time of the body; None: it does not exist."""
    fds: list[int] = []
    try:
        try:
            with suppress(FileNotFoundError):
                open_fd(fds, path, flags)
            yield fds[0] if fds else None
        finally:
            close_fd(fds)
    finally:
        close_fd(fds)


@contextmanager
def open_existing(path: str, flags: int = os.O_RDONLY) -> Iterator[OpenFile | None]:
    """Open a conversation's file that exists, for the time of the body; None: it does not exist."""
    with _open(path, flags | _SAFE) as fd:
        if fd is None:
            yield None
            return
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        yield OpenFile(fd, status)


@contextmanager
def open_or_create(path: str, flags: int) -> Iterator[int]:
    """Open a file for the time of the body, made if need be, with mode 0600 in any case."""
    with _open(path, flags | os.O_CREAT | _SAFE) as fd:
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        os.fchmod(fd, 0o600)
        yield fd


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
    with _open(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        if fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        os.fsync(fd)
