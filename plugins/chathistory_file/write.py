"""Appends and rewrites, and how a failed one is undone; all under the conversation's lock.

The modification time of a file is the conversation's `updated`, so that a folder's scan gives the order of a listing.
It is set before the data are synced, and so is durable with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from chathistory.storage.values import Head
from chathistory_file.errors import UndoFailed
from chathistory_file.files import SAFE_FLAGS, Paths, create_folder, open_file, sync_folder
from chathistory_file.read import UNSYNCED, FileState
from chathistory_file.schema import Batch, encode_commit

__all__ = [
    "append_batch",
    "begin_file",
    "quarantine",
    "quarantine_tail",
    "remove_all",
    "remove_side_files",
    "replace_file",
]

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | SAFE_FLAGS
_PART = 1024 * 1024
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def append_batch(state: FileState, batch: Batch, *, updated: int) -> None:
    """Add a batch durably to a file, and date it `updated` (microseconds).

    Raises:
        OSError: The file is as it was.
        UndoFailed: That could not be restored.
    """
    fd, date = state.reader.fd, state.head.revision.updated * 1000
    try:
        _write_batch(fd, batch, updated)
    except OSError as error:
        try:
            os.ftruncate(fd, state.after)
            os.utime(fd, ns=(date, date))
            _sync(fd)
        except OSError:
            raise UndoFailed from error
        raise


def begin_file(paths: Paths, batch: Batch, *, updated: int) -> None:
    """Store a batch durably as a new conversation. Raises as `append_batch` does."""
    create_folder(paths.folder)
    try:
        with open_file(paths.main, _APPEND) as fd:
            _write_batch(fd, batch, updated)
        sync_folder(paths.folder)
    except OSError as error:
        try:
            _unlink_if_exists(paths.main)
        except OSError:
            raise UndoFailed from error
        raise


def _write_batch(fd: int, batch: Batch, updated: int) -> None:
    if len(batch.records) > UNSYNCED:  # too much to be looked through for holes by whoever finds the commit
        _write_all(fd, batch.records)
        _sync(fd)
        _write_all(fd, batch.commit)
    else:
        _write_all(fd, batch.records + batch.commit)
    os.utime(fd, ns=(updated * 1000, updated * 1000))
    _sync(fd)


def _write_all(fd: int, data: bytes | bytearray) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def quarantine(paths: Paths, chunks: Iterable[bytes]) -> None:
    """Add bytes that belong to no record durably to the file for such bytes."""
    with open_file(paths.aside, _APPEND) as aside:
        for chunk in chunks:
            _write_all(aside, chunk)
        os.fsync(aside)
    sync_folder(paths.folder)


def quarantine_tail(paths: Paths, fd: int, *, after: int, size: int) -> None:
    """Move the bytes from offset `after` to `size`, which belong to no append, out of the conversation, durably.

    The cut is on the disk before anything is written there: else a loss of power could mix what was with what is new.
    """
    quarantine(paths, (os.pread(fd, _PART, offset) for offset in range(after, size, _PART)))
    os.ftruncate(fd, after)
    _sync(fd)


def replace_file(paths: Paths, lines: Iterable[bytes], head: Head, *, keep_aside: bool = False) -> None:
    """Put a file of these lines and a commit durably in the conversation's place, and remove what was set aside.

    Readers see the old file or the new one.

    Raises:
        OSError: The old file is in place.
        UndoFailed: The new one is in place, but a stop of the machine may bring the old one back.
    """
    date = head.revision.updated * 1000
    try:
        with open_file(paths.temporary, _APPEND | os.O_TRUNC) as fd:
            size, part = 0, bytearray()
            for line in lines:
                part += line
                size += len(line)
                if len(part) >= _PART:
                    _write_all(fd, part)
                    part.clear()
            _write_all(fd, part + encode_commit(head, at=0, size=size))
            os.utime(fd, ns=(date, date))
            os.fsync(fd)
        if not keep_aside:
            _unlink_if_exists(paths.aside)
        os.rename(paths.temporary, paths.main)  # noqa: PTH104
    except BaseException:
        with suppress(OSError):
            _unlink_if_exists(paths.temporary)
        raise
    _sync_change(paths.folder)


def remove_all(paths: Paths) -> None:
    """Remove all that is stored of a conversation, durably; the conversation itself last. Raises as `replace_file`."""
    for path in (paths.aside, paths.temporary, paths.main):
        _unlink_if_exists(path)
    _sync_change(paths.folder)


def remove_side_files(paths: Paths) -> int:
    """Remove what is stored beside a conversation, durably; returns how many files that were."""
    removed = sum(map(_unlink_if_exists, (paths.aside, paths.temporary)))
    if removed:
        _sync_change(paths.folder)
    return removed


def _sync_change(folder: str) -> None:
    """Sync what has been done to a folder and cannot be undone."""
    try:
        sync_folder(folder)
    except OSError as error:
        raise UndoFailed from error


def _unlink_if_exists(path: str) -> bool:
    """Remove a file; False: there was none."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return False
    return True
