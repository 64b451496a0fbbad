"""The answers of the fake: a message, a failure, or a message with a broken stream.

    Reply       a message                        Cut         the stream ends early, and cleanly
    Failure     an error of the API              Drop        the connection closes in the middle
    Raw         any HTTP answer                  Reset       the connection is reset
    Paused      a message that waits for a test  ErrorEvent  an `error` event in the middle

A `str` stands for a `Reply` of that text, a list of content blocks for a `Reply` of those blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = [
    "Answer",
    "Block",
    "Cut",
    "Drop",
    "ErrorEvent",
    "Failure",
    "Paused",
    "Raw",
    "Reply",
    "Reset",
    "as_answer",
    "as_reply",
    "is_content",
]

Block: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A message of the assistant.

    Args:
        content: Text, or content blocks. A tool call without an `id` gets one; thinking without a signature is signed.
        stop_reason: None: "tool_use" if there is a `tool_use` block, otherwise "end_turn".
        stop_sequence: The stop sequence that ended the reply.
        usage: Replaces single counts of the usage that the fake computes.
        model: None: the model of the request.
        extra: Further fields of the message, such as `container` or `stop_details`.
    """

    content: str | Sequence[Block] = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the API, such as `Failure(429, headers={"retry-after": "1"})`.

    Args:
        status: HTTP status.
        type: `error.type`; None: the one that belongs to the status.
        message: `error.message`.
        headers: Headers of the answer.
        code: `error.details.error_code`, or None.
        details: Further fields of `error.details`.
    """

    status: int
    type: str | None = None
    message: str = "[fake] failure set by the test"
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raw:
    """Any HTTP answer, such as a page of a proxy. The defaults are an HTML page with status 200.

    Args:
        body: The body.
        status: HTTP status.
        content_type: The `content-type` header.
    """

    body: str = "<html>a proxy's page</html>"
    status: int = 200
    content_type: str = "text/html"


@dataclass(frozen=True, slots=True)
class Cut:
    """A stream that ends cleanly after some events, without an error.

    If the request does not stream, the connection is closed without an answer.

    Args:
        reply: The message.
        after: How many events are sent.
    """

    reply: Message
    after: int


@dataclass(frozen=True, slots=True)
class Drop:
    """A connection that is closed in the middle of the stream; without streaming, before the answer.

    Args:
        reply: The message.
        after: How many events are sent.
    """

    reply: Message
    after: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A connection that is reset in the middle of the stream; without streaming, before the answer.

    Args:
        reply: The message.
        after: How many events are sent.
    """

    reply: Message
    after: int


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """An `error` event in the middle of the stream; without streaming, the error is the answer.

    Args:
        reply: The message.
        after: How many events are sent before the error.
        type: `error.type`.
        message: `error.message`.
    """

    reply: Message
    after: int
    type: str = "overloaded_error"
    message: str = "Overloaded"


@dataclass(frozen=True, slots=True)
class Paused:
    """An answer that pauses until the test sets `gate`, so that a test can look at a reply in progress.

    Without streaming, it pauses before the answer.

    Args:
        reply: The message, or any other answer.
        after: How many events are sent before the pause.
        gate: The test sets it to continue.
        reached: Set when the pause begins.
    """

    reply: Message | Answer
    after: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)


Message: TypeAlias = "str | Sequence[Block] | Reply"
Answer: TypeAlias = "Reply | Failure | Raw | Cut | Drop | Reset | ErrorEvent | Paused"
_NAMES = "Reply, Failure, Raw, Paused, Cut, Drop, Reset, ErrorEvent"


def as_answer(given: object) -> Answer:
    """Return an answer for what a test gave.

    Args:
        given: Text, a list of content blocks, or an answer.

    Returns:
        The answer.

    Raises:
        TypeError: It is not an answer, or contains something else than a message.
    """
    if isinstance(given, str):
        return Reply(content=given)
    if is_content(given):
        return Reply(content=given)  # type: ignore[arg-type]
    if isinstance(given, Paused):
        as_answer(given.reply)
    elif isinstance(given, Cut | Drop | Reset | ErrorEvent):
        as_reply(given.reply)
    elif not isinstance(given, Reply | Failure | Raw):
        raise TypeError(
            f"a reply must be a str, a list of content blocks, or one of {_NAMES}; got {type(given).__name__}"
        )
    return given


def as_reply(given: object) -> Reply:
    """Return the message within a `Cut`, `Paused` and so on.

    Args:
        given: Text, a list of content blocks, or a `Reply`.

    Returns:
        The message.

    Raises:
        TypeError: It is not a message.
    """
    answer = as_answer(given)
    if not isinstance(answer, Reply):
        raise TypeError(
            f"this answer needs a message: a str, a list of content blocks or a Reply; got {type(answer).__name__}"
        )
    return answer


def is_content(given: object) -> bool:
    """Return True for a list of content blocks (not empty, all items are mappings), and not of replies."""
    return isinstance(given, Sequence) and bool(given) and all(isinstance(item, Mapping) for item in given)
