"""What only the author of a backend can do to it. Each is optional; what is not given is listed as not tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key

__all__ = ["CertifyHooks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyHooks:
    """Give those that you can. The stores and keys that they get are those of the backend itself.

    reopen: return a second instance onto the data of a store, which may be closed by then. Not given: the URL is
        opened once more.
    unreachable_store: return a store, opened without error, whose server or disk cannot be reached: every call has to
        fail, within 10 seconds. Not given: the URL of `--unreachable` is opened, if there is one.
    crash: end what keeps the data (a server, a disk) as hard as you can, start it again, and return when it answers.
    lose_answer: while its context lasts, one append to the store is carried out, or not, and its answer never comes:
        cut the connection between request and reply.
    damage: change what is stored of one record behind the back of the store: the record at this position.
    damage_head: change what is stored of the head of a conversation, so that it cannot be read.
    lose_index: remove the entry of a conversation from every index that can lose one on this server, and leave the
        conversation; do nothing if there is no such index.
    remains: return the places of the storage that hold a text: of all rows, keys, documents or objects, or of all bytes
        of the files. An empty list if it is nowhere.
    """

    reopen: Callable[[HistoryStore], HistoryStore] | None = None
    unreachable_store: Callable[[], HistoryStore] | None = None
    crash: Callable[[], None] | None = None
    lose_answer: Callable[[HistoryStore], AbstractContextManager[None]] | None = None
    damage: Callable[[HistoryStore, Key, int], None] | None = None
    damage_head: Callable[[HistoryStore, Key], None] | None = None
    lose_index: Callable[[HistoryStore, Key], None] | None = None
    remains: Callable[[str], Sequence[str]] | None = None
