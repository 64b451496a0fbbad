"""One writer at a time for each conversation, between threads and between processes.

The locks are a fixed set of empty files; a hash of the conversation's name selects one. So they need no cleanup, and
they do not depend on the conversation's own file, which may be replaced or deleted. Each writer opens the lock file for
itself, so that the kernel separates threads as well as processes, and drops the lock of a process that dies. One
descriptor of each lock file stays open for the next writer.
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
        self._idle: defaultdict[str, list[int]] = defaultdict(list)  # by path: open files that are not in use
        self._is_closed = False
        self._finalizer = weakref.finalize(self, _close_all, self._open_fds)  # for a store that is never closed
        self._finalizer.atexit = False
        _alive.add(self)

    def run(self, paths: Paths, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `operation` under the conversation's lock, and return its result.

        A signal handler may raise an exception between any two steps, and the lock must be released even then. So the
        descriptor is recorded in `fds` at once, and released in two nested `finally` blocks: the exception may come at
        the first step of the inner one.

        Args:
            paths: The paths of the conversation.
            operation: Called with the other arguments.
            *args: Passed to `operation`.
            **kwargs: Passed to `operation`.

        Raises:
            StoreUnavailable: Other writers held the lock for longer than the timeout; nothing was done.
        """
        path = f"{self._folder}/{paths.lock}"
        fds: list[int] = []
        deadline, pause = time.monotonic() + self._timeout, _FIRST_PAUSE
        try:
            try:
                while not self._try_lock(path, fds):
                    if time.monotonic() >= deadline:
                        raise StoreUnavailable(
                            f"another writer held the conversation's lock for {self._timeout:g} seconds",
                            outcome="not stored",
                        )
                    time.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                self._check_open()  # another thread may have closed the store meanwhile
                return operation(*args, **kwargs)
            finally:
                self._release_lock(path, fds)
        finally:
            self._release_lock(path, fds)

    def is_locked(self, paths: Paths) -> bool:
        """Return True if a writer holds the lock of this conversation at this moment. Creates no file."""
        try:
            with open_existing(f"{self._folder}/{paths.lock}") as file:
                return file is not None and not _try_flock(file.fd)
        except OSError:  # unknown, and waiting would not help
            return False

    def close(self) -> None:
        """Close the lock files; one that is in use is closed when its writer has finished."""
        self._is_closed = True
        self._finalizer.detach()
        for idle in list(self._idle.values()):
            while idle:
                with suppress(IndexError):  # another thread has just taken it
                    self._close_files([idle.pop()])

    def abandon(self) -> None:
        """Close the lock files in a forked child; otherwise it would keep a lock of its parent, even of a dead one."""
        self._idle.clear()
        _close_all(self._open_fds)

    def _try_lock(self, path: str, fds: list[int]) -> bool:
        if not fds:
            with suppress(IndexError):
                fds[:] = map(list.pop, (self._idle[path],))  # take and record it in a single step
        if not fds:
            create_folder(self._folder)
            if not stat.S_ISDIR(os.lstat(self._folder).st_mode):
                raise OSError(
                    errno.EPERM,
                    "the place of the locks must be a folder, not a file or a link; remove it",
                    self._folder,
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
        """Release a lock; a second call does nothing."""
        if not fds or fds[0] not in self._open_fds:  # abandoned in a forked child
            return
        try:
            portalocker.unlock(fds[0])
        except (OSError, portalocker.LockException):
            self._close_files(fds)  # this releases the lock as well
            return
        if self._idle[path] or self._is_closed:
            self._close_files(fds)
            return
        self._idle[path].append(fds.pop())
        if self._is_closed:  # by another thread, just now
            self.close()

    def _close_files(self, fds: list[int]) -> None:
        self._open_fds.difference_update(fds)
        close_fd(fds)


def _try_flock(fd: int) -> bool:
    """Try to lock an open file; return False if the lock is taken."""
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
