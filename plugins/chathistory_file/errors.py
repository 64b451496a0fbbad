"""The errors of the operating system, and damaged files, translated into the errors of chathistory."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from chathistory.errors import CorruptRecord, StoreError, StoreRejected, StoreUnavailable, UnsupportedRecord
from chathistory.storage.values import Key

__all__ = [
    "Damage",
    "OtherConversation",
    "OtherLayout",
    "UndoFailed",
    "is_file_error",
    "is_process_error",
    "translate_error",
    "translate_errors",
]

_REFUSAL_ERRNOS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
}

_FILE_ERRNOS = {
    errno.EACCES,
    errno.EINVAL,  # it is not a regular file
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENXIO,
    errno.EPERM,
}


class Damage(Exception):
    """The file differs from what was written.

    Attributes:
        position: The position of the damaged record; None if the head is damaged.
        reason: What is wrong, in words without any stored text.
    """

    def __init__(self, position: int | None, reason: str) -> None:
        self.position = position
        self.reason = reason
        super().__init__(reason)


class OtherConversation(Damage):
    """The file has the name of one conversation and the content of another: it was copied or moved."""

    def __init__(self) -> None:
        super().__init__(None, "the file holds another conversation")


class OtherLayout(Exception):
    """The file has another layout: a later version of this package wrote it, or one before the layout was frozen."""

    def __init__(self, layout: int) -> None:
        self.layout = layout
        super().__init__(layout)


class UndoFailed(Exception):
    """A write failed and could not be undone, or a rename or removal could not be synced: its outcome is unknown.

    The cause is the first error.
    """


@contextmanager
def translate_errors(operation: str, key: Key, *, reads: str | None = None) -> Iterator[None]:
    """Translate the errors that the body raises.

    A body that raises `OSError` must have left the store unchanged; otherwise it raises `UndoFailed`.

    Args:
        operation: The word for the call in messages, such as "append".
        key: The conversation.
        reads: The path of the conversation's own file, if the body only reads it: a file that cannot be read then
            counts as damage, so that a walk over many conversations skips it.

    Raises:
        CorruptRecord: The file is damaged, or cannot be read.
        UnsupportedRecord: A version with another layout wrote it.
        StoreRejected: The operating system refused the operation.
        StoreUnavailable: The operation failed.
    """
    try:
        yield
    except Damage as damage:
        raise CorruptRecord(key, damage.position, damage.reason) from damage.__cause__
    except OtherLayout as other:
        raise UnsupportedRecord(key, 0, other.layout) from None
    except UndoFailed as failed:
        error = failed.__cause__
        raise StoreUnavailable(f"{operation} failed, and could not be undone: {error}", outcome="unknown") from error
    except OSError as error:
        if reads is not None and is_file_error(error, reads):
            raise CorruptRecord(key, None, f"the file cannot be read: {error.strerror}") from error
        raise translate_error(operation, error) from error


def translate_error(operation: str, error: OSError) -> StoreError:
    """Return the chathistory error for an error of the operating system; the store must be unchanged.

    Args:
        operation: The word for the call in messages.
        error: The error.
    """
    if error.errno in _REFUSAL_ERRNOS:
        return StoreRejected(f"{operation} was refused: {error}")
    return StoreUnavailable(f"{operation} failed: {error}", outcome="not stored")


def is_file_error(error: OSError, path: str) -> bool:
    """Return True if an error concerns this file only: the file exists and its folder can be read.

    Args:
        error: The error.
        path: The path of the file.
    """
    if error.errno not in _FILE_ERRNOS or error.filename not in (None, path):
        return False
    try:
        os.lstat(path)
    except OSError:
        return False
    return True


def is_process_error(error: OSError) -> bool:
    """Return True if an error concerns any file: the process or the system has run out of descriptors or memory."""
    return error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
