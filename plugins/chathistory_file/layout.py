"""Which folder and file a conversation has, and how they are opened and made.

    <root>/.locks/00 ... 3f                 see `locks`
    <root>/<scope>/<conversation>.jsonl     the conversation
    <root>/<scope>/<conversation>.torn      what a crash left half-written, set aside by the next writer
    <root>/<scope>/<conversation>.tmp       a rewrite that has not taken the conversation's place (yet)

Files have mode 0600, folders 0700, whatever the umask. Anything else in the folders is somebody else's.
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
from chathistory.names import safe_name
from chathistory.store import Key

__all__ = ["SUFFIX", "File", "Files", "create", "is_ours", "is_there", "make_folder", "named", "opened", "sync_folder"]

SUFFIX = ".jsonl"

_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # neither led astray by a link nor kept waiting by a pipe


@dataclass(frozen=True, slots=True)
class Files:
    """The paths of one conversation."""

    folder: str
    stem: str

    @classmethod
    def of(cls, root: str, key: Key) -> Files:
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
    def torn(self) -> str:
        """What a crash left behind."""
        return f"{self.folder}/{self.stem}.torn"

    @property
    def temporary(self) -> str:
        """A rewrite on its way."""
        return f"{self.folder}/{self.stem}.tmp"


def is_ours(name: str) -> bool:
    """Tell whether a name, without suffix, may be one that `safe_name` gave."""
    return _OURS.fullmatch(name) is not None


_OURS = re.compile(r"[a-z0-9_=][a-z0-9_.=~-]{0,119}")


def named(folder: str, stem: str) -> Key:
    """Return the key whose files are `stem` in `folder`, as well as names alone can tell (a long one is cut)."""
    names = (folder.rpartition("/")[2], stem)
    try:
        return Key(*(unquote(name.replace("=", "%")) for name in names))
    except InvalidInput:  # nobody's conversation, but it has to be called something
        return Key(*names)


@dataclass(frozen=True, slots=True)
class File:
    """A conversation's file, opened; `status` is of that moment."""

    fd: int
    status: os.stat_result

    @property
    def size(self) -> int:
        """Its bytes when it was opened."""
        return self.status.st_size

    def has_changed(self) -> bool:
        """Tell whether somebody wrote to it since."""
        now, then = os.fstat(self.fd), self.status
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (then.st_size, then.st_mtime_ns, then.st_ctime_ns)


@contextmanager
def opened(path: str, flags: int = os.O_RDONLY) -> Iterator[File | None]:
    """Open a conversation's file that exists, for the time of the body; None: it does not exist."""
    try:
        fd = os.open(path, flags | _SAFE)
    except FileNotFoundError:
        yield None
        return
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        yield File(fd, status)
    finally:
        os.close(fd)


@contextmanager
def create(path: str, flags: int) -> Iterator[int]:
    """Open a file for the time of the body, made if need be, with mode 0600 in any case."""
    fd = os.open(path, flags | os.O_CREAT | _SAFE, 0o600)
    try:
        os.fchmod(fd, 0o600)
        yield fd
    finally:
        os.close(fd)


def is_there(folder: str) -> bool:
    """Tell whether a folder exists; raises `OSError` if that cannot be told."""
    try:
        os.stat(folder)  # noqa: PTH116
    except FileNotFoundError:
        return False
    return True


def make_folder(path: str) -> None:
    """Make a folder and those above it that are missing, durably."""
    if Path(path).is_dir():
        return
    above = str(Path(path).parent)
    make_folder(above)
    with suppress(FileExistsError):  # another writer made it just now, or it is no folder: what comes next will tell
        Path(path).mkdir(0o700)
        Path(path).chmod(0o700)
    sync_folder(above)


def sync_folder(path: str) -> None:
    """Make durable which files a folder holds."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
