"""The API's rules for a list of messages, written a second time and independently of the view and the fake API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from chathistory.testing.fake_api.message_rules import CONTENT_RULES, TURN_RULES
from chathistory.testing.fake_api.models import Models
from chathistory.testing.fake_api.request import MESSAGES, ApiRequest, FakeSettings
from chathistory.testing.fake_api.request_rules import SHAPE_RULES

__all__ = ["is_complete", "list_fake_api_refusals", "list_problems"]

Message = dict[str, Any]


def _blocks_of(message: Message) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _merge_turns(messages: list[Message]) -> list[tuple[str, list[dict[str, Any]]]]:
    grouped = itertools.groupby(messages, key=lambda message: message["role"])
    return [(role, [block for message in run for block in _blocks_of(message)]) for role, run in grouped]


def list_problems(messages: list[Message]) -> list[str]:
    """Return what the API would refuse in these messages; [] if it would accept them, or the list is empty."""
    if not messages:
        return []
    return [
        *_check_shape(messages),
        *_check_tool_pairs(messages),
        *_check_system_messages(messages),
        *_check_server_tools(messages),
    ]


def _check_shape(messages: list[Message]) -> Iterator[str]:
    if messages[0]["role"] != "user":
        yield "the first message is not the user's"
    for number, message in enumerate(messages):
        if not message["content"]:
            yield f"{number}: empty content"
        for block in _blocks_of(message):
            inner = block["content"] if isinstance(block.get("content"), list) else []
            for each in (block, *inner):
                if each["type"] == "text" and not each["text"].strip():
                    yield f"{number}: blank text"
                if "cache_control" in each:
                    yield f"{number}: a cache marker"
            if block["type"] == "document" and message["role"] == "assistant":
                yield f"{number}: a document of the assistant"


def _check_tool_pairs(messages: list[Message]) -> Iterator[str]:
    turns = [("none", []), *_merge_turns(messages), ("none", [])]
    for (role, blocks), (following, answers) in itertools.pairwise(turns):
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"] if role == "assistant" else []
        results = [block["tool_use_id"] for block in answers if block["type"] == "tool_result"]
        leading = [block["type"] for block in answers[: len(calls)]]
        if sorted(calls) != sorted(results) or leading != ["tool_result"] * len(calls):
            yield f"calls {calls} of {role} are answered by {results} of {following}, which begins {leading}"


def _check_system_messages(messages: list[Message]) -> Iterator[str]:
    turns = _merge_turns(messages)
    for number, (role, _) in enumerate(turns):
        if role != "system":
            continue
        before, blocks = turns[number - 1] if number else ("none", [])
        after = turns[number + 1][0] if number + 1 < len(turns) else "assistant"
        by_server = before == "assistant" and blocks[-1]["type"].endswith("_tool_result")
        if not (before == "user" or by_server) or after != "assistant":
            yield f"a system message between {before} and {after}"


def _check_server_tools(messages: list[Message]) -> Iterator[str]:
    """Yield results of server tools without a call before them, and calls without a result in closed turns."""
    open_calls: set[str] = set()
    called: set[str] = set()
    for role, blocks in _merge_turns(messages):
        if role == "user" and any(block["type"] != "tool_result" for block in blocks):
            if open_calls:
                yield f"server calls {open_calls} have no result"
            open_calls, called = set(), set()
        for block in blocks if role == "assistant" else ():
            if block["type"] == "server_tool_use":
                open_calls.add(block["id"])
                called.add(block["id"])
            elif block["type"].endswith("_tool_result"):
                if block["tool_use_id"] not in called:
                    yield f"a server's result without its call: {block['tool_use_id']}"
                open_calls.discard(block["tool_use_id"])


def is_complete(messages: list[Message]) -> bool:
    """Whether the last turn is the assistant's, has content, and has no call without a result."""
    if not messages or messages[-1]["role"] != "assistant":
        return False
    turn = list(itertools.takewhile(lambda message: message["role"] == "assistant", reversed(messages)))
    blocks = [block for message in turn for block in _blocks_of(message)]
    results = {block.get("tool_use_id") for block in blocks}
    waiting = [
        b for b in blocks if b["type"] == "tool_use" or (b["type"] == "server_tool_use" and b["id"] not in results)
    ]
    return not waiting and any(b["type"] != "text" or b["text"].strip() for b in _blocks_of(messages[-1]))


def list_fake_api_refusals(messages: list[Message]) -> list[str]:
    """Return the names of the fake API's rules that the messages break, except those on the end of a request."""
    setting = FakeSettings(Models.of(()), strict_first_role=True, thinking=None)
    body = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": messages}
    request = ApiRequest(MESSAGES, {"anthropic-version": "2026-10-21"}, b"", setting, body)
    rules = [rule for rule in (*SHAPE_RULES, *CONTENT_RULES, *TURN_RULES) if not rule.name.startswith("prefill")]
    return [rule.name for rule in rules if any(True for _ in rule.check(request))]
