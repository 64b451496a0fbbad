"""The engine for asyncio: the same turns, with the SDK's asynchronous client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from chathistory.aio import AsyncHistory
from chathistory.engine.configured import configured
from chathistory.engine.opening import Opening, abandon
from chathistory.engine.recall import Recall
from chathistory.engine.reply import Reply
from chathistory.engine.request import GOES_ON, MAX_TOKENS, PAUSES, TURN_TIMEOUT, Progress, Request
from chathistory.engine.turn import Turn
from chathistory.errors import Conflict, IncompleteReply
from chathistory.history import OWN_SCOPE, History
from chathistory.log.journal import Journal
from chathistory.store import HistoryStore

__all__ = ["AsyncChatEngine", "AsyncReplyStream"]

R = TypeVar("R")
T = TypeVar("T", Turn, Turn | None)


class AsyncChatEngine:
    """`ChatEngine` for asyncio, with a client such as `AsyncAnthropic`. Use it with `async with`, or call `close`.

    A cancelled call closes its turn: the message is saved, what had come of the reply is kept beside it.
    """

    def __init__(
        self,
        client: Any,
        store: HistoryStore | History | AsyncHistory,
        *,
        model: str,
        system: str | Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Any] | None = None,
        max_tokens: int = MAX_TOKENS,
        turn_timeout: float = TURN_TIMEOUT,
        cache: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """See `ChatEngine`. An `AsyncHistory` that is handed in stays the caller's to close."""
        self._owned = not isinstance(store, AsyncHistory)
        self.history = store if isinstance(store, AsyncHistory) else AsyncHistory(store)
        self._api = client.messages
        self._beta = getattr(client, "beta", client)
        self._request = Request(model, system, tools, max_tokens, cache, dict(options or {}))
        self._setup = self._request.setup(tools)
        self._timeout = turn_timeout
        self._recall = Recall()
        self._closing: tuple[Any, ...] = ()

    @classmethod
    def from_config(
        cls,
        client: Any = None,
        *,
        profile: str | None = None,
        config: str | os.PathLike[str] | None = None,
        store: str | None = None,
        scope: str | None = None,
        **arguments: Any,
    ) -> Self:
        """See `ChatEngine.from_config`. It reads small files, and makes no round trip."""
        found = configured(client, arguments, profile=profile, config=config, store=store, scope=scope)
        own = found.async_client() if client is None else client
        engine = cls(own, found.history, **found.arguments)
        engine._closing = (found.history, *([own] if client is None else []))
        return engine

    async def send(self, id: str, content: Any, *, scope: str = OWN_SCOPE, turn_id: str | None = None) -> Reply:
        """See `ChatEngine.send`."""
        opening = self._opening(scope, id)
        turn = await _opened(self.history, lambda: opening.begin(content, turn_id=turn_id))
        return await self._answered(turn)

    async def resume(self, id: str, *, scope: str = OWN_SCOPE) -> Reply | None:
        """See `ChatEngine.resume`."""
        turn = await _opened(self.history, self._opening(scope, id).resume)
        return await self._answered(turn) if turn else None

    async def abandon(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """See `ChatEngine.abandon`."""
        return await self.history.run(abandon, self._journal(scope, id))

    def stream(
        self,
        id: str,
        content: Any,
        *,
        scope: str = OWN_SCOPE,
        turn_id: str | None = None,
    ) -> AsyncReplyStream:
        """See `ChatEngine.stream`; use it with `async with`."""
        opening = self._opening(scope, id)
        return self._stream(lambda: opening.begin(content, turn_id=turn_id))

    def stream_resumed(self, id: str, *, scope: str = OWN_SCOPE) -> AsyncReplyStream:
        """See `ChatEngine.stream_resumed`."""
        return self._stream(self._opening(scope, id).resumable)

    def _stream(self, opening: Callable[[], Turn]) -> AsyncReplyStream:
        return AsyncReplyStream(self.history, self._api, self._request, opening)

    async def run_tools(
        self, id: str, content: Any, *, tools: Sequence[Any], scope: str = OWN_SCOPE, turn_id: str | None = None
    ) -> Reply:
        """See `ChatEngine.run_tools`; with tools made by the SDK's `beta_async_tool`."""
        opening = Opening(self._journal(scope, id), self._request.setup(tools), self._timeout, self._recall)
        begin = opening.resumable if content is None else lambda: opening.begin(content, turn_id=turn_id)
        turn = await _opened(self.history, begin)
        return turn.answered or await self._ran(turn, self._request.tool_runner(self._beta, turn, tools))

    async def _ran(self, turn: Turn, runner: Any) -> Reply:
        reply, run = None, self.history.run
        try:
            async for message in runner:
                reply = await _landed(run(turn.finish, message, more=message.stop_reason in GOES_ON))
                if message.stop_reason == "tool_use" and (results := await runner.generate_tool_call_response()):
                    await _landed(run(turn.add_results, results))
        except Conflict:
            raise  # the turn is not ours any more, and the reply is kept
        except BaseException as error:
            await _landed(run(turn.broke_off, error))
            raise
        return await run(turn.left_at, reply)

    async def close(self) -> None:
        """End the threads of a history that this engine made, and close what `from_config` opened; nothing else."""
        if self._owned:
            await self.history.close()
        for history_or_client in self._closing:
            closed = history_or_client.close()
            if closed is not None:
                await closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _journal(self, scope: str, name: str) -> Journal:
        return Journal(self.history.history.store, self.history.history.key(name, scope))

    def _opening(self, scope: str, name: str) -> Opening:
        return Opening(self._journal(scope, name), self._setup, self._timeout, self._recall)

    async def _answered(self, turn: Turn) -> Reply:
        reply = turn.answered
        for _ in range(PAUSES):
            if reply and reply.stop_reason != "pause_turn":
                break
            reply = await self._asked(turn)
        assert reply is not None  # noqa: S101  # asked at least once
        return reply

    async def _asked(self, turn: Turn) -> Reply:
        try:
            response = await self._api.create(**self._request.arguments(turn.messages, container=turn.container))
            reply = await _landed(self.history.run(turn.finish, response))
            if reply.stop_reason == "pause_turn":
                await self.history.run(turn.go_on)
        except Conflict:
            raise  # the turn is not ours any more, and the reply is kept
        except BaseException as error:
            await _landed(self.history.run(turn.broke_off, error))
            raise
        return reply


class AsyncReplyStream:
    """A reply as it comes, for asyncio: see `ReplyStream`. `await stream.reply()` is the whole."""

    def __init__(self, history: AsyncHistory, api: Any, request: Request, opening: Callable[[], Turn]) -> None:
        self._history = history
        self._api = api
        self._request = request
        self._opening = opening
        self._progress = Progress()
        self._reply: Reply | None = None
        self._open = False

    async def __aenter__(self) -> Self:
        self._turn = await _opened(self._history, self._opening)
        self._pieces = self._all()
        self._open = True
        return self

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def reply(self) -> Reply:
        """Return the whole reply; what has not been iterated over is received first."""
        async for _ in self._pieces:
            pass
        if self._reply is None:
            msg = "the reply broke off"
            raise IncompleteReply(msg)
        return self._reply

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            await self._pieces.aclose()
        finally:
            if self._open:
                partial = self._progress.partial()
                await _landed(self._history.run(self._turn.broke_off, error or GeneratorExit(), partial))

    async def _all(self) -> AsyncGenerator[str]:
        if self._turn.answered:
            await self._end(self._turn.answered)
            yield self._turn.answered.text
        for _ in range(PAUSES):
            if not self._open:
                return
            async for piece in self._asked():
                yield piece

    async def _asked(self) -> AsyncGenerator[str]:
        self._progress = Progress()
        async with self._api.stream(
            **self._request.arguments(self._turn.messages, container=self._turn.container)
        ) as stream:
            self._progress.stream = stream
            async for event in stream:
                if text := self._progress.see(event):
                    yield text
            self._progress.check_ended()
        try:
            response = await stream.get_final_message()
            await self._end(await _landed(self._history.run(self._turn.finish, response, request_id=stream.request_id)))
        except Conflict:
            self._open = False  # the turn is not ours any more, and the reply is kept
            raise

    async def _end(self, reply: Reply) -> None:
        self._reply = reply
        self._open = reply.stop_reason == "pause_turn"
        if self._open:
            await self._history.run(self._turn.go_on)


async def _opened(history: AsyncHistory, opening: Callable[[], T]) -> T:
    """Open a turn in a thread; if that is cancelled, the turn is closed as soon as it has landed."""
    task = asyncio.ensure_future(history.run(opening))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as cancelled:
        await asyncio.wait([task])
        if task.exception() is None and (turn := task.result()) is not None:
            await _landed(history.run(turn.broke_off, cancelled))
        raise


async def _landed(work: Awaitable[R]) -> R:
    """Wait for work to end even when cancelled meanwhile, so that nothing is half done."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
