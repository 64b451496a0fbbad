"""The fake API: what it remembers, and how it answers a request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chathistory.testing.fake_api import planned_response as plans
from chathistory.testing.fake_api.compaction import default_summary
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
    """A fake of Claude's Messages API, without a model. Safe to use in threads; nothing to close.

    Args:
        reply: The reply to requests that are not refused. None: an echo that says that it is one. Text, a list of
            content blocks, a `Reply`, a `Failure` or another answer: the same each time. A function: what it returns
            for the body of the request. A list or iterator of these: one after the other, then a 500 error.
        models: Names of models to serve in addition to the current ones.
        strict_first_role: Refuse conversations that do not begin with the user, as some platforms do.
        check_thinking: Verify the signatures of thinking blocks. Pass False for conversations with real replies of
            Claude, whose signatures the fake cannot verify.
        summary: The summary of a compaction, in the forms of `reply`: its text; a `Reply` without content but with a
            stop reason if the summary fails; a `Failure`. None: a text that says that it is from a fake.
        smallest_trigger: The smallest number of input tokens that the trigger of a compaction may have. The API's own
            number is hard to reach in a test.
        limits: The largest request, image and prompt; the API's own limits are hard to reach in a test.
        gone: Ids of files and containers that no longer exist; more can be added to the attribute `gone`.
        account: The account of the key. Thinking that was signed for another account is refused.
        refuse: Refuses further requests: a function that takes the body of a request, also of token counts, and returns
            a `Failure` or None.
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
            ReplyQueue(reply), ReplyQueue(default_summary if summary is None else summary), thinking
        )
        self._lock = threading.Lock()
        self._requests: list[Recorded] = []

    @property
    def requests(self) -> list[Recorded]:
        """The requests so far, in the order of arrival."""
        with self._lock:
            return list(self._requests)

    def assert_extends(self, requests: Iterable[Recorded] | None = None) -> None:
        """Assert that each answered request extends the one before it.

        `system` and `tools` must be equal, and the messages of the one before must be the first of the next, character
        for character, apart from cache markers. A conversation that fails loses the prompt cache and the thinking.

        Args:
            requests: The requests of one conversation, if there are several; None: all requests.

        Raises:
            AssertionError: A request differs; the message names the first path that does.
        """
        assert_extends(self.requests if requests is None else requests)

    def client(self, **options: Any) -> anthropic.Anthropic:
        """Return a client of the Anthropic SDK that talks to this fake, within this process.

        No key, address or header is read from the environment.

        Args:
            options: Options of `anthropic.Anthropic`. Without `max_retries`, nothing is retried.

        Returns:
            The client.
        """
        from chathistory.testing.fake_api.sdk_transport import sync_client  # imports the SDK

        return sync_client(self, options)

    def async_client(self, **options: Any) -> anthropic.AsyncAnthropic:
        """Return an asynchronous client of the Anthropic SDK that talks to this fake; see `client`.

        Args:
            options: Options of `anthropic.AsyncAnthropic`.

        Returns:
            The client.
        """
        from chathistory.testing.fake_api.sdk_transport import async_client  # imports the SDK

        return async_client(self, options)

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve over HTTP on the loopback interface inside a `with` block.

        Args:
            port: The port; 0: any free one.

        Yields:
            The URL of the server.
        """
        from chathistory.testing.fake_api.http_server import serve_api  # http.server costs 20 ms

        with serve_api(self, port) as url:
            yield url

    def answer(self, method: str, target: str, headers: Mapping[str, str], raw: bytes) -> PlannedResponse:
        """Return the answer to a request; called by the SDK transport and the HTTP server.

        Args:
            method: The HTTP method.
            target: The path, with a query if there is one.
            headers: The headers, in any case.
            raw: The body.

        Returns:
            The response to send.
        """
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
