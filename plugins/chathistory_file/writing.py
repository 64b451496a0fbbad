"""Appends and rewrites, and how a failed one is undone; all under the conversation's lock.

The modification time of a file is the conversation's `updated`, so that a folder's scan gives the order of a listing.
It is set before the data are synced, and so is durable with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from chathistory_file.faults import Unsettled
from chathistory_file.layout import Files, create, make_folder, sync_folder

__all__ = ["append", "begin", "remove", "replace", "set_aside"]

_APPEND = os.O_WRONLY | os.O_APPEND
_PIECE = 1024 * 1024
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def append(fd: int, data: bytes, *, size: int, before: int, updated: int) -> None:
    """Add `data` durably to a file of `size` bytes and date it `updated` (`before`: its date now; microseconds).

    Raises `OSError` with the file as it was, or `Unsettled` if that could not be restored.
    """
    try:
        _store(fd, data, updated)
    except OSError as error:
        _undo(fd, size, before, error)
        raise


def _store(fd: int, data: bytes, updated: int) -> None:
    _write(fd, data)
    _date(fd, updated)
    _sync(fd)


def _write(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def _date(fd: int, updated: int) -> None:
    os.utime(fd, ns=(updated * 1000, updated * 1000))


def _undo(fd: int, size: int, before: int, error: OSError) -> None:
    try:
        os.ftruncate(fd, size)
        _date(fd, before)
        _sync(fd)
    except OSError:
        raise Unsettled from error


def begin(files: Files, data: bytes, *, updated: int) -> None:
    """Store `data` durably as a new conversation. Raises as `append` does."""
    make_folder(files.folder)
    try:
        with create(files.main, _APPEND) as fd:
            _store(fd, data, updated)
        sync_folder(files.folder)
    except OSError as error:
        _unmake(files.main, error)
        raise


def _unmake(path: str, error: OSError) -> None:
    try:
        _unlink(path)
    except OSError:
        raise Unsettled from error


def set_aside(files: Files, fd: int, *, after: int, size: int) -> None:
    """Move the bytes from offset `after` to `size`, which nobody committed, durably into the file for such bytes."""
    with create(files.torn, _APPEND) as aside:
        for offset in range(after, size, _PIECE):
            _write(aside, os.pread(fd, _PIECE, offset))
        os.fsync(aside)
    sync_folder(files.folder)
    os.ftruncate(fd, after)


def replace(files: Files, chunks: Iterable[bytes], *, updated: int) -> None:
    """Put a file of these chunks durably in the conversation's place, and remove what a crash left beside it.

    Readers see the old file or the new one. Raises `OSError` with the old one in place, or `Unsettled` if a stop
    of the machine may bring it back.
    """
    try:
        with create(files.temporary, _APPEND | os.O_TRUNC) as fd:
            for chunk in chunks:
                _write(fd, chunk)
            _date(fd, updated)
            os.fsync(fd)
        _unlink(files.torn)
        os.rename(files.temporary, files.main)  # noqa: PTH104
    except BaseException:
        with suppress(OSError):
            _unlink(files.temporary)
        raise
    _settle(files.folder)


def remove(files: Files) -> None:
    """Remove all that is stored of a conversation, durably; the conversation itself last. Raises as `replace` does."""
    for path in (files.torn, files.temporary, files.main):
        _unlink(path)
    _settle(files.folder)


def _settle(folder: str) -> None:
    """Sync what has been done to a folder and cannot be undone."""
    try:
        sync_folder(folder)
    except OSError as error:
        raise Unsettled from error


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
