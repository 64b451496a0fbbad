"""What the stored entries say of turns.

What a turn asked, whether it has its reply, whether the API refused it; which tool calls of a reply have their results,
and what a message with results would add to that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chathistory.engine.reply import Reply
from chathistory.errors import InvalidInput, TurnError, TurnMismatch
from chathistory.log.active_path import ActiveEntries
from chathistory.log.entry import Entry, is_message_entry, messages_among
from chathistory.log.events import MessageAdded, TurnOpened, TurnRefused
from chathistory.log.places import Omission
from chathistory.log.turn_boundaries import find_open_reply, opens_turn
from chathistory.messages.content import Message, blocks_of
from chathistory.view.clean_message import count_thoughts
from chathistory.view.leave_out import find_omissions, is_whole

__all__ = [
    "CalledReply",
    "MessageEntry",
    "StoredMessages",
    "collect_turn",
    "find_question",
    "find_refused_turn",
    "is_final_reply",
    "is_thinking_required",
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
    question_positions = [event.question for event in opened]
    for entry in entries:
        if not is_message_entry(entry) or entry.event.message["role"] != "user":
            continue
        if entry.turn == turn_id or entry.position in question_positions:
            return entry
    return None


def collect_turn(question: MessageEntry, messages: Sequence[MessageEntry]) -> list[MessageEntry]:
    """Return a question and what belongs to its turn behind it; messages of the system are left out."""
    behind = [m for m in messages if m.position > question.position and m.event.message["role"] != "system"]
    return [question, *itertools.takewhile(lambda entry: not opens_turn(entry.event.message), behind)]


def find_refused_turn(active: ActiveEntries) -> str | None:
    """Return the id of the last turn, if the API refused what it sent and nothing was said since; else None."""
    for entry in reversed(active.entries):
        if isinstance(entry.event, TurnRefused):
            gone = find_omissions(active.entries)
            return entry.turn if any(place.position in gone for place in entry.event.places) else None
        if is_message_entry(entry):
            return None
    return None


def is_thinking_required(active: ActiveEntries) -> bool:
    """Whether the API wants thinking of the last reply back, for that is left open."""
    reply = find_open_reply(reversed(active.entries))
    return reply is not None and count_thoughts(reply.event.message) > 0


@dataclass(frozen=True, slots=True)
class CalledReply:
    """The replies of one assistant turn, and what is stored behind them.

    replies: The entries of the assistant turn; usually one, several if it paused.
    answers: The user's messages behind it, up to the next reply.
    following: All other messages behind it.
    refused_results: The ids of calls whose stored result the API refused, so that another one may be handed in.
    """

    replies: Sequence[MessageEntry]
    answers: Sequence[MessageEntry]
    following: Sequence[MessageEntry]
    refused_results: frozenset[str]

    @classmethod
    def last_in(cls, stored: StoredMessages) -> CalledReply | None:
        """Return the last assistant turn of a conversation's messages; None: there is no reply."""
        last = max((index for index, entry in enumerate(stored.messages) if _is_from_claude(entry)), default=None)
        return None if last is None else cls._collect_around(stored, last)

    @classmethod
    def at(cls, stored: StoredMessages, position: int) -> CalledReply | None:
        """Return the assistant turn whose reply stands at `position`; None: no reply stands there."""
        for index, entry in enumerate(stored.messages):
            if position in (entry.position, entry.event.copy_of) and _is_from_claude(entry):
                return cls._collect_around(stored, index)
        return None

    @classmethod
    def of_results(cls, stored: StoredMessages, results: Message) -> CalledReply | None:
        """Return the newest assistant turn with a call that one of the results names; None: there is none."""
        ids = {block["tool_use_id"] for block in blocks_of(results) if block["type"] == "tool_result"}
        for index, entry in reversed(list(enumerate(stored.messages))):
            blocks = blocks_of(entry.event.message) if _is_from_claude(entry) else []
            if any(block["type"] == "tool_use" and block["id"] in ids for block in blocks):
                return cls._collect_around(stored, index)
        return None

    @classmethod
    def _collect_around(cls, stored: StoredMessages, index: int) -> CalledReply:
        messages = stored.messages
        before = list(itertools.takewhile(_is_from_claude, reversed(messages[:index])))[::-1]
        behind = list(itertools.takewhile(_is_from_claude, messages[index:]))
        rest = [entry for entry in messages[index + len(behind) :] if entry.event.message["role"] != "system"]
        answers = list(itertools.takewhile(lambda entry: not _is_from_claude(entry), rest))
        refused = (
            block["tool_use_id"]
            for entry in answers
            for number, block in enumerate(blocks_of(entry.event.message))
            if block["type"] == "tool_result"
            and any(each.place.block == number for each in stored.omissions.get(entry.position, ()))
        )
        return cls([*before, *behind], answers, rest[len(answers) :], frozenset(refused))

    @property
    def calls(self) -> list[str]:
        """The ids of its tool calls, in order; none if the reply was refused, for it is not sent again."""
        last = self.replies[-1].event.response.stop_reason
        blocks = (block for entry in self.replies for block in blocks_of(entry.event.message))
        return [block["id"] for block in blocks if block["type"] == "tool_use" and last != "refusal"]

    @property
    def results(self) -> dict[str, Mapping[str, Any]]:
        """The stored results of its calls, by the ids of the calls."""
        blocks = (block for entry in self.answers for block in blocks_of(entry.event.message))
        return {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}

    @property
    def open_calls(self) -> list[str]:
        """The ids of the calls that await a result; half a call, as a reply that was cut may end with, does not."""
        if self.following or not self.calls:
            return []
        stored = self.results
        whole = [call["id"] for entry in self.replies for call in Reply.of(entry).tool_calls]
        return [id for id in whole if id not in stored]

    def find_stored_answer(self, entry: MessageEntry) -> MessageEntry:
        """Return the stored message that is the same as this one; if none is, the last that holds results."""
        same = (each for each in self.answers if each.event.message == entry.event.message)
        return next(same, self.answers[-1])

    def without_stored_results(self, entry: MessageEntry) -> MessageEntry | None:
        """Return a message without the results that are stored already; None: all of it is.

        Raises:
            InvalidInput: A result belongs to none of the calls, or comes twice.
            TurnMismatch: A call is answered already, with another result.
            TurnError: A result came too late: the conversation went on without it.
        """
        message = entry.event.message
        if any(each.event.message == message for each in self.answers):
            return None
        stored, calls, fresh = self.results, set(self.calls), list[dict[str, Any]]()
        said = (block for each in self.answers for block in blocks_of(each.event.message))
        went_on = bool(self.following) or any(block["type"] != "tool_result" for block in said)
        for index, block in enumerate(blocks_of(message)):
            if block["type"] != "tool_result":
                fresh.append(block)
                continue
            id, path = block["tool_use_id"], f"message.content[{index}].tool_use_id"
            if id not in calls or id in (each.get("tool_use_id") for each in fresh):
                raise InvalidInput(f"{path}: must name a tool call of the reply that it answers, each at most once")
            if id not in stored:
                if went_on:
                    raise TurnError(f"{path}: the conversation went on without this result; it can no longer be sent")
                fresh.append(block)
            elif stored[id] != block:
                if id not in self.refused_results:
                    raise TurnMismatch(f"{path}: this tool call has another result already")
                fresh.append(block)
        if len(fresh) == len(blocks_of(message)):
            return entry
        return replace(entry, event=replace(entry.event, message=message | {"content": fresh})) if fresh else None


def _is_from_claude(entry: MessageEntry) -> bool:
    return bool(entry.event.message["role"] == "assistant")
