"""What goes back over the wire, worked out before a byte of it is sent; each transport carries it out in its way."""

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
    """How an answer ends: properly, by a closed connection, by a reset one."""

    PROPER = "proper"
    DROPPED = "dropped"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class PlannedResponse:
    """An answer. An event per chunk if `streamed`; otherwise one chunk, or none if the connection breaks before it.

    held: what to wait for in between; None: nothing.
    """

    status: int
    headers: Mapping[str, str]
    chunks: tuple[bytes, ...]
    streamed: bool = False
    ending: Ending = Ending.PROPER
    pause: Paused | None = None

    def pause_before(self, number: int) -> Paused | None:
        """Return what to wait for before chunk `number`, None for nothing; the number after the last is the end."""
        if self.pause is None:
            return None
        at = min(self.pause.after, len(self.chunks)) if self.streamed else 0
        return self.pause if number == at else None

    @property
    def breaks_at_once(self) -> bool:
        """Whether the connection breaks before the headers."""
        return self.ending is not Ending.PROPER and not self.streamed


def plan_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> PlannedResponse:
    """Return a plan for an answer of JSON."""
    return PlannedResponse(status, _make_headers("application/json", headers), (json.dumps(value).encode(),))


def plan_failure(failure: Failure) -> PlannedResponse:
    """Return a plan for an error in the API's shape."""
    type_ = failure.type or _TYPES.get(failure.status) or ("api_error" if failure.status >= 500 else _TYPES[400])  # noqa: PLR2004
    error: dict[str, Any] = {"type": type_, "message": failure.message}
    if failure.code is not None:
        error["details"] = {"error_code": failure.code, **failure.details}
    plan = plan_json(None, failure.status, failure.headers)
    body = {"type": "error", "error": error, "request_id": plan.headers["request-id"]}
    return replace(plan, chunks=(json.dumps(body).encode(),))


def plan_raw(answer: Raw) -> PlannedResponse:
    """Return a plan for any answer."""
    return PlannedResponse(answer.status, _make_headers(answer.content_type), (answer.body.encode(),))


def plan_message(message: dict[str, Any], answer: object, *, streamed: bool) -> PlannedResponse:
    """Return a plan for a message, broken as `answer` says if that is a `Cut`, `Drop`, `Reset` or `ErrorEvent`."""
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
