"""A message on its way from the log into the view, and the notes on what was done to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from chathistory.content import Message, blocks_of
from chathistory.log.entry import Entry

__all__ = ["ADDED", "Block", "Item", "Note", "item_of"]

Block: TypeAlias = dict[str, Any]

Note: TypeAlias = Callable[[int, str], None]
"""Called with a position and what was done there, in words that quote nothing."""

ADDED = -1
"""The position of a message that is in the view and not in the log."""


class Item(NamedTuple):
    """A message of the view: where it is stored, why the model stopped and what it used (replies only), and whether
    its text may hold lone surrogates.
    """

    position: int
    message: Message
    stop_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    surrogates: bool = False

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
    response = entry.data.get("response")
    if not response:
        return Item(entry.position, entry.message or {}, surrogates=entry.surrogates)
    return Item(
        entry.position, entry.message or {}, response.get("stop_reason"), response.get("usage"), entry.surrogates
    )
