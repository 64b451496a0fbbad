"""One writer at a time for each conversation, between threads and between processes.

The locks are a fixed set of empty files, shared out by a hash of the conversation's name, so that they need no tidying
and survive the conversation's own file being replaced or deleted. Each writer has a lock file open for itself, so the
kernel keeps threads apart as well as processes, and drops the lock of a process that dies. One open file of each stays
open for the next writer.
"""

from __future__ import annotations

import errno
import os
import stat
import time
import weakref
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

import portalocker

from chathistory.errors import StoreUnavailable
from chathistory_file.files import Paths, close_fd, create_folder, open_existing, open_fd

__all__ = ["Locks"]

P = ParamSpec("P")
T = TypeVar("T")

_CREATE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
_EXCLUSIVE = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.005


class Locks:
    """The locks of one store."""

    def __init__(self, root: str, *, timeout: float, check_open: Callable[[], None]) -> None:
        self._folder = f"{root}/.locks"
        self._timeout = timeout
        self._check_open = check_open
        self._open_fds: set[int] = set()
        self._idle: defaultdict[str, list[int]] = defaultdict(list)  # by path: open files that nobody uses
        self._is_closed = False
        self._finalizer = weakref.finalize(self, _close_all, self._open_fds)  # for a store that nobody closes
        self._finalizer.atexit = False
        _alive.add(self)

    def run(self, paths: Paths, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `operation` returns; the conversation's lock is held while it runs.

        An exception may strike between any two steps (the handler of a signal raises it): the lock is given back in any
        case. So the open lock file is noted in `fds` at once, and given back twice, for the exception may strike at the
        first step of the first time.

        Raises:
            StoreUnavailable: Others hold the lock for longer than the timeout; nothing was done.
        """
        path = f"{self._folder}/{paths.lock}"
        fds: list[int] = []
        deadline, pause = time.monotonic() + self._timeout, _FIRST_PAUSE
        try:
            try:
                while not self._try_lock(path, fds):
                    if time.monotonic() >= deadline:
                        seconds = f"{self._timeout:g} seconds"
                        raise StoreUnavailable(
                            f"another writer held the conversation's lock for {seconds}", outcome="not stored"
                        )
                    time.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._check_open()  # the store may have been closed while this thread waited
                return operation(*args, **kwargs)
            finally:
                self._release_lock(path, fds)
        finally:
            self._release_lock(path, fds)

    def is_locked(self, paths: Paths) -> bool:
        """Return whether somebody writes under the lock of this conversation just now; makes no file."""
        try:
            with open_existing(f"{self._folder}/{paths.lock}") as file:
                return file is not None and not _try_flock(file.fd)
        except OSError:  # it cannot be told, and waiting would not help
            return False

    def close(self) -> None:
        """Close the lock files; those under which threads write are closed when they have finished."""
        self._is_closed = True
        self._finalizer.detach()
        for idle in list(self._idle.values()):
            while idle:
                with suppress(IndexError):  # a thread has just taken it
                    self._close_files([idle.pop()])

    def abandon(self) -> None:
        """Close the lock files in a forked child: it would keep a lock that its parent held, even a dead one."""
        self._idle.clear()
        _close_all(self._open_fds)

    def _try_lock(self, path: str, fds: list[int]) -> bool:
        if not fds:
            with suppress(IndexError):
                fds[:] = map(list.pop, (self._idle[path],))  # taken and noted in a single step
        if not fds:
            create_folder(self._folder)
            if not stat.S_ISDIR(os.lstat(self._folder).st_mode):
                raise OSError(
                    errno.EPERM, "it holds the locks and must be a folder, not a file or a link", self._folder
                )
            open_fd(fds, path, _CREATE)
            self._open_fds.add(fds[0])
            os.fchmod(fds[0], 0o600)
        if not _try_flock(fds[0]):
            return False
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(fds[0])):  # noqa: PTH116
                return True
        self._close_files(fds)  # the folder was removed or replaced while the old file was open
        return False

    def _release_lock(self, path: str, fds: list[int]) -> None:
        """Give a lock back; a second call does nothing."""
        if not fds or fds[0] not in self._open_fds:  # abandoned in a forked child
            return
        try:
            portalocker.unlock(fds[0])
        except (OSError, portalocker.LockException):
            self._close_files(fds)  # which releases it as well
            return
        if self._idle[path] or self._is_closed:
            self._close_files(fds)
            return
        self._idle[path].append(fds.pop())
        if self._is_closed:  # just now
            self.close()

    def _close_files(self, fds: list[int]) -> None:
        self._open_fds.difference_update(fds)
        close_fd(fds)


def _try_flock(fd: int) -> bool:
    """Try to lock an open file; False: another one has the lock."""
    try:
        portalocker.lock(fd, _EXCLUSIVE)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error)) from error
    return True


def _close_all(fds: set[int]) -> None:
    while fds:
        with suppress(OSError):
            os.close(fds.pop())


def _abandon_all() -> None:
    for locks in list(_alive):
        locks.abandon()


_alive: weakref.WeakSet[Locks] = weakref.WeakSet()
os.register_at_fork(after_in_child=_abandon_all)
