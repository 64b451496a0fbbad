"""What was asked of the fake, and whether each request was the one before it and more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from chathistory.testing.fake_api.request import MESSAGES
from chathistory.testing.fake_api.token_usage import without_markers

__all__ = ["Recorded", "assert_extends"]

_SECRET = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request, and what became of it.

    headers: lower-case names, without keys. body: the JSON, None if it was none.
    status: None while the answer is being made. rule: the name of the rule that refused it, None if none did.
    reply: the message that was sent (or would have been, had the connection held), None for failures.
    """

    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)
    status: int | None = None
    rule: str | None = None
    request_id: str | None = None
    reply: dict[str, Any] | None = field(default=None, repr=False)


def without_keys(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers without those that hold a credential."""
    return {name: text for name, text in headers.items() if name not in _SECRET}


def assert_extends(requests: Iterable[Recorded]) -> None:
    """Assert that each request for a message that was answered is the one before it, and more.

    `system` and `tools` must be equal, and the messages of the one before must be the first of the next: character
    for character (the order of keys counts), once every `cache_control` is taken away and text alone is one text
    block. So neither the prompt cache nor the thinking is lost. `AssertionError` names the first path that differs.

    A `compaction` block that an earlier reply gave counts as the messages that it stands for, so that a conversation
    may be swapped for its summary, and for that alone. Requests for a summary are not compared.
    """
    answered = [request for request in requests if request.path == MESSAGES and request.status == 200]  # noqa: PLR2004
    for number, (before, after) in enumerate(pairwise(_full_bodies(answered))):
        for path, one, other in _pairs_to_compare(before, after):
            assert _comparable_text(one) == _comparable_text(other), (
                f"answered request {number + 1} does not extend request {number}: {path}"
            )


def _full_bodies(requests: Iterable[Recorded]) -> Iterator[dict[str, Any]]:
    """Yield the bodies of the requests for replies, each with all messages that a summary stands for."""
    meant: dict[str, list[Any]] = {}
    for request in requests:
        body = {**request.body, "messages": _expand_summary(request.body["messages"], meant)}
        for block in (request.reply or {}).get("content", ()):
            if block["type"] == "compaction":
                meant[_summary_key(block)] = body["messages"]
        if request.body.get("compaction") is None:
            yield body


def _expand_summary(messages: list[Any], meant: Mapping[str, list[Any]]) -> list[Any]:
    first = messages[0]["content"]
    if not isinstance(first, list) or first[0]["type"] != "compaction" or _summary_key(first[0]) not in meant:
        return messages
    rest = first[1:] if first[0].get("signature") else first  # one without came with the reply, and stays in it
    said = [{**messages[0], "content": rest}] if rest else []
    return [*meant[_summary_key(first[0])], *said, *messages[1:]]


def _summary_key(block: Mapping[str, Any]) -> str:
    return str(block.get("signature") or block.get("content"))


def _pairs_to_compare(before: dict[str, Any], after: dict[str, Any]) -> Iterable[tuple[str, Any, Any]]:
    for name in ("system", "tools"):
        yield name, before.get(name), after.get(name)
    for number, message in enumerate(before["messages"]):
        yield f"messages.{number}", message, (after["messages"][number : number + 1] or [None])[0]


def _comparable_text(value: Any) -> str:
    bare = without_markers(value)
    if isinstance(bare, dict) and isinstance(bare.get("content"), str):
        bare = {**bare, "content": [{"type": "text", "text": bare["content"]}]}
    if isinstance(bare, str):
        bare = [{"type": "text", "text": bare}]
    return json.dumps(bare)
