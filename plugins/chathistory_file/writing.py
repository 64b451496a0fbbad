"""Appends and rewrites, and how a failed one is undone; all under the conversation's lock.

The modification time of a file is the conversation's `updated`, so that a folder's scan gives the order of a listing.
It is set before the data are synced, and so is durable with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from chathistory.storage.store import Head
from chathistory_file.faults import Unsettled
from chathistory_file.layout import Files, create, make_folder, sync_folder
from chathistory_file.lines import Batch, commit_line
from chathistory_file.states import UNSYNCED

__all__ = ["append", "begin", "cut", "remove", "remove_beside", "replace", "set_aside"]

_APPEND = os.O_WRONLY | os.O_APPEND
_PIECE = 1024 * 1024
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def append(fd: int, batch: Batch, *, size: int, before: int, updated: int) -> None:
    """Add a batch durably to a file of `size` bytes and date it `updated` (`before`: its date now; microseconds).

    Raises `OSError` with the file as it was, or `Unsettled` if that could not be restored.
    """
    try:
        _store(fd, batch, updated)
    except OSError as error:
        _undo(fd, size, before, error)
        raise


def _store(fd: int, batch: Batch, updated: int) -> None:
    if len(batch.records) > UNSYNCED:  # too much to be looked through for holes by whoever finds the commit
        _write(fd, batch.records)
        _sync(fd)
        _write(fd, batch.commit)
    else:
        _write(fd, batch.records + batch.commit)
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


def begin(files: Files, batch: Batch, *, updated: int) -> None:
    """Store a batch durably as a new conversation. Raises as `append` does."""
    make_folder(files.folder)
    try:
        with create(files.main, _APPEND) as fd:
            _store(fd, batch, updated)
        sync_folder(files.folder)
    except OSError as error:
        _unmake(files.main, error)
        raise


def _unmake(path: str, error: OSError) -> None:
    try:
        _unlink(path)
    except OSError:
        raise Unsettled from error


def set_aside(files: Files, chunks: Iterable[bytes]) -> None:
    """Add these bytes, which belong to no record, durably to the file for such bytes."""
    with create(files.aside, _APPEND) as aside:
        for chunk in chunks:
            _write(aside, chunk)
        os.fsync(aside)
    sync_folder(files.folder)


def cut(files: Files, fd: int, *, after: int, size: int) -> None:
    """Move the bytes from offset `after` to `size`, which belong to no append, out of the conversation, durably.

    The cut is on the disk before anything is written there: else a loss of power could mix what was with what is new.
    """
    set_aside(files, (os.pread(fd, _PIECE, offset) for offset in range(after, size, _PIECE)))
    os.ftruncate(fd, after)
    _sync(fd)


def replace(files: Files, lines: Iterable[bytes], head: Head, *, keep_aside: bool = False) -> None:
    """Put a file of these lines and a commit durably in the conversation's place, and remove what was set aside.

    Readers see the old file or the new one. Raises `OSError` with the old one in place, or `Unsettled` if a stop
    of the machine may bring it back.
    """
    try:
        with create(files.temporary, _APPEND | os.O_TRUNC) as fd:
            size = 0
            for part in _gathered(lines):
                size += len(part)
                _write(fd, part)
            _write(fd, commit_line(head, at=0, size=size))
            _date(fd, head.revision.updated)
            os.fsync(fd)
        if not keep_aside:
            _unlink(files.aside)
        os.rename(files.temporary, files.main)  # noqa: PTH104
    except BaseException:
        with suppress(OSError):
            _unlink(files.temporary)
        raise
    _settle(files.folder)


def _gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines again, some at a time."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= _PIECE:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


def remove(files: Files) -> None:
    """Remove all that is stored of a conversation, durably; the conversation itself last. Raises as `replace` does."""
    for path in (files.aside, files.temporary, files.main):
        _unlink(path)
    _settle(files.folder)


def remove_beside(files: Files) -> int:
    """Remove what is stored beside a conversation, durably; returns how many files that were."""
    removed = sum(map(_unlink, (files.aside, files.temporary)))
    if removed:
        _settle(files.folder)
    return removed


def _settle(folder: str) -> None:
    """Sync what has been done to a folder and cannot be undone."""
    try:
        sync_folder(folder)
    except OSError as error:
        raise Unsettled from error


def _unlink(path: str) -> bool:
    """Remove a file; False: there was none."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return False
    return True
