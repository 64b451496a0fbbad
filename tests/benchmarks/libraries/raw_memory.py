"""The raw form of `memory:`: a deep copy of each message, in and out, in a dict of lists."""

from __future__ import annotations

import copy
import heapq
from typing import Any, ClassVar

from ..samples import Message, Turn
from .library_base import MeasuredLibrary

__all__ = ["RawMemory"]


class RawMemory(MeasuredLibrary):
    """A program that keeps lists, protected from changes by their readers."""

    name: ClassVar[str] = "raw"
    imports: ClassVar[str] = "import copy"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._chats: dict[str, list[Message]] = {}
        self._activity: dict[str, int] = {}

    def append(self, name: str, turn: Turn) -> object:
        return self._chats.setdefault(name, []).extend(copy.deepcopy(turn))

    def tail(self, name: str) -> list[Any]:
        return copy.deepcopy(self._chats[name][-20:])

    def load(self, name: str) -> list[Any]:
        return copy.deepcopy(self._chats[name])

    def fill_conversations(self, count: int) -> None:
        self._activity = {f"chat-{number}": number for number in range(count)}

    def recent(self, count: int) -> list[Any]:
        return heapq.nlargest(20, self._activity.items(), key=lambda item: item[1])
