"""Whether a store may still be used: it is open, and this is the process that opened it."""

from __future__ import annotations

import os

from chathistory.errors import StoreClosed

__all__ = ["Lifeline"]


class Lifeline:
    """Held by a store; `check` at the start of every method, `cut` in `close`.

    A forked child shares its parent's sockets and file locks: two processes writing into one of them mix up their
    bytes. So a store is of the process that opened it, and a child opens its own.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._open = True

    def check(self) -> None:
        """Raise `StoreClosed` if the store was closed or carried across a fork."""
        if os.getpid() != self._process:
            msg = "this store was opened before a fork(); open another one in this process"
            raise StoreClosed(msg)
        if not self._open:
            msg = "this store is closed"
            raise StoreClosed(msg)

    def cut(self) -> bool:
        """Mark the store as closed; True the first time, and only in the process that opened it."""
        was_open = self._open and os.getpid() == self._process
        self._open = False
        return was_open
