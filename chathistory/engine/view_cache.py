"""A cache of the conversations that an engine used last, so a turn need not read them again.

A cached view is used only if the head that this process saw last has the same version, and the append that opens the
turn is guarded by that version. So the cache saves reads, and can never be wrong about what is stored.

A view has the active entries, of every kind, and the messages that are sent for them. Up to a reply that leaves nothing
open, the messages are *settled*: later entries do not change them, so only the messages after them are built again.
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
from chathistory.log.entry import Entry, is_message_entry, select_messages
from chathistory.log.state import ConversationHead, ViewState
from chathistory.log.turn_boundaries import ends_turn, find_last_spoken
from chathistory.messages.content import Message, blocks_of
from chathistory.storage.values import Key
from chathistory.view import build_active_view
from chathistory.view.leave_out import has_omissions

__all__ = ["SentView", "ViewCache"]

MAX_CONVERSATIONS = 32
"""How many conversations one engine caches; the one that was used longest ago is dropped first."""


@dataclass(frozen=True, slots=True)
class SentView:
    """The active entries of a conversation, and the messages that are sent for them.

    Attributes:
        active: The entries.
        messages: The messages.
        settled_entries: The number of entries, from the first, that later entries do not affect.
        settled_messages: The number of messages of these entries.
    """

    active: ActiveEntries
    messages: list[Message] = field(repr=False)
    settled_entries: int = 0
    settled_messages: int = 0

    @property
    def head(self) -> ConversationHead:
        """The head of the conversation that the entries were loaded with."""
        return self.active.head

    @property
    def is_sendable(self) -> bool:
        """Whether a request may have these messages.

        It must have messages, and must not end with a finished reply: the API refuses that, or lets the model continue
        its own reply. A reply that paused may be the last message, because the next request continues it.
        """
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return bool(self.messages)
        last = find_last_spoken(self.active.entries)
        return last is not None and last.event.response.stop_reason == "pause_turn"

    @classmethod
    def of(cls, active: ActiveEntries) -> SentView:
        """Return the view of active entries.

        Args:
            active: The entries.

        Returns:
            The view.
        """
        return _mark_settled(cls(active, build_active_view(active).messages))

    def with_stored(self, head: ConversationHead, stored: Sequence[Entry]) -> SentView:
        """Return the view with the entries that were stored after it.

        Args:
            head: The head of the conversation after them.
            stored: All entries that were stored after the view's head.

        Returns:
            A new view.
        """
        active = self.active.with_appended(head, stored)
        settled, rest = self.messages[: self.settled_messages], active.entries[self.settled_entries :]
        if (
            not settled
            or _sending_rules(active.state.view) != _sending_rules(self.active.state.view)
            or any(map(has_omissions, rest))
            or ((ids := _list_ids(entry.event.message for entry in select_messages(rest))) and ids & _list_ids(settled))
        ):
            return SentView.of(active)  # the new entries may change how settled messages are sent
        messages = [*settled, *build_active_view(replace(active, entries=rest, cut=None)).messages]
        return _mark_settled(replace(self, active=active, messages=messages))


def _mark_settled(view: SentView) -> SentView:
    """Return a view with all messages settled, if it ends with a reply that leaves nothing open."""
    entries, messages = view.active.entries, view.messages
    last = entries[-1] if entries else None
    if last is None or not is_message_entry(last) or last.event.response.stop_reason in (None, "refusal"):
        return view
    new_messages = messages[view.settled_messages :]
    replies = list(itertools.takewhile(lambda message: message["role"] == "assistant", reversed(new_messages)))
    # a reply that is not sent, or that continues a paused one, may leave something open
    if len(replies) != 1 or not ends_turn(last.event.message, last.event.response.stop_reason):
        return view
    blocks = [block for message in new_messages for block in blocks_of(message)]
    called = {block["id"] for block in blocks if block["type"] in ("server_tool_use", "mcp_tool_use")}
    if not called.issubset(answered for block in blocks if isinstance(answered := block.get("tool_use_id"), str)):
        return view
    return replace(view, settled_entries=len(entries), settled_messages=len(messages))


def _sending_rules(view: ViewState) -> tuple[Any, ...]:
    """Return the parts of the state that decide how entries are sent."""
    return (view.path_position, view.view_start, view.cut_position, view.thinking_valid_from, view.renamed_calls)


def _list_ids(messages: Iterable[Message]) -> set[str]:
    blocks = (block for message in messages for block in blocks_of(message))
    return {id for block in blocks if isinstance(id := block.get("id"), str)}


class ViewCache:
    """The views of the conversations that one engine used last, at most `MAX_CONVERSATIONS`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._views: OrderedDict[Key, tuple[ConversationLog, SentView]] = OrderedDict()

    def find(self, log: ConversationLog) -> SentView | None:
        """Return the cached view of a conversation.

        Args:
            log: The log of the conversation.

        Returns:
            The view; None if it is not cached, or this process saw a newer version.
        """
        with self._lock:
            cached = self._views.get(log.key)
        if cached is None:
            return None
        head = log.last_head
        view = cached[1]
        return view if head and head.revision.version == view.head.version else None

    def remember(self, log: ConversationLog, view: SentView | None) -> None:
        """Store a view in the cache as the most recent one, or remove it.

        Args:
            log: The log of the conversation. It is kept with the view, because it has the head that this process saw.
            view: The view; None removes the conversation from the cache.
        """
        with self._lock:
            self._views.pop(log.key, None)
            if view is not None:
                self._views[log.key] = log, view
            if len(self._views) > MAX_CONVERSATIONS:
                self._views.popitem(last=False)
