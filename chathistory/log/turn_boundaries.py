"""Where turns begin and end: what a message is within its turn, and what is left open.

A turn begins with the user's own message. Claude's replies, and the results of the tools that they call, belong to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from chathistory.log.entry import Entry, is_message_entry
from chathistory.log.events import MessageAdded
from chathistory.messages.content import Message, blocks_of

__all__ = [
    "begins_view",
    "ends_turn",
    "find_last_spoken",
    "find_open_reply",
    "is_said_by_user",
    "list_reply_blocks",
    "opens_turn",
    "replaces_all_before",
]


def opens_turn(message: Message) -> bool:
    """Whether this is the user's own message: not a tool's result, which belongs to the turn before."""
    content = message["content"]
    if message["role"] != "user" or isinstance(content, str):
        return bool(message["role"] == "user")
    return all(block["type"] != "tool_result" for block in content)


def ends_turn(message: Message, stop_reason: str | None) -> bool:
    """Whether this is a reply that leaves neither a tool's call nor a pause open."""
    is_open = stop_reason == "pause_turn" or any(block["type"] == "tool_use" for block in blocks_of(message))
    return bool(message["role"] == "assistant") and not is_open


def begins_view(event: MessageAdded) -> bool:
    """Whether what is sent begins with this reply from now on; one that was refused is not sent itself."""
    return event.response.stop_reason != "refusal" and replaces_all_before(event.message)


def replaces_all_before(message: Message) -> bool:
    """Whether a reply has a compaction, so that what stands before it need not be sent; one without content failed.

    It has to be sent all the same if the reply has the result of a server's tool that was called before.
    """
    blocks = message["content"] if isinstance(message["content"], list) else []
    if not any(block["type"] == "compaction" and block.get("content") for block in blocks):
        return False
    called = {block.get("id") for block in blocks}
    return called.issuperset(block["tool_use_id"] for block in blocks if block["type"].endswith("_tool_result"))


def is_said_by_user(message: Message) -> bool:
    """Whether a message is the user's, results of tools included, and says something."""
    blocks = blocks_of(message)
    is_blank = all(block["type"] == "text" and not str(block.get("text") or "").strip() for block in blocks)
    return message["role"] == "user" and not is_blank


def list_reply_blocks(message: Message) -> list[dict[str, Any]]:
    """Return the blocks of a reply that say something; [] of all else."""
    if message["role"] != "assistant":
        return []
    return [block for block in blocks_of(message) if block["type"] != "text" or (block.get("text") or "").strip()]


def find_last_spoken(entries: Sequence[Entry]) -> Entry[MessageAdded] | None:
    """Return the last message that is the user's or Claude's; one of the system opens no turn, and ends none."""
    said = (entry for entry in reversed(entries) if is_message_entry(entry))
    return next((entry for entry in said if entry.event.message["role"] != "system"), None)


def find_open_reply(newest_first: Iterable[Entry]) -> Entry[MessageAdded] | None:
    """Return the last reply if it is left open: it called tools, and no reply came since, or it paused.

    When the conversation goes on, whatever is said then, the API wants the thinking of such a reply back as it was. A
    reply with nothing in it, as may come after results of tools, is not sent again and so closes nothing. Replies that
    follow one another are one turn for the API: a call in any of them is open. A refused reply is not sent, nor is its
    turn: what stands before that turn counts.
    """
    replies: list[Entry[MessageAdded]] = []
    for entry in _without_refused(newest_first):
        message = entry.event.message
        if list_reply_blocks(message):
            replies.append(entry)
        elif replies and is_said_by_user(message):
            break
    if replies and replies[0].event.response.stop_reason == "pause_turn":
        return replies[0]
    calling = (each for each in replies if any(b["type"] == "tool_use" for b in list_reply_blocks(each.event.message)))
    return next(calling, None)


def _without_refused(newest_first: Iterable[Entry]) -> Iterator[Entry[MessageAdded]]:
    """Yield the messages but for refused replies and what each of them answers, as the view leaves them out."""
    is_refused = False
    for entry in newest_first:
        if not is_message_entry(entry):
            continue
        event = entry.event
        if event.response.stop_reason == "refusal":
            is_refused = True
            continue
        if is_refused and not (ends_turn(event.message, event.response.stop_reason) or begins_view(event)):
            is_refused = not opens_turn(event.message)
            continue
        is_refused = False
        yield entry
