"""Recorded requests, and the check that each one extends the one before it."""

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
    """A request to the fake, and its answer.

    Attributes:
        path: The path of the URL.
        headers: Headers by lower-case name, without keys and cookies.
        body: The body as JSON values, or None if it was not JSON.
        status: HTTP status of the answer; None until it is ready.
        rule: Name of the rule that refused the request, or None.
        request_id: The `request-id` header of the answer.
        reply: The message of the answer, complete even if the connection was broken; None for failures.
    """

    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: Any = field(repr=False)
    status: int | None = None
    rule: str | None = None
    request_id: str | None = None
    reply: dict[str, Any] | None = field(default=None, repr=False)


def without_keys(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers without those that hold credentials."""
    return {name: text for name, text in headers.items() if name not in _SECRET}


def assert_extends(requests: Iterable[Recorded]) -> None:
    """Assert that each answered request for a message extends the one before it.

    `system` and `tools` must be equal, and the messages of the one before must be the first of the next, character for
    character (the order of keys counts). Cache markers are ignored, and a string counts as one text block. Then neither
    the prompt cache nor the thinking is lost.

    A `compaction` block of an earlier reply counts as the messages that it stands for, so a conversation may be
    replaced by its summary, and by nothing else. Requests for a summary are not compared.

    Args:
        requests: The requests of one conversation, in order.

    Raises:
        AssertionError: A request differs; the message names the first path that does.
    """
    answered = [request for request in requests if request.path == MESSAGES and request.status == 200]  # noqa: PLR2004
    for number, (before, after) in enumerate(pairwise(_full_bodies(answered))):
        for path, one, other in _pairs_to_compare(before, after):
            assert _comparable_text(one) == _comparable_text(other), (
                f"answered request {number + 1} does not extend request {number}: {path}"
            )


def _full_bodies(requests: Iterable[Recorded]) -> Iterator[dict[str, Any]]:
    """Yield the bodies of requests for replies, with the messages that each summary stands for."""
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
    rest = first[1:] if first[0].get("signature") else first  # a block without a signature belongs to its reply
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
