"""What the stored entries say of turns: what a turn asked, whether it has its reply, whether the API refused it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from chathistory.log.active_path import ActiveEntries
from chathistory.log.entry import Entry, is_message_entry, messages_among
from chathistory.log.events import MessageAdded, TurnOpened, TurnRefused
from chathistory.log.omissions import find_omissions, is_whole
from chathistory.log.places import Omission
from chathistory.log.turn_boundaries import find_open_reply, opens_turn
from chathistory.view.clean_message import count_thoughts

__all__ = [
    "StoredMessages",
    "find_question",
    "find_refused_turn",
    "is_final_reply",
    "is_thinking_wanted",
    "take_turn",
]

MessageEntry = Entry[MessageAdded]


@dataclass(frozen=True, slots=True)
class StoredMessages:
    """The messages of a conversation in order, and what is not sent of them, by position."""

    messages: Sequence[MessageEntry]
    omissions: Mapping[int, Sequence[Omission]]

    @classmethod
    def among(cls, entries: Iterable[Entry]) -> StoredMessages:
        """Return the messages among some entries."""
        entries = list(entries)
        return cls(messages_among(entries), find_omissions(entries))

    def is_refused(self, entry: MessageEntry) -> bool:
        """Whether nothing is sent of a message, for the API refused it or somebody left it out."""
        return is_whole(self.omissions.get(entry.position, ()))

    @property
    def sendable(self) -> list[MessageEntry]:
        """The messages of which something is sent."""
        return [entry for entry in self.messages if not self.is_refused(entry)]


def is_final_reply(entry: MessageEntry) -> bool:
    """Whether this is a reply that ends its turn: it is not paused, and no tool is being run for it."""
    event = entry.event
    is_paused = event.response.stop_reason == "pause_turn"
    return event.message["role"] == "assistant" and not is_paused and event.lease_until is None


def find_question(entries: Sequence[Entry], turn_id: str | None) -> MessageEntry | None:
    """Return the user's message that a turn sent first: its own, or the stored one that it was opened for."""
    opened = [entry.event for entry in entries if entry.turn == turn_id and isinstance(entry.event, TurnOpened)]
    asked = [event.question for event in opened]
    for entry in entries:
        if not is_message_entry(entry) or entry.event.message["role"] != "user":
            continue
        if entry.turn == turn_id or entry.position in asked:
            return entry
    return None


def take_turn(question: MessageEntry, messages: Sequence[MessageEntry]) -> list[MessageEntry]:
    """Return a question and what belongs to its turn behind it; messages of the system are left out."""
    behind = [m for m in messages if m.position > question.position and m.event.message["role"] != "system"]
    return [question, *itertools.takewhile(lambda entry: not opens_turn(entry.event.message), behind)]


def find_refused_turn(sent: ActiveEntries) -> str | None:
    """Return the id of the last turn, if the API refused what it sent and nothing was said since; else None."""
    for entry in reversed(sent.entries):
        if isinstance(entry.event, TurnRefused):
            gone = find_omissions(sent.entries)
            return entry.turn if any(place.position in gone for place in entry.event.places) else None
        if is_message_entry(entry):
            return None
    return None


def is_thinking_wanted(sent: ActiveEntries) -> bool:
    """Whether the API wants thinking of the last reply back, for that is left open."""
    reply = find_open_reply(reversed(sent.entries))
    return reply is not None and count_thoughts(reply.event.message) > 0
