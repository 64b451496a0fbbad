"""Whether a store may still be used: it is open, and this is the process that uses it."""

from __future__ import annotations

import os

from chathistory.errors import StoreClosed

__all__ = ["OpenGuard"]


class OpenGuard:
    """Refuses calls of what is closed, or of another process; `BaseStore` asks it at the start of every method.

    A forked child shares its parent's sockets and file locks: two processes writing into one of them mix up their
    bytes. So a store belongs to the process that used it first, and a child of that opens its own. A store that was not
    used before the fork has opened nothing yet (a backend connects at the first call): each child can use its copy.
    """

    def __init__(self, what: str = "this store") -> None:
        """Begin with something that is open.

        Args:
            what: What an error calls it.
        """
        self._what = what
        self._process: int | None = None  # that of the first call
        self._open = True

    def check(self) -> None:
        """Note the process of the first call.

        Raises:
            StoreClosed: It was closed, or used before a fork.
        """
        if self._process is None:
            self._process = os.getpid()
        elif os.getpid() != self._process:
            raise StoreClosed(f"{self._what} {_AFTER_FORK}")
        if not self._open:
            raise StoreClosed(f"{self._what} is closed")

    def close(self) -> bool:
        """Refuse every call from now on.

        Returns:
            Whether there is something to release: True the first time, and only in the process that used it.
        """
        was_open = self._open and self._process in (None, os.getpid())
        self._open = False
        return was_open


_AFTER_FORK = (
    "was used before a fork(); in the child, open another one, for example in gunicorn's post_fork, uWSGI's @postfork "
    "or Celery's worker_process_init; or do not use it before the fork"
)
