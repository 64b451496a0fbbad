"""Where turns begin and end, and which replies are still open.

A turn begins with a message that the user wrote. Claude's replies, and the results of the tools that they call, belong
to it.
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
    """Return True for a message that the user wrote. A tool result is not one: it belongs to the turn before it.

    Args:
        message: The message.
    """
    content = message["content"]
    if message["role"] != "user" or isinstance(content, str):
        return bool(message["role"] == "user")
    return all(block["type"] != "tool_result" for block in content)


def ends_turn(message: Message, stop_reason: str | None) -> bool:
    """Return True for a reply after which neither a tool call nor a pause is open.

    Args:
        message: The message.
        stop_reason: Its stop reason; None: unknown.
    """
    is_open = stop_reason == "pause_turn" or any(block["type"] == "tool_use" for block in blocks_of(message))
    return bool(message["role"] == "assistant") and not is_open


def begins_view(event: MessageAdded) -> bool:
    """Return True if the messages that are sent begin with this reply from now on. A refused reply is not sent itself.

    Args:
        event: The message.
    """
    return event.response.stop_reason != "refusal" and replaces_all_before(event.message)


def replaces_all_before(message: Message) -> bool:
    """Return True for a reply with a compaction block that has content: messages before it need not be sent.

    They must be sent if the reply has the result of a server tool that was called before. A compaction block without
    content is a failed one.

    Args:
        message: The message.
    """
    blocks = message["content"] if isinstance(message["content"], list) else []
    if not any(block["type"] == "compaction" and block.get("content") for block in blocks):
        return False
    called = {block.get("id") for block in blocks}
    return called.issuperset(block["tool_use_id"] for block in blocks if block["type"].endswith("_tool_result"))


def is_said_by_user(message: Message) -> bool:
    """Return True for a message of the user, or a tool result, that is not blank.

    Args:
        message: The message.
    """
    blocks = blocks_of(message)
    is_blank = all(block["type"] == "text" and not str(block.get("text") or "").strip() for block in blocks)
    return message["role"] == "user" and not is_blank


def list_reply_blocks(message: Message) -> list[dict[str, Any]]:
    """Return the blocks of a reply without blank text blocks; [] for another message.

    Args:
        message: The message.
    """
    if message["role"] != "assistant":
        return []
    return [block for block in blocks_of(message) if block["type"] != "text" or (block.get("text") or "").strip()]


def find_last_spoken(entries: Sequence[Entry]) -> Entry[MessageAdded] | None:
    """Return the last message of the user or of Claude; None if there are only others.

    A system message neither opens nor ends a turn, so it does not count.

    Args:
        entries: The entries, in order.
    """
    messages = (entry for entry in reversed(entries) if is_message_entry(entry))
    return next((entry for entry in messages if entry.event.message["role"] != "system"), None)


def find_open_reply(newest_first: Iterable[Entry]) -> Entry[MessageAdded] | None:
    """Return the last reply if it is open: it paused, or it called tools and no reply followed the results.

    With the next request, the API requires the thinking of such a reply as it was. Three rules follow from what the API
    sees:

    - An empty reply, which can follow tool results, is not sent again, so it closes nothing.
    - Consecutive replies are one turn, so a call in any of them is open.
    - A refused reply is not sent, and neither is its turn, so the messages before that turn count.

    Args:
        newest_first: The active entries, newest first.

    Returns:
        The open reply; None if no reply is open.
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
    """Yield the messages without refused replies and the turns that they answer, as the view leaves these out."""
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
