"""Find turns among stored entries: their question, their reply, and the results of their tool calls.

This also says whether the API refused a turn, which tool calls still await a result, and what a message with results
adds to the stored ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chathistory.engine.reply import Reply
from chathistory.errors import InvalidInput, TurnError, TurnMismatch
from chathistory.log.active_path import ActiveEntries
from chathistory.log.entry import Entry, is_message_entry, select_messages
from chathistory.log.events import MessageAdded, TurnOpened, TurnRefusedByAPI
from chathistory.log.omissions import Omission
from chathistory.log.turn_boundaries import find_open_reply, opens_turn
from chathistory.messages.content import Message, blocks_of
from chathistory.view.clean_message import count_thinking_blocks
from chathistory.view.leave_out import find_omissions, omits_whole_message

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
    """The messages of a conversation in order.

    Attributes:
        messages: The entries of the messages.
        omissions: What is left out of a message when it is sent, by its position.
    """

    messages: Sequence[MessageEntry]
    omissions: Mapping[int, Sequence[Omission]]

    @classmethod
    def among(cls, entries: Iterable[Entry]) -> StoredMessages:
        """Return the messages among entries.

        Args:
            entries: Entries in order.

        Returns:
            The messages.
        """
        entries = list(entries)
        return cls(select_messages(entries), find_omissions(entries))

    def is_refused(self, entry: MessageEntry) -> bool:
        """Whether a whole message is left out, because the API refused it or a caller left it out.

        Args:
            entry: One of the messages.
        """
        return omits_whole_message(self.omissions.get(entry.position, ()))

    @property
    def sendable(self) -> list[MessageEntry]:
        """The messages that are sent, at least in part."""
        return [entry for entry in self.messages if not self.is_refused(entry)]


def is_final_reply(entry: MessageEntry) -> bool:
    """Whether a message is a reply that ends its turn: it did not pause, and no tool is being run for it.

    Args:
        entry: A message.
    """
    event = entry.event
    is_paused = event.response.stop_reason == "pause_turn"
    return event.message["role"] == "assistant" and not is_paused and event.lease_until is None


def find_question(entries: Sequence[Entry], turn_id: str | None) -> MessageEntry | None:
    """Return the user's message that a turn sent first: its own, or a stored one that it was opened for.

    Args:
        entries: Entries in order.
        turn_id: The id of the turn.

    Returns:
        The message; None if it is not among the entries.
    """
    opened = [entry.event for entry in entries if entry.turn == turn_id and isinstance(entry.event, TurnOpened)]
    question_positions = [event.question_position for event in opened]
    for entry in entries:
        if not is_message_entry(entry) or entry.event.message["role"] != "user":
            continue
        if entry.turn == turn_id or entry.position in question_positions:
            return entry
    return None


def collect_turn(question: MessageEntry, messages: Sequence[MessageEntry]) -> list[MessageEntry]:
    """Return a question and the messages of its turn after it.

    Args:
        question: A message of the user.
        messages: Messages in order, which include those after the question.

    Returns:
        At least the question; system messages are left out.
    """
    later = [m for m in messages if m.position > question.position and m.event.message["role"] != "system"]
    return [question, *itertools.takewhile(lambda entry: not opens_turn(entry.event.message), later)]


def find_refused_turn(active: ActiveEntries) -> str | None:
    """Return the id of the last turn if the API refused it.

    Args:
        active: The active entries.

    Returns:
        None if the last turn was not refused, or a message was added after it.
    """
    for entry in reversed(active.entries):
        if isinstance(entry.event, TurnRefusedByAPI):
            omissions = find_omissions(active.entries)
            return entry.turn if any(place.position in omissions for place in entry.event.locations) else None
        if is_message_entry(entry):
            return None
    return None


def is_thinking_required(active: ActiveEntries) -> bool:
    """Whether the API requires the thinking of the last reply, because that has open tool calls.

    Source: "`thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified" (an error text
    of the API).

    Args:
        active: The active entries.
    """
    reply = find_open_reply(reversed(active.entries))
    return reply is not None and count_thinking_blocks(reply.event.message) > 0


@dataclass(frozen=True, slots=True)
class CalledReply:
    """The replies of one assistant turn, and the messages stored after them.

    Attributes:
        replies: The entries of the assistant turn; usually one, several if it paused.
        answers: The user's messages after it, up to the next reply.
        following: All messages after these.
        refused_results: The ids of calls with a stored result that the API refused, so another one may be submitted.
    """

    replies: Sequence[MessageEntry]
    answers: Sequence[MessageEntry]
    following: Sequence[MessageEntry]
    refused_results: frozenset[str]

    @classmethod
    def last_in(cls, stored: StoredMessages) -> CalledReply | None:
        """Return the last assistant turn.

        Args:
            stored: The messages of the conversation.

        Returns:
            The assistant turn; None if there is no reply.
        """
        last = max((index for index, entry in enumerate(stored.messages) if _is_from_claude(entry)), default=None)
        return None if last is None else cls._collect_around(stored, last)

    @classmethod
    def at(cls, stored: StoredMessages, position: int) -> CalledReply | None:
        """Return the assistant turn with the reply at a position.

        Args:
            stored: The messages of the conversation.
            position: The position of a reply, or the position of the reply that it is a copy of.

        Returns:
            The assistant turn; None if there is no reply at the position.
        """
        for index, entry in enumerate(stored.messages):
            if position in (entry.position, entry.event.copy_of) and _is_from_claude(entry):
                return cls._collect_around(stored, index)
        return None

    @classmethod
    def of_results(cls, stored: StoredMessages, results: Message) -> CalledReply | None:
        """Return the newest assistant turn with a tool call that one of the results names.

        Args:
            stored: The messages of the conversation.
            results: A message with `tool_result` blocks.

        Returns:
            The assistant turn; None if no reply has such a call.
        """
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
        own = list(itertools.takewhile(_is_from_claude, messages[index:]))
        rest = [entry for entry in messages[index + len(own) :] if entry.event.message["role"] != "system"]
        answers = list(itertools.takewhile(lambda entry: not _is_from_claude(entry), rest))
        refused = (
            block["tool_use_id"]
            for entry in answers
            for number, block in enumerate(blocks_of(entry.event.message))
            if block["type"] == "tool_result"
            and any(each.location.block == number for each in stored.omissions.get(entry.position, ()))
        )
        return cls([*before, *own], answers, rest[len(answers) :], frozenset(refused))

    @property
    def calls(self) -> list[str]:
        """The ids of its tool calls, in order; [] if its stop reason is "refusal", because it is not sent again."""
        last = self.replies[-1].event.response.stop_reason
        blocks = (block for entry in self.replies for block in blocks_of(entry.event.message))
        return [block["id"] for block in blocks if block["type"] == "tool_use" and last != "refusal"]

    @property
    def results(self) -> dict[str, Mapping[str, Any]]:
        """The stored results of its tool calls, by the id of the call."""
        blocks = (block for entry in self.answers for block in blocks_of(entry.event.message))
        return {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}

    @property
    def open_calls(self) -> list[str]:
        """The ids of the tool calls that await a result; an incomplete call at the end of a reply does not count."""
        if self.following or not self.calls:
            return []
        stored = self.results
        call_ids = [call["id"] for entry in self.replies for call in Reply.of(entry).tool_calls]
        return [id for id in call_ids if id not in stored]

    def find_stored_answer(self, entry: MessageEntry) -> MessageEntry:
        """Return the stored message that is the same as this one, or otherwise the last one with results.

        Args:
            entry: A message with results that are all stored already.

        Returns:
            One of `answers`.
        """
        same = (each for each in self.answers if each.event.message == entry.event.message)
        return next(same, self.answers[-1])

    def without_stored_results(self, entry: MessageEntry) -> MessageEntry | None:
        """Return a message without the results that are stored already.

        Args:
            entry: A message with results of the tool calls.

        Returns:
            The message; None if all of it is stored.

        Raises:
            InvalidInput: A result refers to no tool call of the reply, or two results refer to the same call.
            TurnMismatch: A call already has another result.
            TurnError: A result came too late: the conversation continued without it.
        """
        message = entry.event.message
        if any(each.event.message == message for each in self.answers):
            return None
        stored, calls, new_blocks = self.results, set(self.calls), list[dict[str, Any]]()
        answer_blocks = (block for each in self.answers for block in blocks_of(each.event.message))
        has_continued = bool(self.following) or any(block["type"] != "tool_result" for block in answer_blocks)
        for index, block in enumerate(blocks_of(message)):
            if block["type"] != "tool_result":
                new_blocks.append(block)
                continue
            id, path = block["tool_use_id"], f"message.content[{index}].tool_use_id"
            if id not in calls or id in (each.get("tool_use_id") for each in new_blocks):
                raise InvalidInput(
                    f"{path}: must name a tool call of the reply that it answers, each call at most once"
                )
            if id not in stored:
                if has_continued:
                    raise TurnError(
                        f"{path}: the conversation continued without this result, so it can no longer be sent"
                    )
                new_blocks.append(block)
            elif stored[id] != block:
                if id not in self.refused_results:
                    raise TurnMismatch(
                        f"{path}: this tool call already has another result; only the stored one can be sent"
                    )
                new_blocks.append(block)
        if len(new_blocks) == len(blocks_of(message)):
            return entry
        rest = replace(entry, event=replace(entry.event, message=message | {"content": new_blocks}))
        return rest if new_blocks else None


def _is_from_claude(entry: MessageEntry) -> bool:
    return bool(entry.event.message["role"] == "assistant")
