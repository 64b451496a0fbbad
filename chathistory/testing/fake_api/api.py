"""The fake itself: what it remembers, and the one way from a request to its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chathistory.testing.fake_api import planned_response as plans
from chathistory.testing.fake_api.compaction import default_summary as told_summary
from chathistory.testing.fake_api.models import Models
from chathistory.testing.fake_api.planned_response import PlannedResponse
from chathistory.testing.fake_api.recorded_requests import Recorded, assert_extends, without_keys
from chathistory.testing.fake_api.replies import Failure
from chathistory.testing.fake_api.reply_queue import ReplyQueue
from chathistory.testing.fake_api.request import (
    COUNT_TOKENS,
    MESSAGES,
    SMALLEST_TRIGGER,
    UNREADABLE,
    ApiRequest,
    FakeSettings,
    Limits,
)
from chathistory.testing.fake_api.responder import Responder
from chathistory.testing.fake_api.rules import refusal
from chathistory.testing.fake_api.signed_thinking import ThinkingSigner

if TYPE_CHECKING:
    import anthropic

__all__ = ["FakeMessagesAPI"]


class FakeMessagesAPI:
    """A fake of Claude's Messages API, without a model. Safe in threads; nothing to close.

    reply: what it answers to requests that it does not refuse. None: an echo that says it is one. Text, a list of
        content blocks, a `Reply`, a `Failure` or another answer: that, each time. A function: what it returns for the
        body of the request. A list or iterator of any of these: one after the other; then a 500 that says so.
    models: names of models that are served beside those of today.
    strict_first_role: refuse conversations that do not begin with the user, as some platforms do.
    check_thinking: verify the signatures of thinking blocks. False for conversations that Claude itself took part in:
        its signatures mean nothing here.
    summary: what it answers where a summary is wanted, in the forms of `reply`: the text of one; a `Reply` without
        content and with a stop reason if none comes; a `Failure`. None: words that say it is a fake's.
    smallest_trigger: how many input tokens the trigger of a compaction must name; the API's number is hard to reach in
        a test.
    limits: how large a request, an image and a prompt may be, for the same reason.
    gone: ids of files and containers that it does not know any longer; more may be added to `gone` later.
    account: whose key this is; thinking that was signed for another account is refused.
    refuse: what else it refuses: a function that gets the body of a request, also of one that only counts; it returns a
        `Failure`, or None.
    """

    def __init__(
        self,
        reply: object = None,
        *,
        models: Iterable[str] = (),
        strict_first_role: bool = False,
        check_thinking: bool = True,
        summary: object = None,
        smallest_trigger: int = SMALLEST_TRIGGER,
        limits: Limits | None = None,
        gone: Iterable[str] = (),
        account: str = "",
        refuse: Callable[[dict[str, Any]], Failure | None] | None = None,
    ) -> None:
        thinking = ThinkingSigner()
        known = thinking if check_thinking else None
        self.gone = set(gone)
        self._setting = FakeSettings(
            Models.of(models),
            strict_first_role,
            known,
            smallest_trigger,
            limits or Limits(),
            self.gone,
            account,
            refuse,
        )
        self._responder = Responder(
            ReplyQueue(reply), ReplyQueue(told_summary if summary is None else summary), thinking
        )
        self._lock = threading.Lock()
        self._requests: list[Recorded] = []

    @property
    def requests(self) -> list[Recorded]:
        """The requests so far, in the order in which they came."""
        with self._lock:
            return list(self._requests)

    def assert_extends(self, requests: Iterable[Recorded] | None = None) -> None:
        """Assert that each answered request is the one before it, and more; see `recording.assert_extends`.

        requests: those to look at, when there are several conversations; None: all.
        """
        assert_extends(self.requests if requests is None else requests)

    def client(self, **options: Any) -> anthropic.Anthropic:
        """Return a client of the Anthropic SDK that talks to this fake, inside this process.

        options: those of `anthropic.Anthropic`. Neither a key nor an address is taken from the environment, and
        nothing is retried unless `max_retries` is given.
        """
        from chathistory.testing.fake_api.sdk_transport import sync_client  # brings the SDK

        return sync_client(self, options)

    def async_client(self, **options: Any) -> anthropic.AsyncAnthropic:
        """Return an `anthropic.AsyncAnthropic` in the same way as `client`."""
        from chathistory.testing.fake_api.sdk_transport import async_client  # brings the SDK

        return async_client(self, options)

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve over HTTP on the loopback interface while the `with` lasts; gives the URL. Port 0: any free one."""
        from chathistory.testing.fake_api.http_server import serve_api  # http.server costs 20 ms

        with serve_api(self, port) as url:
            yield url

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> PlannedResponse:
        """Return the answer to a request, whatever it came by. The transports call this."""
        request = ApiRequest.read(target.partition("?")[0], headers, raw, self._setting)
        body = None if request.body is UNREADABLE else request.body
        with self._lock:
            number = len(self._requests)
            self._requests.append(Recorded(request.path, without_keys(request.headers), body))
        plan, more = self._plan_answer(method, request)
        with self._lock:
            outcome = {"status": plan.status, "request_id": plan.headers["request-id"], **more}
            self._requests[number] = replace(self._requests[number], **outcome)
        return plan

    def _plan_answer(self, method: str, request: ApiRequest) -> tuple[PlannedResponse, dict[str, Any]]:
        if method != "POST" or request.path not in (MESSAGES, COUNT_TOKENS):
            return plans.plan_failure(Failure(404, message="Not found")), {}
        refused = refusal(request)
        if refused is not None:
            rule = refused.rule
            failure = Failure(rule.status, rule.type, refused.text, code=rule.code, details=refused.details)
            return plans.plan_failure(failure), {"rule": rule.name}
        if self._setting.refuse and (own := self._setting.refuse(request.body)):
            return plans.plan_failure(own), {}
        return self._responder.answer(request)
