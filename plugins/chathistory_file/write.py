"""Appends and rewrites, and undoing a failed one. Everything here runs under the conversation's lock.

The modification time of a file is the conversation's `updated`, so that a scan of the folder gives the order of a
listing. It is set before the data are synced, so that it is durable together with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress

from chathistory.storage.values import Head
from chathistory_file.errors import UndoFailed
from chathistory_file.files import SAFE_FLAGS, Paths, create_folder, open_file, sync_folder
from chathistory_file.read import MAX_UNSYNCED_SIZE, FileState
from chathistory_file.schema import Batch, encode_commit

__all__ = [
    "append_batch",
    "begin_file",
    "remove_all",
    "remove_side_files",
    "replace_file",
    "set_aside",
    "set_tail_aside",
]

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | SAFE_FLAGS
_CHUNK_SIZE = 1024 * 1024  # bytes to write at a time
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def append_batch(state: FileState, batch: Batch, *, updated: int) -> None:
    """Append a batch to a file durably, and set the file's time.

    Args:
        state: The state of the conversation before the append.
        batch: The bytes to append.
        updated: The time, in microseconds since 1970 UTC.

    Raises:
        OSError: The append failed, and the file is as it was before.
        UndoFailed: The append failed, and so did restoring the file.
    """
    fd, mtime_ns = state.reader.fd, state.head.revision.updated * 1000
    try:
        _write_batch(fd, batch, updated)
    except OSError as error:
        try:
            os.ftruncate(fd, state.after)
            os.utime(fd, ns=(mtime_ns, mtime_ns))
            _sync(fd)
        except OSError:
            raise UndoFailed from error
        raise


def begin_file(paths: Paths, batch: Batch, *, updated: int) -> None:
    """Store a batch durably as a new conversation.

    Args:
        paths: The paths of the conversation.
        batch: The bytes of its first append.
        updated: The time of the file, in microseconds since 1970 UTC.

    Raises:
        OSError: It failed, and there is no conversation.
        UndoFailed: It failed, and so did removing the file.
    """
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
    if len(batch.records) > MAX_UNSYNCED_SIZE:  # too large for every reader of the commit to search for holes
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


def set_aside(paths: Paths, chunks: Iterable[bytes]) -> None:
    """Append bytes that are dropped from the conversation's file to its `.aside` file, durably.

    Args:
        paths: The paths of the conversation.
        chunks: The bytes.
    """
    with open_file(paths.aside, _APPEND) as aside:
        for chunk in chunks:
            _write_all(aside, chunk)
        os.fsync(aside)
    sync_folder(paths.folder)


def set_tail_aside(paths: Paths, fd: int, *, after: int, size: int) -> None:
    """Move the bytes of [after, size), which belong to no append, from the conversation to its `.aside` file, durably.

    Truncates and syncs the file before the next append; otherwise a power loss could mix old and new bytes.

    Args:
        paths: The paths of the conversation.
        fd: The descriptor of its open file.
        after: The offset of the end of the last commit.
        size: The size of the file.
    """
    set_aside(paths, (os.pread(fd, _CHUNK_SIZE, offset) for offset in range(after, size, _CHUNK_SIZE)))
    os.ftruncate(fd, after)
    _sync(fd)


def replace_file(paths: Paths, lines: Iterable[bytes], head: Head, *, keep_aside: bool = False) -> None:
    """Replace the conversation's file with one of these lines and a commit, durably, and remove its `.aside` file.

    Readers see the old file or the new one.

    Args:
        paths: The paths of the conversation.
        lines: The lines of its records.
        head: The head for the commit.
        keep_aside: Keep the `.aside` file.

    Raises:
        OSError: The old file is still in place.
        UndoFailed: The new file is in place, but after a crash of the machine the old one may be back.
    """
    mtime_ns = head.revision.updated * 1000
    try:
        with open_file(paths.temporary, _APPEND | os.O_TRUNC) as fd:
            size, part = 0, bytearray()
            for line in lines:
                part += line
                size += len(line)
                if len(part) >= _CHUNK_SIZE:
                    _write_all(fd, part)
                    part.clear()
            _write_all(fd, part + encode_commit(head, at=0, size=size))
            os.utime(fd, ns=(mtime_ns, mtime_ns))
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
    """Remove all files of a conversation durably, its own file last. Raises as `replace_file` does."""
    for path in (paths.aside, paths.temporary, paths.main):
        _unlink_if_exists(path)
    _sync_change(paths.folder)


def remove_side_files(paths: Paths) -> int:
    """Remove the `.aside` and `.tmp` files of a conversation durably; return how many there were."""
    removed = sum(map(_unlink_if_exists, (paths.aside, paths.temporary)))
    if removed:
        _sync_change(paths.folder)
    return removed


def _sync_change(folder: str) -> None:
    """Sync a folder after a rename or removal of files.

    Raises `UndoFailed` if that fails: the change is in place, but after a crash of the machine it may be undone.
    """
    try:
        sync_folder(folder)
    except OSError as error:
        raise UndoFailed from error


def _unlink_if_exists(path: str) -> bool:
    """Remove a file; return False if it does not exist."""
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return False
    return True
