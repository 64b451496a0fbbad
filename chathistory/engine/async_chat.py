"""The engine for asyncio: the same turns, with the SDK's asynchronous client."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, Self, TypeVar, cast, overload

from chathistory.aio import AsyncHistory
from chathistory.defaults import OWN_SCOPE
from chathistory.engine.clients import MessagesClient, answered_later
from chathistory.engine.from_config import AsyncFromConfig
from chathistory.engine.online_check import is_refusal
from chathistory.engine.refusals import Refusal
from chathistory.engine.reply import Reply, ReplyEvent, events_of, require_entered
from chathistory.engine.request import GOES_ON, MAX_TOKENS, PAUSES, Progress
from chathistory.engine.settings import EngineSettings
from chathistory.engine.start_turn import abandon
from chathistory.engine.turn import Turn
from chathistory.errors import ConversationChanged, IncompleteReply
from chathistory.history import History
from chathistory.log.lease import TURN_TIMEOUT
from chathistory.messages.content import Content, Message
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import StoreURL
from chathistory.trimming.apply import text_from
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.plan_cut import TrimResult
from chathistory.trimming.policies import Policy

__all__ = ["AsyncChatEngine", "AsyncReplyStream"]

R = TypeVar("R")
T = TypeVar("T", Turn, Turn | None, Turn | list[str])


class AsyncChatEngine(AsyncFromConfig):
    """`ChatEngine` for asyncio, with a client such as `AsyncAnthropic`. Use it with `async with`, or call `close`.

    A cancelled call closes its turn: the message is saved, what had come of the reply is kept beside it.
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
        """See `ChatEngine`. An `AsyncHistory` that is handed in stays the caller's to close."""
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

    async def send(
        self,
        id: str,
        content: Content,
        *,
        scope: str = OWN_SCOPE,
        turn_id: str | None = None,
        expected: str | None = None,
        model: str | None = None,
        max_tokens: int | None = None,
    ) -> Reply:
        """See `ChatEngine.send`."""
        settings = self._settings.for_call(model=model, max_tokens=max_tokens)
        opening = settings.opening(scope, id, expected=expected)
        turn = await _opened(self.history, lambda: opening.begin(content, turn_id=turn_id))
        return await self._answered(settings, turn)

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
        opening = self._settings.opening(scope, id, expected=expected)
        turn = await _opened(self.history, lambda: opening.submit(reply, results, partial=partial))
        return turn if isinstance(turn, list) else await self._answered(self._settings, turn)

    async def resume(
        self, id: str, *, scope: str = OWN_SCOPE, takeover: bool = False, force: bool = False
    ) -> Reply | None:
        """See `ChatEngine.resume`."""
        opening = self._settings.opening(scope, id)
        turn = await _opened(self.history, lambda: opening.resume(takeover=takeover, force=force))
        return await self._answered(self._settings, turn) if turn else None

    async def regenerate(
        self, id: str, *, scope: str = OWN_SCOPE, turn_id: str | None = None, expected: str | None = None
    ) -> Reply:
        """See `ChatEngine.regenerate`."""
        opening = self._settings.opening(scope, id, expected=expected)
        turn = await _opened(self.history, lambda: opening.regenerate(turn_id=turn_id))
        return await self._answered(self._settings, turn)

    async def abandon(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """See `ChatEngine.abandon`."""
        return await self.history.run(abandon, self._settings.log(scope, id))

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
        """See `ChatEngine.stream`; use it with `async with`."""
        settings = self._settings.for_call(model=model, max_tokens=max_tokens)
        opening = settings.opening(scope, id, expected=expected)
        return self._stream(settings, lambda: opening.begin(content, turn_id=turn_id))

    def stream_resumed(
        self, id: str, *, scope: str = OWN_SCOPE, takeover: bool = False, force: bool = False
    ) -> AsyncReplyStream:
        """See `ChatEngine.stream_resumed`."""
        opening = self._settings.opening(scope, id)
        return self._stream(self._settings, lambda: opening.resumable(takeover=takeover, force=force))

    def stream_regenerated(
        self, id: str, *, scope: str = OWN_SCOPE, turn_id: str | None = None, expected: str | None = None
    ) -> AsyncReplyStream:
        """See `ChatEngine.stream_regenerated`."""
        opening = self._settings.opening(scope, id, expected=expected)
        return self._stream(self._settings, lambda: opening.regenerate(turn_id=turn_id))

    def _stream(self, settings: EngineSettings, opening: Callable[[], Turn]) -> AsyncReplyStream:
        return AsyncReplyStream(self.history, settings, opening, self._prepared)

    async def run_tools(
        self,
        id: str,
        content: Content | None,
        *,
        tools: Sequence[Any],
        scope: str = OWN_SCOPE,
        turn_id: str | None = None,
        takeover: bool = False,
        expected: str | None = None,
    ) -> Reply:
        """See `ChatEngine.run_tools`; with tools made by the SDK's `beta_async_tool`."""
        opening = self._settings.opening(scope, id, tools, expected=expected)

        def begin() -> Turn:
            again = content is None
            return opening.resumable(takeover=takeover) if again else opening.begin(content, turn_id=turn_id)

        turn = await _opened(self.history, begin)
        if turn.answered:
            return turn.answered
        return await self._ran(await self._prepared(turn), tools)

    async def compact(self, id: str, *, scope: str = OWN_SCOPE) -> TrimResult | None:
        """See `ChatEngine.compact`."""
        found = await self.history.run(self._settings.whole, scope, id)
        if found is None:
            return None
        response = await self._compaction(*found)
        return await _landed(self.history.run(self._settings.compacted, found[0], response))

    async def count_tokens(self, id: str, content: Content | None = None, *, scope: str = OWN_SCOPE) -> int:
        """See `ChatEngine.count_tokens`."""
        api, arguments = await self.history.run(self._settings.counting, scope, id, content)
        return int((await answered_later(api.count_tokens(**arguments))).input_tokens)

    async def check(self, id: str, *, scope: str = OWN_SCOPE) -> Refusal | None:
        """See `ChatEngine.check`."""
        found = await self.history.run(self._settings.checking, scope, id)
        if found is None:
            return None
        asking, request = found
        first, answer = None, None
        try:
            messages = next(asking)
            while True:
                answer = await self._refused(request(messages))
                first = first or answer
                messages = asking.send(answer)
        except StopIteration as end:
            if end.value is None and first is not None:
                raise first from None
            return cast("Refusal | None", end.value)

    async def _refused(self, arguments: dict[str, Any]) -> Exception | None:
        """Have the tokens of a request counted; return the error if the API refuses it."""
        try:
            await answered_later(self._settings.counter(arguments)(**arguments))
        except Exception as error:
            if not is_refusal(error):
                raise
            return error
        return None

    async def _ran(self, turn: Turn, tools: Sequence[Any]) -> Reply:
        reply, goes_on, run = None, True, self.history.run
        try:
            while goes_on:
                runner = self._settings.tool_runner(turn, tools)  # one for each request: its own list is not the view
                async for message in runner:
                    reply = await _landed(run(turn.finish, message, more=message.stop_reason in GOES_ON))
                    goes_on = message.stop_reason == "pause_turn"
                    if message.stop_reason == "tool_use" and (results := await runner.generate_tool_call_response()):
                        await _landed(run(turn.add_results, results))
                        goes_on = True
                    await runner.close()
        except ConversationChanged:
            raise  # the turn is not ours any more, and the reply is kept
        except BaseException as error:
            if turn.forget_container(error):
                return await self._ran(turn, tools)
            await _landed(run(turn.broke_off, error))
            raise
        return await run(turn.left_at, reply)

    async def close(self) -> None:
        """End the threads of a history that this engine made, and close what `from_config` opened; nothing else."""
        if self._owned:
            await self.history.close()
        await super().close()

    async def _prepared(self, turn: Turn) -> Turn:
        """Make what a planned cut needs, and store it; a summary that fails is no reason to leave a turn unanswered."""
        if turn.plan is None:
            return turn
        run = self.history.run
        try:
            by, messages = await run(self._settings.writer, turn)
            made = await self._summary(by, messages) if by else await self._compaction(turn, messages)
            await _landed(run(turn.cut, made))
        except ConversationChanged:
            raise  # the turn is not ours any more
        except Exception as error:  # noqa: BLE001 - whatever the caller's function raises
            await _landed(run(self._settings.uncut, turn, error))
        except BaseException as error:
            await _landed(run(turn.broke_off, error))
            raise
        return turn

    async def _summary(self, by: Callable[[list[Message]], Any], messages: list[Message]) -> str:
        """Return what a writer of summaries makes of messages: a coroutine function, or one that runs in a thread."""
        made = by(messages) if inspect.iscoroutinefunction(by) else await self.history.run(by, messages)
        return text_from(await made if inspect.isawaitable(made) else made)

    async def _compaction(self, turn: Turn, messages: list[Message]) -> Any:
        return await answered_later(self._settings.beta.create(**self._settings.request.compaction(turn, messages)))

    async def _answered(self, settings: EngineSettings, turn: Turn) -> Reply:
        reply = (await self._prepared(turn)).answered
        for _ in range(PAUSES):
            if reply and reply.stop_reason != "pause_turn":
                break
            reply = await self._asked(settings, turn)
        if reply is None or reply.stop_reason == "pause_turn":
            return await _landed(self.history.run(turn.left_at, reply))
        return reply

    async def _asked(self, settings: EngineSettings, turn: Turn) -> Reply:
        try:
            reply = await _landed(self.history.run(turn.finish, await _create(settings, turn)))
            if reply.stop_reason == "pause_turn":
                await self.history.run(turn.go_on)
        except ConversationChanged:
            raise  # the turn is not ours any more, and the reply is kept
        except BaseException as error:
            await _landed(self.history.run(turn.broke_off, error))
            raise
        return reply


async def _create(settings: EngineSettings, turn: Turn) -> Any:
    """Send a turn; once more without its container if the API does not know that any longer."""
    api, arguments = settings.asked(turn)
    try:
        return await answered_later(api.create(**arguments))
    except Exception as error:
        if not turn.forget_container(error):
            raise
    api, arguments = settings.asked(turn)
    return await answered_later(api.create(**arguments))


class AsyncReplyStream:
    """A reply as it comes, for asyncio; use it with `async with`: see `ReplyStream`."""

    def __init__(
        self,
        history: AsyncHistory,
        settings: EngineSettings,
        opening: Callable[[], Turn],
        prepared: Callable[[Turn], Awaitable[Turn]],
    ) -> None:
        """Internal: `AsyncChatEngine.stream` makes it."""
        self._history = history
        self._settings = settings
        self._opening = opening
        self._prepared = prepared
        self._progress = Progress()
        self._reply: Reply | None = None
        self._pieces: AsyncGenerator[ReplyEvent] | None = None
        self._open = False

    async def __aenter__(self) -> Self:
        self._turn = await self._prepared(await _opened(self._history, self._opening))
        self._pieces = self._all()
        self._open = True
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
            raise IncompleteReply("the reply broke off")
        return self._reply

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if self._pieces is not None:
                await self._pieces.aclose()
        finally:
            if self._open:
                partial = self._progress.partial()
                await _landed(self._history.run(self._turn.broke_off, error or GeneratorExit(), partial))

    async def _all(self) -> AsyncGenerator[ReplyEvent]:
        if self._turn.answered:
            await self._end(self._turn.answered)
            for event in events_of(self._turn.answered):
                yield event
        for _ in range(PAUSES):
            if not self._open:
                return
            async for piece in self._asked():
                yield piece

    async def _asked(self) -> AsyncGenerator[ReplyEvent]:
        self._progress = Progress()
        async with contextlib.AsyncExitStack() as stack:
            stream = self._progress.begin(await self._entered(stack))
            try:
                async for event in stream:
                    if piece := self._progress.see(event):
                        yield piece
            except ValueError as error:  # the SDK cannot parse the input of a tool, which it tells with all its text
                async for _ in self._progress.rest:
                    pass
                unread = self._progress.unread()
                raise await _landed(self._history.run(self._turn.kept_as_text, unread, error)) from None
            self._progress.check_ended()
        try:
            response = self._progress.whole(await stream.get_final_message())
            await self._end(await _landed(self._history.run(self._turn.finish, response, request_id=stream.request_id)))
        except ConversationChanged:
            self._open = False  # the turn is not ours any more, and the reply is kept
            raise

    async def _entered(self, stack: contextlib.AsyncExitStack) -> Any:
        """Open the stream; once more without the turn's container if the API does not know that any longer."""
        api, arguments = self._settings.streamed(self._turn)
        try:
            return await stack.enter_async_context(api.stream(**arguments))
        except Exception as error:
            if not self._turn.forget_container(error):
                raise
        api, arguments = self._settings.streamed(self._turn)
        return await stack.enter_async_context(api.stream(**arguments))

    async def _end(self, reply: Reply) -> None:
        self._reply, self._progress = reply, Progress()  # what had come so far is stored
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
        if task.exception() is None and isinstance(turn := task.result(), Turn):
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
