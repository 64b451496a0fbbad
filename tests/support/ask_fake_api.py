"""Asks the fake API whether it accepts a conversation: its view, and the next message."""

from __future__ import annotations

from dataclasses import replace

from entry_factory import make_entry

from chathistory import Conversation, Entry
from chathistory.log.active_path import load_active
from chathistory.testing.fake_api.context_rules import COMPACTION_RULES
from chathistory.testing.fake_api.message_rules import CONTENT_RULES, TURN_RULES
from chathistory.testing.fake_api.models import Models
from chathistory.testing.fake_api.request import MESSAGES, ApiRequest, FakeSettings
from chathistory.testing.fake_api.request_rules import SHAPE_RULES
from chathistory.view import build_active_view

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def user(content):
    return {"role": "user", "content": content}


def said(*blocks):
    return {"role": "assistant", "content": list(blocks)}


CALL_1 = said({"type": "tool_use", "id": "call_1", "name": "look", "input": {}})
BETAS = "mcp-client-2025-11-20,advisor-tool-2026-03-01,compact-2026-09-04,server-side-fallback-2026-07-01"


def find_refusal(messages: list[dict]) -> list[str]:
    """Return the error of the fake for a list of messages as a list of one text; empty if it accepts them."""
    body = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": messages}
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": BETAS}
    request = ApiRequest(
        MESSAGES, headers, b"", FakeSettings(Models.of(()), strict_first_role=True, thinking=None), body
    )
    for rule in (*SHAPE_RULES, *CONTENT_RULES, *COMPACTION_RULES, *TURN_RULES):
        if rule.name == "tool reference unknown":
            continue  # depends on the tools of the request
        for found in rule.check(request):
            return [rule.text.format(**found)]
    return []


def results(messages: list[dict]) -> list[dict]:
    """Return the tool results in messages."""
    blocks = [block for message in messages if isinstance(message["content"], list) for block in message["content"]]
    return [block for block in blocks if block["type"] == "tool_result"]


def add_next_message(entries: list[Entry]) -> list[Entry]:
    """Return the entries and a next user message."""
    return [
        *entries,
        make_entry("message", message=user("And now?"), position=entries[-1].position + 1 if entries else 0),
    ]


def next_view(chat: Conversation, **more: object) -> list[dict]:
    """Return the next request's messages: the view, with a user message if it does not end with the user's turn."""
    sent = load_active(chat.log)
    made = build_active_view(sent, **more)
    if sent is None:
        return [user("And now?")]
    if made.messages and made.messages[-1]["role"] == "user":
        return made.messages
    return build_active_view(replace(sent, entries=add_next_message(sent.entries)), **more).messages


def judge(chat: Conversation) -> list[str]:
    """Return the error of the fake for the next request of a conversation; see `find_refusal`."""
    chat.state()
    return find_refusal(next_view(chat))
