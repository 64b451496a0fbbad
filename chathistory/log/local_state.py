"""What this process knows of each conversation, and the lock at which its threads queue.

All users of a conversation share one `LocalState`, so threads of a process do not conflict with each other, nor with a
cancelled call that is still writing.
"""

from __future__ import annotations

import os
import threading
from weakref import WeakValueDictionary

from chathistory.log.recent_entries import RecentEntries
from chathistory.log.state import ConversationHead
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key

__all__ = ["LocalState", "get_local_state"]


class LocalState:
    """What this process knows of one conversation, and the lock for it.

    Attributes:
        is_known: Whether `head` was looked up.
        head: The newest head that this process knows; None: the conversation does not exist.
        has_unread: Whether other processes wrote messages below `head` that were not read here. It becomes true when a
            side entry is appended after them.
        recent: The keys and response ids of the newest entries; None until they are needed. Appends of this process
            keep it up to date.
        last_read: The last head that was read, with its state.
    """

    def __init__(self, store: HistoryStore) -> None:
        self.store = store  # a reference, so that no other store gets its `id`, by which the table below finds it
        self.lock = threading.RLock()
        self.is_known = False
        self.has_unread = False
        self.head: Head | None = None
        self.recent: RecentEntries | None = None
        self.last_read: ConversationHead | None = None

    def remember(self, head: Head | None, *, has_unread: bool = False) -> Head | None:
        """Take a head as the newest that is known, and return it.

        Args:
            head: The head; None: the conversation does not exist.
            has_unread: Whether there are messages below it that were not read here.
        """
        self.head, self.is_known, self.has_unread = head, True, has_unread
        return head


_local_states: WeakValueDictionary[tuple[int, Key], LocalState] = WeakValueDictionary()
"""By the `id` of the store, which need not be hashable, and by key. A state lives as long as a log that uses it."""
_local_states_lock = threading.Lock()


def _renew_lock() -> None:
    """Replace the lock in a forked child, where the thread that held it does not exist."""
    global _local_states_lock  # noqa: PLW0603 - there is one for the process
    _local_states_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_renew_lock)


def get_local_state(store: HistoryStore, key: Key) -> LocalState:
    """Return what this process knows of a conversation.

    Args:
        store: The store that has the conversation.
        key: The conversation.

    Returns:
        The same object as long as somebody uses it; a new one knows nothing.
    """
    with _local_states_lock:
        local_state = _local_states.get((id(store), key))
        if local_state is None:
            local_state = _local_states[id(store), key] = LocalState(store)
        return local_state
