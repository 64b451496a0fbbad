"""The response to a request, planned before a byte of it is sent; the SDK transport and the server send it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from chathistory.testing.fake_api.build_message import fresh_id
from chathistory.testing.fake_api.replies import Cut, Drop, ErrorEvent, Failure, Paused, Raw, Reset
from chathistory.testing.fake_api.stream_events import encode_event, error_event, events_of

__all__ = ["Ending", "PlannedResponse", "plan_failure", "plan_json", "plan_message"]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUS = {type_: status for status, type_ in _TYPES.items() if status != 408}  # noqa: PLR2004 - 504 is the API's own


class Ending(Enum):
    """How a response ends: properly, with a closed connection, or with a reset one."""

    PROPER = "proper"
    DROPPED = "dropped"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class PlannedResponse:
    """A response.

    Attributes:
        status: HTTP status.
        headers: HTTP headers.
        chunks: One event per chunk if `streamed`, otherwise the body as one chunk.
        streamed: Whether the response is a stream of events.
        ending: How the response ends.
        pause: A pause that the test ends, or None.
    """

    status: int
    headers: Mapping[str, str]
    chunks: tuple[bytes, ...]
    streamed: bool = False
    ending: Ending = Ending.PROPER
    pause: Paused | None = None

    def pause_before(self, number: int) -> Paused | None:
        """Return the pause before chunk `number`, or None; the number after the last chunk is the end."""
        if self.pause is None:
            return None
        at = min(self.pause.after, len(self.chunks)) if self.streamed else 0
        return self.pause if number == at else None

    @property
    def breaks_at_once(self) -> bool:
        """Whether the connection breaks before the headers."""
        return self.ending is not Ending.PROPER and not self.streamed


def plan_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> PlannedResponse:
    """Return a response with a JSON body."""
    return PlannedResponse(status, _make_headers("application/json", headers), (json.dumps(value).encode(),))


def plan_failure(failure: Failure) -> PlannedResponse:
    """Return a response with an error of the API."""
    type_ = failure.type or _TYPES.get(failure.status) or ("api_error" if failure.status >= 500 else _TYPES[400])  # noqa: PLR2004
    error: dict[str, Any] = {"type": type_, "message": failure.message}
    if failure.code is not None:
        error["details"] = {"error_code": failure.code, **failure.details}
    plan = plan_json(None, failure.status, failure.headers)
    body = {"type": "error", "error": error, "request_id": plan.headers["request-id"]}
    return replace(plan, chunks=(json.dumps(body).encode(),))


def plan_raw(answer: Raw) -> PlannedResponse:
    """Return a response with any body and content type."""
    return PlannedResponse(answer.status, _make_headers(answer.content_type), (answer.body.encode(),))


def plan_message(message: dict[str, Any], answer: object, *, streamed: bool) -> PlannedResponse:
    """Return a response with a message, broken if `answer` is a `Cut`, `Drop`, `Reset` or `ErrorEvent`.

    Args:
        message: The message.
        answer: The answer that the message belongs to.
        streamed: Whether to send events.

    Returns:
        The response.
    """
    if not streamed:
        return _broken_plain(message, answer)
    chunks = tuple(encode_event(event) for event in events_of(message))
    plan = PlannedResponse(200, _make_headers("text/event-stream; charset=utf-8"), chunks, streamed=True)
    if not isinstance(answer, Cut | Drop | Reset | ErrorEvent):
        return plan
    last = (encode_event(error_event(answer.type, answer.message)),) if isinstance(answer, ErrorEvent) else ()
    return replace(plan, chunks=(*chunks[: answer.after], *last), ending=_ending_of(answer))


def _broken_plain(message: dict[str, Any], answer: object) -> PlannedResponse:
    if isinstance(answer, ErrorEvent):
        return plan_failure(Failure(_STATUS.get(answer.type, 500), answer.type, answer.message))
    if isinstance(answer, Cut | Drop):
        return replace(plan_json(message), ending=Ending.DROPPED)
    return replace(plan_json(message), ending=_ending_of(answer))


def _ending_of(answer: object) -> Ending:
    if isinstance(answer, Reset):
        return Ending.RESET
    return Ending.DROPPED if isinstance(answer, Drop) else Ending.PROPER


def _make_headers(content_type: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {"content-type": content_type, "request-id": fresh_id("req"), **(more or {})}
