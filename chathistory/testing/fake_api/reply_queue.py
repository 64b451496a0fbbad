"""Which answer comes next: the one that is given for all requests, or one after the other, or the echo."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from chathistory.testing.fake_api.replies import Answer, Failure, Reply, as_answer, is_content

__all__ = ["ReplyQueue", "echo"]

_END = object()


class ReplyQueue:
    """The replies to come. Each request that is not refused takes one; safe in threads.

    None: the echo, for ever. A list or iterator of replies: one after the other, then a 500 that says so. Anything
    else: the same for ever. A function is called with the body of the request, outside of any lock.
    """

    def __init__(self, told: object) -> None:
        self._lock = threading.Lock()
        is_one = told is None or isinstance(told, str) or callable(told) or is_content(told)
        self._steps = iter(told) if not is_one and isinstance(told, Iterable) else None
        self._told = told

    def next(self, body: dict[str, Any]) -> Answer:
        """Return the answer to this request."""
        told: object = echo if self._told is None else self._told
        if self._steps is not None:
            with self._lock:
                told = next(self._steps, _END)
        if told is _END:
            return _script_failure("the replies of the script are used up")
        try:
            return as_answer(told(body) if callable(told) else told)
        except Exception as error:  # noqa: BLE001 - any failure of a test's function must reach its client
            return _script_failure(f"the reply could not be made: {type(error).__name__}: {error}")


def _script_failure(words: str) -> Failure:
    return Failure(500, message=f"[fake] {words}", headers={"x-should-retry": "false"})


def echo(body: dict[str, Any]) -> Reply:
    """Return a reply that is plainly not Claude's, and shows what of the conversation has arrived."""
    messages = body["messages"]
    said = next((words for message in reversed(messages) if (words := _user_text(message))), "nothing in words")
    return Reply(content=f"[fake reply, no model] You said: {said} (message {len(messages)} of this conversation)")


def _user_text(message: dict[str, Any]) -> str:
    content = message["content"]
    if message["role"] != "user" or isinstance(content, str):
        return content if message["role"] == "user" else ""
    return " ".join(block["text"] for block in content if block["type"] == "text")
