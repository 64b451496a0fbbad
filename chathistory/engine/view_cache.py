"""What an engine remembers of the conversations that it held last, so that a turn need not read them again.

What is remembered counts only as long as nobody has written since: the head that this process has seen has the same
version, and the append that opens the turn is guarded by it. So it saves reading, and can never be wrong about what is
stored.

Remembered are the active entries, of every kind, and the messages that they are sent as. Behind a reply that leaves
nothing open the messages are *settled*: nothing that is said later changes them, so only what follows is made anew.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chathistory.log.active_path import ActiveEntries
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_message_entry, messages_among
from chathistory.log.state import ConversationHead, ViewState
from chathistory.log.turn_boundaries import ends_turn, find_last_said
from chathistory.messages.content import Message, blocks_of
from chathistory.storage.values import Key
from chathistory.view import view_of
from chathistory.view.leave_out import has_omissions

__all__ = ["SentView", "ViewCache"]

MAX_CONVERSATIONS = 32


@dataclass(frozen=True, slots=True)
class SentView:
    """What a conversation sends: its active entries, and their messages.

    Attributes:
        active: The entries.
        messages: What is sent of them.
        settled_entries: How many of the first entries no later one changes.
        settled_messages: How many of the messages these are.
    """

    active: ActiveEntries
    messages: list[Message] = field(repr=False)
    settled_entries: int = 0
    settled_messages: int = 0

    @property
    def head(self) -> ConversationHead:
        """The head of that state."""
        return self.active.head

    @property
    def is_sendable(self) -> bool:
        """Whether a request may have these messages.

        Not if there are none, or if the last is a finished reply: the API refuses it, or has the model continue its own
        words, which are then paid for and stored. A reply that paused is continued.
        """
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return bool(self.messages)
        last = find_last_said(self.active.entries)
        return last is not None and last.event.response.stop_reason == "pause_turn"

    @classmethod
    def of(cls, active: ActiveEntries) -> SentView:
        """Return the view of active entries."""
        return _mark_settled(cls(active, view_of(active).messages))

    def with_stored(self, head: ConversationHead, stored: Sequence[Entry]) -> SentView:
        """Return it with what was stored since, up to `head`."""
        active = self.active.extended(head, stored)
        settled, rest = self.messages[: self.settled_messages], active.entries[self.settled_entries :]
        if (
            not settled
            or _sending_rules(active.state.view) != _sending_rules(self.active.state.view)
            or any(map(has_omissions, rest))
            or ((ids := _list_ids(entry.event.message for entry in messages_among(rest))) and ids & _list_ids(settled))
        ):
            return SentView.of(active)  # what is settled may not be sent in the same way with what was stored since
        messages = [*settled, *view_of(replace(active, entries=rest, cut=None)).messages]
        return _mark_settled(replace(self, active=active, messages=messages))


def _mark_settled(view: SentView) -> SentView:
    """Return a view with all of it settled, if it ends with a reply that leaves nothing open."""
    entries, messages = view.active.entries, view.messages
    last = entries[-1] if entries else None
    if last is None or not is_message_entry(last) or last.event.response.stop_reason in (None, "refusal"):
        return view
    fresh = messages[view.settled_messages :]
    replies = list(itertools.takewhile(lambda message: message["role"] == "assistant", reversed(fresh)))
    # a reply of which nothing is sent, or that goes on with one that paused, may leave something open
    if len(replies) != 1 or not ends_turn(last.event.message, last.event.response.stop_reason):
        return view
    blocks = [block for message in fresh for block in blocks_of(message)]
    called = {block["id"] for block in blocks if block["type"] in ("server_tool_use", "mcp_tool_use")}
    if not called.issubset(answered for block in blocks if isinstance(answered := block.get("tool_use_id"), str)):
        return view
    return replace(view, settled_entries=len(entries), settled_messages=len(messages))


def _sending_rules(view: ViewState) -> tuple[Any, ...]:
    """Return what decides how entries are sent, beside themselves."""
    return (view.path, view.view_start, view.cut_position, view.thinking_valid_from, view.renamed)


def _list_ids(messages: Iterable[Message]) -> set[str]:
    blocks = (block for message in messages for block in blocks_of(message))
    return {id for block in blocks if isinstance(id := block.get("id"), str)}


class ViewCache:
    """The views of one engine: of the conversations held last, and no more of them than `CONVERSATIONS`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._views: OrderedDict[Key, tuple[ConversationLog, SentView]] = OrderedDict()

    def find(self, log: ConversationLog) -> SentView | None:
        """Return the view of a conversation if this process knows of nothing newer."""
        with self._lock:
            found = self._views.get(log.key)
        if found is None:
            return None
        head = log.last
        view = found[1]
        return view if head and head.revision.version == view.head.version else None

    def remember(self, log: ConversationLog, view: SentView | None) -> None:
        """Remember a conversation as the latest one, or forget it; the log keeps what this process has seen of it."""
        with self._lock:
            self._views.pop(log.key, None)
            if view is not None:
                self._views[log.key] = log, view
            if len(self._views) > MAX_CONVERSATIONS:
                self._views.popitem(last=False)
