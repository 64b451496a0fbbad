"""A message while the view is built, and the notes on how the view changes messages."""

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
"""The position of a message that the view added, and that is not in the log."""


@dataclass(frozen=True, slots=True)
class ViewRepair:
    """One change that the view made.

    Attributes:
        position: The position of the message that was changed; -1: after the last message.
        description: What was changed, in words that quote nothing of the conversation.
    """

    position: int
    description: str


@dataclass(slots=True)
class Notes:
    """The changes that the view made to messages, each one once.

    Attributes:
        repairs: Changes after which the model reads something else than is stored.
        adjusted: Changes of the form only.
    """

    repairs: list[ViewRepair] = field(default_factory=list)
    adjusted: dict[ViewRepair, None] = field(default_factory=dict)

    def repair(self, position: int, description: str) -> None:
        """Note that something is left out, moved, replaced or added.

        Args:
            position: The position of the message.
            description: What was changed, in words that quote nothing of it.
        """
        self.repairs.append(ViewRepair(position, description))

    def adjust(self, position: int, description: str) -> None:
        """Note that something is sent in another form, which the API accepts.

        Args:
            position: The position of the message.
            description: What was changed, in words that quote nothing of it.
        """
        self.adjusted[ViewRepair(position, description)] = None


class Item(NamedTuple):
    """A message while the view is built.

    Attributes:
        position: Where it is stored.
        message: Role and content.
        stop_reason: Why the model stopped (replies only).
        usage: The usage that the API reported (replies only).
        surrogates: Whether its text may contain lone surrogates.
        received: Whether it came from the API, which accepts its own output.
        sent_ids: Ids of tool calls, or of the calls that results answer, where the id that is sent differs from the
            stored one; by the index of the block.
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
        """The role of the message."""
        role: str = self.message["role"]
        return role

    @property
    def is_reply(self) -> bool:
        """Whether the message is a reply of the model."""
        return bool(self.message["role"] == "assistant")

    @property
    def blocks(self) -> list[Block]:
        """The content blocks; plain text counts as one text block."""
        return blocks_of(self.message)

    def with_content(self, content: str | list[Block]) -> Item:
        """Return the item with other content; the same item if the content is the same object.

        Args:
            content: Text or content blocks.
        """
        if content is self.message.get("content"):
            return self
        return self._replace(message=self.message | {"content": content})


def item_from_entry(entry: Entry[MessageAdded]) -> Item:
    """Return the item of a message.

    Args:
        entry: The entry of the message.
    """
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
    """Return the item of the message that is sent in place of what a cut leaves out; None if there is no message.

    Args:
        entry: The cut.
    """
    event = entry.event
    if event.message is None:
        return None
    response = event.response if isinstance(event, CompactionByAPI) else NO_RESPONSE
    stop_reason, usage = response.stop_reason, response.usage
    return Item(entry.position, event.message, stop_reason, usage, entry.surrogates, response.is_whole)
