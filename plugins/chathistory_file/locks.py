"""Who may write: one lock per conversation at a time, between threads and between processes.

The locks are a fixed set of empty files, shared out by a hash of the conversation's name, so that they need no tidying
and survive the conversation's own file being replaced or deleted. The kernel drops the lock of a process that dies.
"""

from __future__ import annotations

import errno
import operator
import os
import stat
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from typing import TypeVar

import portalocker

from chathistory.errors import StoreUnavailable
from chathistory.storage.open_guard import OpenGuard
from chathistory_file.layout import Files, create, make_folder, opened

__all__ = ["Locks"]

T = TypeVar("T")

COUNT = 64
_FLAGS = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.005
_RELEASED = operator.methodcaller("release")


class _Lock:
    """One lock file, opened when first needed; `mutex` is for the threads of this process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.mutex = threading.Lock()
        self._fd = -1
        self._close: weakref.finalize[[int], _Lock] | None = None  # for a store that nobody closes; not alive: closed
        self._taken = False  # or about to be

    def take(self) -> bool:
        """Try once to take the lock between processes."""
        fd = self._opened()
        self._taken = True
        if not _locked(fd):
            return False
        if self._is_the_one(fd):
            return True
        self.drop()  # the folder was removed or replaced while we held the old file open
        return False

    def release(self) -> None:
        """Give the lock between processes back, if it was taken; a second call does nothing."""
        if self._taken and self._is_open():
            try:
                portalocker.unlock(self._fd)
            except (OSError, portalocker.LockException):
                self.drop()  # which releases it as well
        self._taken = False

    def drop(self) -> None:
        if self._close is not None:
            self._close()

    def _is_open(self) -> bool:
        return self._close is not None and self._close.alive

    def _opened(self) -> int:
        if not self._is_open():
            folder = os.path.dirname(self.path)  # noqa: PTH120
            make_folder(folder)
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                raise OSError(errno.EPERM, "it holds the locks and must be a folder, not a file or a link", folder)
            self._fd = _open(self.path)
            self._close = weakref.finalize(self, os.close, self._fd)
            self._close.atexit = False
        return self._fd

    def _is_the_one(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(fd))  # noqa: PTH116
        except FileNotFoundError:
            return False


def _locked(fd: int) -> bool:
    """Try to lock an open file; False: another one has it."""
    try:
        portalocker.lock(fd, _FLAGS)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error)) from error
    return True


class Locks:
    """The locks of one store; at most one open file for each."""

    def __init__(self, root: str, *, timeout: float, open_guard: OpenGuard) -> None:
        self._timeout = timeout
        self._open_guard = open_guard
        self._locks = [_Lock(f"{root}/.locks/{number:02x}") for number in range(COUNT)]
        _alive.add(self)

    def run(self, files: Files, work: Callable[[], T]) -> T:
        """Return what `work` returns; the conversation's lock is held while it runs.

        An exception may strike between any two steps (the handler of a signal raises it): the lock is given back in any
        case. So it is given back twice, for the exception may strike at the first step of the first time.

        Raises:
            StoreUnavailable: Others hold the lock for longer than the timeout; nothing was done.
        """
        lock = self._of(files)
        held: list[object] = []
        try:
            try:
                deadline = time.monotonic() + self._timeout
                held[:] = map(lock.mutex.acquire, (True,), (self._timeout,))  # acquired and noted in a single step
                if not held[0]:
                    raise self._late()
                self._open_guard.check()  # it may have been closed while this thread waited
                self._wait(lock, deadline)
                return work()
            finally:
                _give_back(lock, held)
        finally:
            _give_back(lock, held)

    def is_held(self, files: Files) -> bool:
        """Tell whether somebody writes under the lock of this conversation just now; makes no file."""
        try:
            with opened(self._of(files).path) as file:  # opened anew: so a lock of this very process counts, too
                return file is not None and not _locked(file.fd)
        except OSError:  # it cannot be told, and so nothing is found out by waiting
            return False

    def _of(self, files: Files) -> _Lock:
        return self._locks[zlib.crc32(files.name.encode()) % COUNT]

    def _wait(self, lock: _Lock, deadline: float) -> None:
        pause = _FIRST_PAUSE
        while not lock.take():
            if time.monotonic() >= deadline:
                raise self._late()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _late(self) -> StoreUnavailable:
        msg = f"another writer held the conversation's lock for {self._timeout:g} seconds"
        return StoreUnavailable(msg, outcome="not stored")

    def close(self) -> None:
        """Close the lock files, each as soon as no thread writes under it."""
        for lock in self._locks:
            with lock.mutex:
                lock.drop()

    def abandon(self) -> None:
        """Close the lock files in a forked child, where no other thread lives and a mutex may be held for ever."""
        for lock in self._locks:
            lock.drop()


def _give_back(lock: _Lock, held: list[object]) -> None:
    """Release a lock whose mutex this thread has acquired, if `held` says so; a second call does nothing."""
    if held and held[0]:
        lock.release()
        held[:] = map(_RELEASED, (lock.mutex,))  # released and noted in a single step


def _open(path: str) -> int:
    with create(path, os.O_RDWR) as fd:
        return os.dup(fd)


def _abandon_all() -> None:
    for locks in list(_alive):
        locks.abandon()


# A child that kept the files open would keep a lock that its parent held, even when the parent is dead.
_alive: weakref.WeakSet[Locks] = weakref.WeakSet()
os.register_at_fork(after_in_child=_abandon_all)
