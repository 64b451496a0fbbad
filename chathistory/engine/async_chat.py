"""`AsyncChatEngine`: the engine for asyncio, on the SDK's asynchronous client."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, cast, overload

from chathistory.aio import AsyncHistory
from chathistory.defaults import OWN_SCOPE
from chathistory.engine import flows
from chathistory.engine.chat import ChatEngine
from chathistory.engine.clients import MessagesClient
from chathistory.engine.flows import Call, Flow, StreamedTurn
from chathistory.engine.from_config import AsyncFromConfig
from chathistory.engine.reply import Reply, ReplyEvent, events_of, require_entered
from chathistory.engine.request import MAX_TOKENS
from chathistory.engine.settings import EngineSettings
from chathistory.engine.start_turn import abandon
from chathistory.engine.stream_message import StreamProgress
from chathistory.engine.turn import Turn
from chathistory.errors import IncompleteReply
from chathistory.history import History
from chathistory.log.lease import TURN_TIMEOUT
from chathistory.messages.content import Content
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import StoreURL
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.policies import Policy

__all__ = ["AsyncChatEngine", "AsyncReplyStream"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _make_async(
    method: Callable[Concatenate[ChatEngine, P], R],
) -> Callable[Concatenate[AsyncChatEngine, P], Coroutine[Any, Any, R]]:
    """Return a method of `ChatEngine` as a coroutine function: `AsyncChatEngine._run_flow` returns an awaitable."""
    make: Any = method

    async def call(self: AsyncChatEngine, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast("R", await make(self, *args, **kwargs))

    functools.update_wrapper(call, method).__doc__ = f"See `{method.__qualname__}`."
    return call


class AsyncChatEngine(AsyncFromConfig):
    """Send what a user says to Claude, together with the conversation so far, and save both; for asyncio.

    The methods and guarantees are those of `ChatEngine`: the message is durable before the request is sent, and the
    reply as soon as it is complete. The client must be asynchronous, such as `anthropic.AsyncAnthropic()`. Calls of the
    store run in threads, so the event loop is never blocked. Use the engine with `async with`, or call `close`.

    Cancelling a call closes its turn. The message stays saved. A partial reply is saved with the conversation as a
    `reply_interrupted` entry, and is never sent to Claude.
    """

    def __init__(
        self,
        client: MessagesClient,
        store: HistoryStore | History | AsyncHistory | StoreURL | str,
        *,
        model: str,
        system: str | Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Any] | None = None,
        max_tokens: int = MAX_TOKENS,
        turn_timeout: float | timedelta = TURN_TIMEOUT,
        cache: bool = True,
        trimming: Policy | None = None,
        context_editing: ContextEditing | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Create an engine on a client of the Anthropic SDK and a store.

        Args:
            client: An asynchronous client, such as `anthropic.AsyncAnthropic()`, or an object whose
                `messages.create` is a coroutine function. The caller closes it.
            store: A store, a `History` or an `AsyncHistory`, which the caller closes; or the URL of a store, which
                `close` closes. Engines that are given the same `AsyncHistory` share its threads.
            model: The model, such as "claude-sonnet-5-5".
            system: The system prompt: text or content blocks; None: no system prompt.
            tools: The tools that Claude may call, as the API defines them; None: no tools.
            max_tokens: The maximum length of a reply, in tokens.
            turn_timeout: How long a turn without a reply counts as open, in seconds (more than 0, at most
                1,000,000,000) or as a `timedelta`. Until then, other engines raise `TurnInProgress`. The process that
                waits for the reply renews this time. Use the same value in all processes that share conversations.
            cache: Whether to use the API's automatic prompt caching (the top-level `cache_control`).
            trimming: The policy that decides, before each turn, which part of the conversation is no longer sent;
                None: everything is sent.
            context_editing: What the API leaves out of its own copy of the conversation; None: nothing.
            options: Further arguments of `messages.create`, such as {"thinking": {"type": "adaptive"}}.

        Raises:
            InvalidInput: An argument is invalid, or the client is a synchronous one.
            ConfigError: The URL is invalid, or its backend is not installed.
        """
        self._owned = not isinstance(store, AsyncHistory)
        self.history = store if isinstance(store, AsyncHistory) else AsyncHistory(store)
        self._settings = EngineSettings.of(
            client,
            self.history.sync,
            asynchronous=True,
            model=model,
            system=system,
            tools=tools,
            max_tokens=max_tokens,
            turn_timeout=turn_timeout,
            cache=cache,
            trimming=trimming,
            context_editing=context_editing,
            options=options,
        )

    send = _make_async(ChatEngine.send)

    @overload
    async def submit(
        self,
        id: str,
        reply: Reply,
        results: Mapping[str, Any],
        *,
        partial: Literal[False] = False,
        scope: str = OWN_SCOPE,
        expected: str | None = None,
    ) -> Reply: ...

    @overload
    async def submit(
        self,
        id: str,
        reply: Reply,
        results: Mapping[str, Any],
        *,
        partial: bool,
        scope: str = OWN_SCOPE,
        expected: str | None = None,
    ) -> Reply | list[str]: ...

    async def submit(
        self,
        id: str,
        reply: Reply,
        results: Mapping[str, Any],
        *,
        partial: bool = False,
        scope: str = OWN_SCOPE,
        expected: str | None = None,
    ) -> Reply | list[str]:
        """See `ChatEngine.submit`."""
        starter = self._settings.build_turn_starter(scope, id, expected=expected)
        return await self._run_flow(
            flows.request_reply(self._settings, lambda: starter.submit(reply, results, partial=partial))
        )

    resume = _make_async(ChatEngine.resume)
    regenerate = _make_async(ChatEngine.regenerate)

    async def abandon(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """See `ChatEngine.abandon`."""
        return await self.history.run(abandon, self._settings.open_log(scope, id))

    def stream(
        self,
        id: str,
        content: Content,
        *,
        scope: str = OWN_SCOPE,
        turn_id: str | None = None,
        expected: str | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
    ) -> AsyncReplyStream:
        """See `ChatEngine.stream`. Use the result with `async with`."""
        settings = self._settings.for_call(model=model, max_tokens=max_tokens)
        starter = settings.build_turn_starter(scope, id, expected=expected)
        return AsyncReplyStream(self.history, settings, lambda: starter.start(content, turn_id=turn_id))

    def stream_resumed(
        self, id: str, *, scope: str = OWN_SCOPE, takeover: bool = False, force: bool = False
    ) -> AsyncReplyStream:
        """See `ChatEngine.stream_resumed`. Use the result with `async with`."""
        starter = self._settings.build_turn_starter(scope, id)
        return AsyncReplyStream(
            self.history, self._settings, lambda: starter.resume_unanswered(takeover=takeover, force=force)
        )

    def stream_regenerated(
        self, id: str, *, scope: str = OWN_SCOPE, turn_id: str | None = None, expected: str | None = None
    ) -> AsyncReplyStream:
        """See `ChatEngine.stream_regenerated`. Use the result with `async with`."""
        starter = self._settings.build_turn_starter(scope, id, expected=expected)
        return AsyncReplyStream(self.history, self._settings, lambda: starter.regenerate(turn_id=turn_id))

    run_tools = _make_async(ChatEngine.run_tools)
    compact = _make_async(ChatEngine.compact)
    count_tokens = _make_async(ChatEngine.count_tokens)
    check = _make_async(ChatEngine.check)

    async def close(self) -> None:
        """End the threads of the `AsyncHistory` that this engine created, and close what `from_config` opened.

        A client, a store and an `AsyncHistory` that were passed in stay open.
        """
        if self._owned:
            await self.history.close()
        await super().close()

    async def _run_flow(self, flow: Flow[T]) -> T:
        return await _run_flow(self.history, flow)


class AsyncReplyStream(StreamedTurn):
    """A reply that is streamed, for asyncio; use it with `async with`, and iterate with `async for`.

    Iterating over it yields the pieces of text. The members are those of `ReplyStream`. Leaving the `async with` block
    before the end (an error, a cancelled task, a `break`) closes the turn; the partial reply is saved with the
    conversation as a `reply_interrupted` entry, which is shown to people and never sent to Claude.
    """

    _pieces: AsyncGenerator[ReplyEvent] | None = None

    def __init__(self, history: AsyncHistory, settings: EngineSettings, start: Callable[[], Turn]) -> None:
        """Internal: `AsyncChatEngine.stream` creates it."""
        super().__init__(settings, start)
        self._history = history

    async def __aenter__(self) -> Self:
        self._turn = await _run_flow(self._history, self._start_turn())
        self._pieces = _replay_events(self._reply) if self._reply else self._receive_events()
        return self

    @property
    def events(self) -> AsyncIterator[ReplyEvent]:
        """See `ReplyStream.events`."""
        return require_entered(self._pieces)

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """See `ReplyStream.text_stream`."""
        events = self.events
        return (event.text async for event in events if event.type == "text")

    def __aiter__(self) -> AsyncIterator[str]:
        return self.text_stream

    async def get_final_reply(self) -> Reply:
        """See `ReplyStream.get_final_reply`."""
        async for _ in self.events:
            pass
        if self._reply is None:
            raise IncompleteReply(
                "the reply was interrupted before it was complete; call resume(id) to send the turn again"
            )
        return self._reply

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if self._pieces is not None:
                await self._pieces.aclose()
        finally:
            if self._is_open:
                partial = self._progress.partial_message()
                await _finish_despite_cancel(self._history.run(self._turn.abort, error or GeneratorExit(), partial))

    async def _receive_events(self) -> AsyncGenerator[ReplyEvent]:
        for _ in range(flows.MAX_REQUESTS_PER_TURN):
            if not self._is_open:
                return
            self._progress = StreamProgress()
            async with contextlib.AsyncExitStack() as stack:
                call = self._settings.prepare_call("stream", self._settings.request.build_arguments(self._turn))
                try:
                    stream = self._progress.attach_stream(await stack.enter_async_context(call()))
                except Exception as error:
                    if not self._turn.forget_container(error):
                        raise
                    continue
                try:
                    async for event in stream:
                        if piece := self._progress.handle_event(event):
                            yield piece
                except (
                    ValueError
                ) as error:  # from the SDK: the input of a tool is not JSON; its message quotes all of it
                    async for _ in self._progress.remaining_events:
                        pass
                    unparsed = self._progress.build_unparsed_reply()
                    raise await _finish_despite_cancel(
                        self._history.run(self._turn.store_as_text, unparsed, error)
                    ) from None
                self._progress.check_ended()
            response = await stream.get_final_message()
            await _finish_despite_cancel(self._history.run(self._store_reply, response, stream.request_id))


async def _replay_events(reply: Reply) -> AsyncGenerator[ReplyEvent]:
    for event in events_of(reply):
        yield event


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a flow ended.

    Attributes:
        result: What the flow returned.
        error: The error of its last call, if the flow did not handle it.
    """

    result: Any = None
    error: BaseException | None = None


def _advance_flow(flow: Flow[Any], answer: Any, error: BaseException | None) -> Call | _Ended:
    """Run a flow up to its next call. The error of a call is returned: the event loop raises it, not this thread."""
    try:
        return flow.send(answer) if error is None else flow.throw(error)
    except StopIteration as end:
        return _Ended(end.value)
    except BaseException as raised:
        if raised is not error:
            raise
        return _Ended(error=raised)


async def _run_flow(history: AsyncHistory, flow: Flow[T]) -> T:
    """Run a flow in threads, await each of its calls on the event loop, and return what the flow returns.

    When cancelled, this waits for the step that is running. Then the `CancelledError` is raised within the flow, in
    place of the answer to its next call.
    """
    answer: Any = None
    error: BaseException | None = None
    while True:
        task = asyncio.ensure_future(history.run(_advance_flow, flow, answer, error))
        answer, error = None, None
        try:
            step = await asyncio.shield(task)
        except asyncio.CancelledError as cancelled:
            await asyncio.wait([task])
            step = _Ended() if task.exception() else task.result()
            if isinstance(step, _Ended):
                if isinstance(step.result, Turn):  # the caller never gets this turn, so close it
                    await _finish_despite_cancel(history.run(step.result.abort, cancelled))
                raise
            error = cancelled
            continue
        if isinstance(step, _Ended):
            if step.error:
                raise step.error
            return cast("T", step.result)
        try:
            answer = step()
            if inspect.isawaitable(answer):  # the answer of a synchronous client is paid for, so it is used
                answer = await answer
        except BaseException as raised:  # noqa: BLE001 - the flow raises it, unless it can continue
            error = raised


async def _finish_despite_cancel(work: Awaitable[R]) -> R:
    """Await something that must not be left half done: when cancelled, wait for its end before raising."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
