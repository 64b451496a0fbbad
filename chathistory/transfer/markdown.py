"""Writes conversations as Markdown, for people to read, print and mail; it cannot be imported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from chathistory.control_characters import neutralize
from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.log.active_path import iter_newest_first
from chathistory.log.clock import to_datetime
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry
from chathistory.log.state import ConversationHead, read_state
from chathistory.messages.content import blocks_of
from chathistory.operations.listing import ConversationInfo, describe
from chathistory.transfer.copy import CopyResult, report_absent
from chathistory.transfer.copy_sources import Selection, salvage_source

__all__ = ["render_conversation", "write_markdown"]

_AUTHORS = {"user": "User", "assistant": "Claude", "system": "System"}
_KIND_NOTES = {"reply_interrupted": ", interrupted", "reply_orphaned": ", came too late"}
_NOT_SENT = {
    "turn_refused": "The API refused the messages above: they are not sent again.",
    "content_omitted": "From here on, a part of the messages above is no longer sent.",
    "record_lost": "A record is missing here, because it could not be read.",
}
_SALVAGED = ("message", "reply_interrupted", "reply_orphaned", "record_lost")
_PORTION = 1000


def write_markdown(selection: Selection, out: IO[bytes], *, salvage: bool) -> Iterator[CopyResult]:
    """Write conversations as Markdown, and yield the result for each.

    Args:
        selection: The conversations.
        out: The file to write to.
        salvage: Of damaged conversations, write what can be read.

    Raises:
        OSError: The file cannot be written.
        StoreError: The store cannot be used; the problem of one conversation is part of its result.
    """
    is_first = True
    for key in selection.iter_keys():
        log, lost = ConversationLog(selection.store, key), 0
        try:
            head = log.refresh()
            # people also read the messages that a cut keeps from being sent
            entries = list(iter_newest_first(log, _PORTION))[::-1] if head else []
        except (CorruptRecord, UnsupportedRecord, Conflict) as error:
            source = None
            if salvage:
                with suppress(CorruptRecord, UnsupportedRecord, Conflict):
                    source = salvage_source(log)
            if source is None:
                yield CopyResult(key, "failed", error=error)
                continue
            head, lost = ConversationHead(source.head, read_state(source.head)), source.lost
            entries = [entry for entry in source.entries() if entry.kind in _SALVAGED]
        if head is not None:
            out.write(b"" if is_first else b"\n---\n\n")
            out.write("".join(render_conversation(describe(head), entries)).encode())
            is_first = False
            yield CopyResult(key, "copied", head.end - head.start, lost=lost)
        elif selection.is_named:
            yield report_absent(key)


def render_conversation(info: ConversationInfo, entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the Markdown of a conversation in pieces: a heading, a line of facts, and the messages.

    Thinking is left out; tool calls and their results are blocks of code.

    Args:
        info: The row of the conversation in a listing.
        entries: Its entries, in order.
    """
    yield f"# {_escape_line(info.title or info.id)}\n\n"
    facts = [f"Conversation {info.id}, scope {info.scope}", f"{info.messages} messages"]
    facts += [f"created {info.created:%Y-%m-%d}", *([f"tags: {', '.join(info.tags)}"] if info.tags else [])]
    yield f"{_escape_line('; '.join(facts))}\n"
    for entry in entries:
        if entry.message is None:
            yield f"\n*({_NOT_SENT[entry.kind]})*\n" if entry.kind in _NOT_SENT else ""
            continue
        author, time = _AUTHORS.get(str(entry.message["role"]), "?"), to_datetime(entry.time_us)
        heading = f"\n## {author}, {time:%Y-%m-%d %H:%M} UTC{_KIND_NOTES.get(entry.kind, '')}"
        yield "\n\n".join([heading, *filter(None, map(_render_block, blocks_of(entry.message)))]) + "\n"


def _escape_line(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(neutralize(text).split()))


def _render_block(block: Mapping[str, Any]) -> str:
    kind = str(block["type"])
    if kind == "text":
        return neutralize(str(block.get("text") or "")).strip()
    if kind in ("thinking", "redacted_thinking"):
        return ""
    if kind.endswith("tool_use"):
        return f"Calls **{_escape_line(str(block.get('name')))}**:\n\n{_render_code(block.get('input'))}"
    if kind.endswith("tool_result"):
        return f"{'Failed' if block.get('is_error') else 'Result'}:\n\n{_render_code(block.get('content'))}"
    return f"*({_escape_line(kind)})*"


def _render_code(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, dict) and "text" in part for part in value):
        value = "\n".join(str(part["text"]) for part in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{neutralize(text)}\n{fence}"
