"""Chooses the next answer: the same for all requests, one of a list after the other, or the echo."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from chathistory.testing.fake_api.replies import Answer, Failure, Reply, as_answer, is_content

__all__ = ["ReplyQueue", "echo"]

_END = object()


class ReplyQueue:
    """The next replies. Each request that is not refused takes one; safe to use in threads.

    Args:
        given: None: always the echo. A list or iterator of replies: one after the other, then a 500 error. Anything
            else: always the same. A function is called with the body of the request, without a lock.
    """

    def __init__(self, given: object) -> None:
        self._lock = threading.Lock()
        is_one = given is None or isinstance(given, str) or callable(given) or is_content(given)
        self._steps = iter(given) if not is_one and isinstance(given, Iterable) else None
        self._given = given

    def next(self, body: dict[str, Any]) -> Answer:
        """Return the answer to a request."""
        given: object = echo if self._given is None else self._given
        if self._steps is not None:
            with self._lock:
                given = next(self._steps, _END)
        if given is _END:
            return _script_failure("the replies of the script are used up")
        try:
            return as_answer(given(body) if callable(given) else given)
        except Exception as error:  # noqa: BLE001 - the client of the test gets any failure
            return _script_failure(f"the reply could not be made: {type(error).__name__}: {error}")


def _script_failure(words: str) -> Failure:
    return Failure(500, message=f"[fake] {words}", headers={"x-should-retry": "false"})


def echo(body: dict[str, Any]) -> Reply:
    """Return a reply that is plainly not Claude's, with the last user text and the number of messages."""
    messages = body["messages"]
    said = next((words for message in reversed(messages) if (words := _user_text(message))), "nothing in words")
    return Reply(content=f"[fake reply, no model] You said: {said} (message {len(messages)} of this conversation)")


def _user_text(message: dict[str, Any]) -> str:
    content = message["content"]
    if message["role"] != "user" or isinstance(content, str):
        return content if message["role"] == "user" else ""
    return " ".join(block["text"] for block in content if block["type"] == "text")
