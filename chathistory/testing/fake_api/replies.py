"""What the fake can be told to answer: a message, a failure, or a message whose stream goes wrong.

    Reply       a message                        Cut         the stream ends early, and cleanly
    Failure     an error of the API              Drop        the connection closes in the middle
    Raw         any HTTP answer                  Reset       the connection is reset
    Held        a message that waits for you     ErrorEvent  an `error` event in the middle

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

    content: text, or content blocks; a tool call without an `id` gets one, thinking with an empty signature is signed.
    stop_reason: None: "tool_use" if there is a `tool_use` block, otherwise "end_turn".
    usage: replaces single counts of the usage that the fake computes.
    model: None: the one asked for.
    extra: more fields of the message, such as `container` or `stop_details`.
    """

    content: str | Sequence[Block] = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the API, e.g. `Failure(429, headers={"retry-after": "1"})`.

    type: `error.type`; None: the one that belongs to the status. code: `error.details.error_code`, if any. details:
    what else `error.details` has.
    """

    status: int
    type: str | None = None
    message: str = "[fake] as told"
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raw:
    """Any HTTP answer: what a proxy says in place of the API. With its defaults, a page with status 200."""

    body: str = "<html>a proxy's page</html>"
    status: int = 200
    content_type: str = "text/html"


@dataclass(frozen=True, slots=True)
class Cut:
    """The stream ends cleanly after `after` events: no error, only nothing more.

    A request that does not stream gets no answer at all: the connection is closed.
    """

    reply: Message
    after: int


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection is closed after `after` events, in the middle of the body; not streamed: before the answer."""

    reply: Message
    after: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset after `after` events; a request that does not stream gets the reset at once."""

    reply: Message
    after: int


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """An `error` event comes after `after` events; a request that does not stream gets the error as its answer."""

    reply: Message
    after: int
    type: str = "overloaded_error"
    message: str = "Overloaded"


@dataclass(frozen=True, slots=True)
class Paused:
    """The answer stops after `after` events until `gate` is set; `reached` is set when it stops there.

    So a test can look at a reply that is under way without waiting by the clock. Not streamed: before the answer.
    """

    reply: Message | Answer
    after: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)


Message: TypeAlias = "str | Sequence[Block] | Reply"
Answer: TypeAlias = "Reply | Failure | Raw | Cut | Drop | Reset | ErrorEvent | Paused"
_NAMES = "Reply, Failure, Raw, Paused, Cut, Drop, Reset, ErrorEvent"


def as_answer(told: object) -> Answer:
    """Return what was told as an answer; `TypeError` for what is none, or holds none."""
    if isinstance(told, str):
        return Reply(content=told)
    if is_content(told):
        return Reply(content=told)  # type: ignore[arg-type]
    if isinstance(told, Paused):
        as_answer(told.reply)
    elif isinstance(told, Cut | Drop | Reset | ErrorEvent):
        as_reply(told.reply)
    elif not isinstance(told, Reply | Failure | Raw):
        raise TypeError(f"a reply is text, content blocks, or one of {_NAMES}; not {type(told).__name__}")
    return told


def as_reply(told: object) -> Reply:
    """Return the message inside of a `Cut`, `Paused` and so on; `TypeError` for what is no message."""
    answer = as_answer(told)
    if not isinstance(answer, Reply):
        raise TypeError(f"a message belongs here, not {type(answer).__name__}")
    return answer


def is_content(told: object) -> bool:
    """Tell a list of content blocks from a list of replies: all of its items are mappings, and there is one."""
    return isinstance(told, Sequence) and bool(told) and all(isinstance(item, Mapping) for item in told)
