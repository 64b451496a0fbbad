"""What an engine remembers of the conversations that it held last, so that a turn need not read them again.

A memory counts only as long as nobody has written since: the head that this process has seen has the same version, and
the append that opens the turn is guarded by it. So it saves reading, and can never be wrong about what is stored.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, decode, encode
from chathistory.messages.content import Message
from chathistory.storage.store import Head, Key, Record
from chathistory.view.clean_message import cleaned
from chathistory.view.item import Notes, item_of

__all__ = ["CachedView", "ViewCache"]

CONVERSATIONS = 32
_SIMPLE = frozenset({"text", "thinking", "redacted_thinking"})
_ENDS = frozenset({"end_turn", "stop_sequence", "max_tokens"})


@dataclass(frozen=True, slots=True)
class CachedView:
    """A conversation after a reply that leaves nothing open: the version of its head, its view, its turns.

    journal: keeps this process's state of the conversation, and with it the head seen last.
    """

    log: ConversationLog = field(repr=False)
    version: str
    messages: list[Message] = field(repr=False)
    turns: frozenset[str] = field(repr=False)

    def after(self, head: Head, sent: list[Message], reply: Entry) -> CachedView | None:
        """Return the memory after `reply` to the messages that were sent; None: it leaves something open."""
        blocks = reply.message["content"] if reply.message else ""
        if isinstance(blocks, str) or not all(block["type"] in _SIMPLE for block in blocks):
            return None
        if sent[-1]["role"] == "assistant":  # it paused; what it left open may stay so, after an empty reply
            return None
        if reply.data.get("response", {}).get("stop_reason") not in _ENDS:
            return None
        stored = decode(Record(head.end - 1, encode(reply)), head.key)
        said = [item.message for item in cleaned([item_of(stored)], Notes())]
        if not said:  # nothing stands between this turn and the next: the view orders the two as one
            return None
        turns = self.turns | ({reply.turn} if reply.turn else set())
        return replace(self, version=head.revision.version, messages=[*sent, *said], turns=turns)


class ViewCache:
    """The memories of one engine: of the conversations held last, and no more of them than `CONVERSATIONS`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._memories: OrderedDict[Key, CachedView] = OrderedDict()

    def of(self, log: ConversationLog) -> CachedView | None:
        """Return the memory of a conversation if this process knows of nothing newer."""
        with self._lock:
            memory = self._memories.get(log.key)
        if memory is None:
            return None
        head = log.seen()
        return memory if head and head.revision.version == memory.version else None

    def keep(self, key: Key, memory: CachedView | None) -> None:
        """Remember a conversation as the latest one, or forget it."""
        with self._lock:
            self._memories.pop(key, None)
            if memory is not None:
                self._memories[key] = memory
            if len(self._memories) > CONVERSATIONS:
                self._memories.popitem(last=False)
