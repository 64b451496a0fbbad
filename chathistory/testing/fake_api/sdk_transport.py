"""The fake as a transport of `httpx2`, for clients of the real SDK. Importing this module imports the SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import anthropic
import anyio
import anyio.lowlevel
import httpx2

from chathistory.testing.fake_api.planned_response import Ending, PlannedResponse

if TYPE_CHECKING:
    from chathistory.testing.fake_api.api import FakeMessagesAPI

__all__ = ["async_client", "sync_client"]

Client = TypeVar("Client", anthropic.Anthropic, anthropic.AsyncAnthropic)
_ADDRESS = "http://fake.invalid"
_POLL = 0.002


def sync_client(api: FakeMessagesAPI, options: dict[str, Any]) -> anthropic.Anthropic:
    """Return a client of the SDK for a fake.

    Args:
        api: The fake.
        options: Options of `anthropic.Anthropic`.

    Returns:
        The client.
    """
    http = httpx2.Client(transport=_Transport(api))
    return _drop_environment_headers(anthropic.Anthropic(**_with_defaults(options), http_client=http), options)


def async_client(api: FakeMessagesAPI, options: dict[str, Any]) -> anthropic.AsyncAnthropic:
    """Return an asynchronous client of the SDK for a fake.

    Args:
        api: The fake.
        options: Options of `anthropic.AsyncAnthropic`.

    Returns:
        The client.
    """
    http = httpx2.AsyncClient(transport=_AsyncTransport(api))
    return _drop_environment_headers(anthropic.AsyncAnthropic(**_with_defaults(options), http_client=http), options)


def _with_defaults(options: dict[str, Any]) -> dict[str, Any]:
    credentials = {"api_key", "auth_token", "credentials", "config", "profile"}
    key = {} if credentials & options.keys() else {"api_key": "fake"}
    return {"base_url": _ADDRESS, "max_retries": 0, **key, **options}


def _drop_environment_headers(client: Client, options: dict[str, Any]) -> Client:
    """Remove the headers that the SDK reads from ANTHROPIC_CUSTOM_HEADERS; it has no option for that."""
    client._custom_headers = dict(options.get("default_headers") or {})  # noqa: SLF001
    return client


def _connection_error(plan: PlannedResponse, request: httpx2.Request) -> httpx2.TransportError:
    if plan.ending is Ending.RESET:
        return httpx2.ReadError("[Errno 104] Connection reset by peer", request=request)
    words = "incomplete chunked read" if plan.streamed else "Server disconnected without sending a response."
    return httpx2.RemoteProtocolError(words, request=request)


def _read_timeout(request: httpx2.Request) -> float | None:
    """Return the read timeout of the client in seconds, or None if it has none."""
    timeout: dict[str, float | None] = request.extensions.get("timeout", {})
    return timeout.get("read")


class _Body(httpx2.SyncByteStream):
    def __init__(self, plan: PlannedResponse, request: httpx2.Request) -> None:
        self._plan = plan
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        for number, chunk in enumerate(self._plan.chunks):
            _wait_for_gate(self._plan, number, self._request)
            yield chunk
        _wait_for_gate(self._plan, len(self._plan.chunks), self._request)
        if self._plan.ending is not Ending.PROPER:
            raise _connection_error(self._plan, self._request)


def _wait_for_gate(plan: PlannedResponse, number: int, request: httpx2.Request) -> None:
    pause = plan.pause_before(number)
    if pause is None:
        return
    pause.reached.set()
    if not pause.gate.wait(_read_timeout(request)):
        raise _timeout_error(request)


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, plan: PlannedResponse, request: httpx2.Request) -> None:
        self._plan = plan
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(self._plan.chunks):
            await _wait_for_gate_async(self._plan, number, self._request)
            yield chunk
        await _wait_for_gate_async(self._plan, len(self._plan.chunks), self._request)
        if self._plan.ending is not Ending.PROPER:
            raise _connection_error(self._plan, self._request)


async def _wait_for_gate_async(plan: PlannedResponse, number: int, request: httpx2.Request) -> None:
    await anyio.lowlevel.checkpoint()  # other tasks run between two events, as with a socket
    pause = plan.pause_before(number)
    if pause is None:
        return
    pause.reached.set()
    with anyio.move_on_after(_read_timeout(request)):
        while not pause.gate.is_set():  # noqa: ASYNC110 - the gate is a threading.Event, and a waiting thread cannot be cancelled
            await anyio.sleep(_POLL)
        return
    raise _timeout_error(request)


def _timeout_error(request: httpx2.Request) -> httpx2.ReadTimeout:
    return httpx2.ReadTimeout("The read operation timed out", request=request)


class _Transport(httpx2.BaseTransport):
    def __init__(self, api: FakeMessagesAPI) -> None:
        self._api = api

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        plan = self._api.answer(request.method, _request_target(request), request.headers, request.read())
        if plan.breaks_at_once:
            _wait_for_gate(plan, 0, request)
            raise _connection_error(plan, request)
        return httpx2.Response(plan.status, headers=dict(plan.headers), stream=_Body(plan, request))


class _AsyncTransport(httpx2.AsyncBaseTransport):
    def __init__(self, api: FakeMessagesAPI) -> None:
        self._api = api

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        plan = self._api.answer(request.method, _request_target(request), request.headers, await request.aread())
        if plan.breaks_at_once:
            await _wait_for_gate_async(plan, 0, request)
            raise _connection_error(plan, request)
        return httpx2.Response(plan.status, headers=dict(plan.headers), stream=_AsyncBody(plan, request))


def _request_target(request: httpx2.Request) -> str:
    return request.url.raw_path.decode()
