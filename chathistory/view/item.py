"""A message on its way from the log into the view, and the notes on what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from chathistory.log.entry import Entry
from chathistory.log.events import CompactionByAPI, Cut, MessageAdded
from chathistory.log.field_types import NO_RESPONSE
from chathistory.messages.content import Message, blocks_of

__all__ = ["ADDED", "Block", "Item", "Notes", "ViewRepair", "item_from_cut", "item_from_entry"]

Block: TypeAlias = dict[str, Any]

ADDED = -1
"""The position of a message that is in the view and not in the log."""


@dataclass(frozen=True, slots=True)
class ViewRepair:
    """One thing that the view did about what is stored at `position` (-1: at the end), in words that quote nothing."""

    position: int
    what: str


@dataclass(slots=True)
class Notes:
    """What was done to the messages of a view, each thing once.

    repairs: what the model reads is not what is stored. adjusted: it is; only its form differs.
    """

    repairs: list[ViewRepair] = field(default_factory=list)
    adjusted: dict[ViewRepair, None] = field(default_factory=dict)

    def repair(self, position: int, what: str) -> None:
        """Note that something is left out, moved, replaced or added."""
        self.repairs.append(ViewRepair(position, what))

    def adjust(self, position: int, what: str) -> None:
        """Note that something has another form, in which the API takes it."""
        self.adjusted[ViewRepair(position, what)] = None


class Item(NamedTuple):
    """A message of the view.

    position: where it is stored. stop_reason, usage: why the model stopped and what it used (replies only). surrogates:
    its text may hold lone surrogates. received: it came from the API, which takes back what it gave. sent_ids: of one
    that was stored as it is sent, the ids under which tool calls, or those of results, are sent, by index of the block.
    """

    position: int
    message: Message
    stop_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    surrogates: bool = False
    received: bool = False
    sent_ids: Mapping[str, str] | None = None

    @property
    def role(self) -> str:
        role: str = self.message["role"]
        return role

    @property
    def is_reply(self) -> bool:
        return bool(self.message["role"] == "assistant")

    @property
    def blocks(self) -> list[Block]:
        """The content blocks; plain text counts as one text block."""
        return blocks_of(self.message)

    def with_content(self, content: str | list[Block]) -> Item:
        if content is self.message.get("content"):
            return self
        return self._replace(message=self.message | {"content": content})


def item_from_entry(entry: Entry[MessageAdded]) -> Item:
    """Return the item of a message."""
    event, response = entry.event, entry.event.response
    if response is NO_RESPONSE:
        sent_ids = event.sent_ids or None
        return Item(entry.position, event.message, None, None, entry.surrogates, event.received, sent_ids)
    return Item(
        entry.position,
        event.message,
        response.stop_reason,
        response.usage,
        entry.surrogates,
        response.is_whole,
        event.sent_ids or None,
    )


def item_from_cut(entry: Entry[Cut | CompactionByAPI]) -> Item | None:
    """Return the item of the message that a cut puts before what is sent; None: it puts none there."""
    event = entry.event
    if event.message is None:
        return None
    response = event.response if isinstance(event, CompactionByAPI) else NO_RESPONSE
    told = response.stop_reason, response.usage
    return Item(entry.position, event.message, *told, entry.surrogates, response.is_whole)
