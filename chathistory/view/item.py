"""A message on its way from the log into the view, and the notes on what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from chathistory.log.entry import Entry
from chathistory.messages.content import Message, blocks_of, is_received

__all__ = ["ADDED", "Block", "Item", "Notes", "ViewRepair", "item_of"]

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

    _repairs: list[ViewRepair] = field(default_factory=list)
    _adjusted: dict[ViewRepair, None] = field(default_factory=dict)

    @property
    def repairs(self) -> tuple[ViewRepair, ...]:
        return tuple(self._repairs)

    @property
    def adjusted(self) -> tuple[ViewRepair, ...]:
        return tuple(self._adjusted)

    def repair(self, position: int, what: str) -> None:
        """Note that something is left out, moved, replaced or added."""
        self._repairs.append(ViewRepair(position, what))

    def adjust(self, position: int, what: str) -> None:
        """Note that something has another form, in which the API takes it."""
        self._adjusted[ViewRepair(position, what)] = None


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
    def blocks(self) -> list[Block]:
        """The content blocks; plain text counts as one text block."""
        return blocks_of(self.message)

    def with_content(self, content: str | list[Block]) -> Item:
        if content is self.message.get("content"):
            return self
        return self._replace(message=self.message | {"content": content})


def item_of(entry: Entry) -> Item:
    """Return the item of an entry that carries a message."""
    data = entry.data
    if not data:
        return Item(entry.position, entry.message or {}, surrogates=entry.surrogates)
    response = data.get("response") or {}
    return Item(
        entry.position,
        entry.message or {},
        response.get("stop_reason"),
        response.get("usage"),
        entry.surrogates,
        is_received(data),
        data.get("sent_ids"),
    )
