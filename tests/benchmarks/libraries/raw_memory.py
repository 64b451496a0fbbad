"""The raw form of `memory:`: a deep copy of each message, in and out, in a dict of lists."""

from __future__ import annotations

import copy
import heapq
from typing import Any, ClassVar

from ..samples import Message, Turn
from .library_base import Subject

__all__ = ["RawMemory"]


class RawMemory(Subject):
    """A program that keeps lists, and lets nobody change what is in them."""

    name: ClassVar[str] = "raw"
    imports: ClassVar[str] = "import copy"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._chats: dict[str, list[Message]] = {}
        self._shelf: dict[str, int] = {}

    def append(self, name: str, turn: Turn) -> object:
        return self._chats.setdefault(name, []).extend(copy.deepcopy(turn))

    def tail(self, name: str) -> list[Any]:
        return copy.deepcopy(self._chats[name][-20:])

    def load(self, name: str) -> list[Any]:
        return copy.deepcopy(self._chats[name])

    def fill_shelf(self, count: int) -> None:
        self._shelf = {f"chat-{number}": number for number in range(count)}

    def recent(self, count: int) -> list[Any]:
        return heapq.nlargest(20, self._shelf.items(), key=lambda item: item[1])
