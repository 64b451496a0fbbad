"""What only the author of a backend can do to it, as optional hooks for certifying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key

__all__ = ["CertifyHooks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyHooks:
    """Hooks for certifying a backend. All are optional; tests whose hook is missing are reported as not tested.

    Hooks get the backend's own stores and keys.

    Args:
        reopen: Takes a store, which may be closed, and returns a second instance on its data. Default: the URL is
            opened again.
        unreachable_store: Returns a store with a server or disk that cannot be reached. Opening it must not fail; every
            call must, within 10 seconds. Default: the URL of `--chathistory-unreachable` is opened,
            if given.
        crash: Ends the server or disk that keeps the data as hard as possible, starts it again, and returns when it
            answers.
        lose_answer: Takes a store and returns a context manager. Inside the context, one append to the store may be
            carried out, but its answer never arrives: cut the connection between request and reply.
        damage: Takes a store, a key and a position, and changes the stored record at the position, below the interface,
            so that it cannot be read.
        damage_head: Takes a store and a key, and changes the stored head so that it cannot be read.
        lose_index: Takes a store and a key, and removes the conversation from every index that can lose an entry on
            this server. The conversation itself stays. Does nothing if there is no such index.
        remains: Takes a text and returns the places of the storage that hold it, among all rows, keys, documents or
            objects, or all bytes of the files; an empty list if no place does.
    """

    reopen: Callable[[HistoryStore], HistoryStore] | None = None
    unreachable_store: Callable[[], HistoryStore] | None = None
    crash: Callable[[], None] | None = None
    lose_answer: Callable[[HistoryStore], AbstractContextManager[None]] | None = None
    damage: Callable[[HistoryStore, Key, int], None] | None = None
    damage_head: Callable[[HistoryStore, Key], None] | None = None
    lose_index: Callable[[HistoryStore, Key], None] | None = None
    remains: Callable[[str], Sequence[str]] | None = None
