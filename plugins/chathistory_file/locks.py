"""Who may write: one lock per conversation at a time, between threads and between processes.

The locks are a fixed set of empty files, shared out by a hash of the conversation's name, so that they need no tidying
and survive the conversation's own file being replaced or deleted. The kernel drops the lock of a process that dies.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import portalocker

from chathistory.errors import StoreUnavailable
from chathistory.lifeline import Lifeline
from chathistory_file.layout import Files, create, make_folder

__all__ = ["Locks"]

COUNT = 64
_FLAGS = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.005


class _Lock:
    """One lock file, opened when first needed; `mutex` is for the threads of this process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.mutex = threading.Lock()
        self._fd: int | None = None

    def taken(self) -> bool:
        """Try once to take the lock between processes."""
        fd = self._opened()
        try:
            portalocker.lock(fd, _FLAGS)
        except portalocker.AlreadyLocked:
            return False
        except portalocker.LockException as error:
            raise error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error)) from error
        if self._is_the_one(fd):
            return True
        self.drop()  # the folder was removed or replaced while we held the old file open
        return False

    def release(self) -> None:
        if self._fd is not None:
            portalocker.unlock(self._fd)

    def drop(self) -> None:
        if self._fd is not None:
            self._close()
            self._fd = None

    def _opened(self) -> int:
        if self._fd is None:
            make_folder(os.path.dirname(self.path))  # noqa: PTH120
            self._fd = _open(self.path)
            self._close = weakref.finalize(self, os.close, self._fd)  # for a store that nobody closes
            self._close.atexit = False
        return self._fd

    def _is_the_one(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(fd))  # noqa: PTH116
        except FileNotFoundError:
            return False


class Locks:
    """The locks of one store; at most one open file for each."""

    def __init__(self, root: str, *, timeout: float, lifeline: Lifeline) -> None:
        self._timeout = timeout
        self._lifeline = lifeline
        self._locks = [_Lock(f"{root}/.locks/{number:02x}") for number in range(COUNT)]
        _alive.add(self)

    @contextmanager
    def held(self, files: Files) -> Iterator[None]:
        """Hold the conversation's lock during the body.

        Raises `StoreUnavailable` (not stored) if others hold it for longer than the timeout.
        """
        lock = self._locks[zlib.crc32(files.name.encode()) % COUNT]
        deadline = time.monotonic() + self._timeout
        if not lock.mutex.acquire(timeout=self._timeout):
            raise self._late()
        try:
            self._lifeline.check()  # it may have been closed while this thread waited
            self._wait(lock, deadline)
            try:
                yield
            finally:
                lock.release()
        finally:
            lock.mutex.release()

    def _wait(self, lock: _Lock, deadline: float) -> None:
        pause = _FIRST_PAUSE
        while not lock.taken():
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


def _open(path: str) -> int:
    with create(path, os.O_RDWR) as fd:
        return os.dup(fd)


def _abandon_all() -> None:
    for locks in list(_alive):
        locks.abandon()


# A child that kept the files open would keep a lock that its parent held, even when the parent is dead.
_alive: weakref.WeakSet[Locks] = weakref.WeakSet()
os.register_at_fork(after_in_child=_abandon_all)
