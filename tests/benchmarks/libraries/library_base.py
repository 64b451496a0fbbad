"""What everybody who is measured can be asked to do; small, so that another library is soon put beside ours.

A subject is made anew for each place (a folder, a server's URL), and opens what it needs when it is first asked. What a
library has no way to do raises `Unable`: the tables show that as a dash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ..samples import Turn, text_of

__all__ = ["Subject", "Unable"]


class Unable(Exception):
    """This library cannot do that."""


class Subject(ABC):
    """One way to keep conversations. `place` is what a `servers.Place` gives for its backend."""

    name: ClassVar[str]
    imports: ClassVar[str]  # the statement that a program begins with

    def __init__(self, place: str) -> None:
        self.place = place

    @abstractmethod
    def append(self, name: str, turn: Turn) -> object:
        """Store the two messages of a turn behind what is there; durable on return, as far as this way ever is."""

    @abstractmethod
    def tail(self, name: str) -> list[Any]:
        """Return the newest 20 messages, oldest first."""

    @abstractmethod
    def load(self, name: str) -> list[Any]:
        """Return all messages, oldest first."""

    def fill(self, name: str, turns: list[Turn]) -> None:
        """Store many turns in a new conversation, as fast as may be."""
        for turn in turns:
            self.append(name, turn)

    def append_shared(self, name: str, turn: Turn) -> object:
        """Append to a conversation to which other threads append as well."""
        return self.append(name, turn)

    def fill_shelf(self, count: int) -> None:
        """Make `count` conversations on a shelf of its own."""
        raise Unable

    def recent(self, count: int) -> list[Any]:
        """Return the 20 conversations of that shelf with the newest activity, newest first."""
        raise Unable

    def texts(self, name: str) -> list[str]:
        """Return the first text of each message."""
        return [text_of(message) for message in self.load(name)]

    def kept(self, given: Any) -> Any:
        """Store a message and return what a program that opens the conversation later finds in its place."""
        raise Unable

    def close(self) -> None:  # noqa: B027  # most have nothing to do
        """Let go of connections."""
