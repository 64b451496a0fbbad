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
    "NewerLayout",
    "OtherConversation",
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
    """What is stored is not what was written; `position` says where, None: at the head itself."""

    def __init__(self, position: int | None, reason: str) -> None:
        self.position = position
        self.reason = reason
        super().__init__(reason)


class OtherConversation(Damage):
    """The file is not that of the conversation whose name it has: a copy, or one that was moved."""

    def __init__(self) -> None:
        super().__init__(None, "the file holds another conversation")


class NewerLayout(Exception):
    """A sound commit has another layout than ours; a later version wrote it."""

    def __init__(self, layout: int) -> None:
        self.layout = layout
        super().__init__(layout)


class UndoFailed(Exception):
    """A write failed, and so did undoing it: nobody can say what is stored. The cause is the first error."""


@contextmanager
def translate_errors(operation: str, key: Key, *, reads: str | None = None) -> Iterator[None]:
    """Translate what the body raises.

    Apart from `UndoFailed`, whoever raises an `OSError` has left the store unchanged.

    Args:
        operation: The word for it, such as "append".
        key: The conversation.
        reads: The conversation's own file: that it cannot be read is damage, so that walks over many go on past it.
    """
    try:
        yield
    except Damage as damage:
        raise CorruptRecord(key, damage.position, damage.reason) from damage.__cause__
    except NewerLayout as newer:
        raise UnsupportedRecord(key, 0, newer.layout) from None
    except UndoFailed as failed:
        error = failed.__cause__
        raise StoreUnavailable(f"{operation} failed, and could not be undone: {error}", outcome="unknown") from error
    except OSError as error:
        if reads is not None and is_file_error(error, reads):
            raise CorruptRecord(key, None, f"the file cannot be read: {error.strerror}") from error
        raise translate_error(operation, error) from error


def translate_error(operation: str, error: OSError) -> StoreError:
    """Return our error for one of the operating system."""
    if error.errno in _REFUSAL_ERRNOS:
        return StoreRejected(f"{operation} was refused: {error}")
    return StoreUnavailable(f"{operation} failed: {error}", outcome="not stored")


def is_file_error(error: OSError, path: str) -> bool:
    """Return whether an error would meet this one file only: what is above it can be looked at."""
    if error.errno not in _FILE_ERRNOS or error.filename not in (None, path):
        return False
    try:
        os.lstat(path)
    except OSError:
        return False
    return True


def is_process_error(error: OSError) -> bool:
    """Return whether an error would meet any file: this process, or the system, has no means left."""
    return error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
