"""The interface of a library that is measured; small, so that another library is quickly added.

An instance is made for each place (a folder or the URL of a server), and connects with its first call. What a library
cannot do raises `NotSupported`; the tables show a dash for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ..samples import Turn, text_of

__all__ = ["MeasuredLibrary", "NotSupported"]


class NotSupported(Exception):
    """The library cannot do this."""


class MeasuredLibrary(ABC):
    """One way to keep conversations. `place` is a URL from `servers.MeasuredPlace`."""

    name: ClassVar[str]
    imports: ClassVar[str]  # the import statement of a program

    def __init__(self, place: str) -> None:
        self.place = place

    @abstractmethod
    def append(self, name: str, turn: Turn) -> object:
        """Append the two messages of a turn; durable on return, as far as the library is."""

    @abstractmethod
    def tail(self, name: str) -> list[Any]:
        """Return the newest 20 messages, oldest first."""

    @abstractmethod
    def load(self, name: str) -> list[Any]:
        """Return all messages, oldest first."""

    def fill(self, name: str, turns: list[Turn]) -> None:
        """Store many turns in a new conversation, as fast as possible."""
        for turn in turns:
            self.append(name, turn)

    def append_shared(self, name: str, turn: Turn) -> object:
        """Append to a conversation to which other threads append as well."""
        return self.append(name, turn)

    def fill_conversations(self, count: int) -> None:
        """Create `count` conversations in a separate listing."""
        raise NotSupported

    def recent(self, count: int) -> list[Any]:
        """Return the 20 most recently used conversations of that listing, newest first."""
        raise NotSupported

    def texts(self, name: str) -> list[str]:
        """Return the first text of each message."""
        return [text_of(message) for message in self.load(name)]

    def kept(self, given: Any) -> Any:
        """Store a message, and return it as a program that opens the conversation later reads it."""
        raise NotSupported

    def close(self) -> None:  # noqa: B027  # optional
        """Close connections."""
