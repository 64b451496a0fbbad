"""What went wrong, translated at this one spot: the operating system's errors and damaged files into ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from chathistory.errors import CorruptRecord, StoreError, StoreRejected, StoreUnavailable
from chathistory.store import Key

__all__ = ["Damage", "Unsettled", "faults"]

_REFUSALS = {
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


class Damage(Exception):  # named like the errors it becomes
    """What is stored is not what was written; `position` says where, None: at the head itself."""

    def __init__(self, position: int | None, reason: str) -> None:
        self.position = position
        self.reason = reason
        super().__init__(reason)


class Unsettled(Exception):
    """A write failed, and so did undoing it: nobody can say what is stored. The cause is the first error."""


@contextmanager
def faults(doing: str, key: Key) -> Iterator[None]:
    """Translate what the body raises; `doing` is the word for it, e.g. "append".

    Apart from `Unsettled`, whoever raises an `OSError` has left the store unchanged.
    """
    try:
        yield
    except Damage as damage:
        raise CorruptRecord(key, damage.position, damage.reason) from damage.__cause__
    except Unsettled as unsettled:
        error = unsettled.__cause__
        msg = f"{doing} failed, and could not be undone: {error}"
        raise StoreUnavailable(msg, outcome="unknown") from error
    except OSError as error:
        raise _named(doing, error) from error


def _named(doing: str, error: OSError) -> StoreError:
    if error.errno in _REFUSALS:
        return StoreRejected(f"{doing} was refused: {error}")
    return StoreUnavailable(f"{doing} failed: {error}", outcome="not stored")
