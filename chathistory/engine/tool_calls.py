"""Which tool calls of a stored reply have their results, and what a message with results would add to that."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chathistory.engine.reply import Reply
from chathistory.engine.stored_turns import MessageEntry, StoredMessages
from chathistory.errors import InvalidInput, TurnError, TurnMismatch
from chathistory.messages.content import Message, blocks_of
from chathistory.view.clean_message import clean_items
from chathistory.view.item import Notes, item_of

__all__ = ["CalledReply", "check_not_empty", "has_results"]


def has_results(message: Message) -> bool:
    """Return whether a message holds results of tools."""
    return any(block["type"] == "tool_result" for block in blocks_of(message))


def check_not_empty(entry: MessageEntry) -> None:
    """Refuse a user's message of which nothing could be sent: without content, or with blank text only.

    Raises:
        InvalidInput: Nothing of it can be sent.
    """
    if not list(clean_items([item_of(entry)], Notes())):
        raise InvalidInput(
            "message.content: must hold text that is not blank, or another content block; there is nothing to send"
        )


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
        return None if last is None else cls._around(stored, last)

    @classmethod
    def at(cls, stored: StoredMessages, position: int) -> CalledReply | None:
        """Return the assistant turn whose reply stands at `position`; None: no reply stands there."""
        for index, entry in enumerate(stored.messages):
            if position in (entry.position, entry.event.copy_of) and _is_from_claude(entry):
                return cls._around(stored, index)
        return None

    @classmethod
    def of_results(cls, stored: StoredMessages, results: Message) -> CalledReply | None:
        """Return the newest assistant turn with a call that one of the results names; None: there is none."""
        ids = {block["tool_use_id"] for block in blocks_of(results) if block["type"] == "tool_result"}
        for index, entry in reversed(list(enumerate(stored.messages))):
            blocks = blocks_of(entry.event.message) if _is_from_claude(entry) else []
            if any(block["type"] == "tool_use" and block["id"] in ids for block in blocks):
                return cls._around(stored, index)
        return None

    @classmethod
    def _around(cls, stored: StoredMessages, index: int) -> CalledReply:
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

    def asked(self, entry: MessageEntry) -> MessageEntry:
        """Return the stored message that is the same as this one; if none is, the last that holds results."""
        same = (each for each in self.answers if each.event.message == entry.event.message)
        return next(same, self.answers[-1])

    def without_stored(self, entry: MessageEntry) -> MessageEntry | None:
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
