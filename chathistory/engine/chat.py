"""`ChatEngine`: the engine for synchronous programs."""

from __future__ import annotations

import collections
import contextlib
import inspect
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload

from chathistory.defaults import OWN_SCOPE
from chathistory.engine import flows
from chathistory.engine.clients import MessagesClient
from chathistory.engine.flows import Flow, StreamedTurn
from chathistory.engine.from_config import FromConfig
from chathistory.engine.refusals import Refusal
from chathistory.engine.reply import Reply, ReplyEvent, events_of, require_entered
from chathistory.engine.request import MAX_TOKENS
from chathistory.engine.settings import EngineSettings
from chathistory.engine.start_turn import abandon
from chathistory.engine.stream_message import StreamProgress
from chathistory.errors import IncompleteReply, InvalidInput
from chathistory.history import History
from chathistory.log.lease import TURN_TIMEOUT
from chathistory.messages.content import Content
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import StoreURL
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.plan_cut import TrimResult
from chathistory.trimming.policies import Policy

if TYPE_CHECKING:
    from chathistory.aio import AsyncHistory

__all__ = ["ChatEngine", "ReplyStream"]

T = TypeVar("T")


def run_flow(flow: Flow[T]) -> T:
    """Run a flow, make each of its calls, and return what the flow returns.

    Args:
        flow: A generator as described in `engine.flows`.

    Returns:
        What the flow returns.
    """
    try:
        call = next(flow)
        while True:
            try:
                answer = call()
            except BaseException as error:  # noqa: BLE001 - the flow raises it, unless it can continue
                call = flow.throw(error)
                continue
            if inspect.iscoroutine(answer):
                answer.close()  # nothing was sent yet; prevents the warning "was never awaited"
            if inspect.isawaitable(answer):
                problem = "must be synchronous, but a call returned an awaitable; use AsyncChatEngine with this client"
                call = flow.throw(InvalidInput(f"client: {problem}"))
            else:
                call = flow.send(answer)
    except StopIteration as end:
        return cast("T", end.value)


class ChatEngine(FromConfig):
    """Send what a user says to Claude, together with the conversation so far, and save both.

    The message is durable before the request is sent, and the reply as soon as it is complete. Any process with the
    same store can continue any conversation. Errors of the SDK are raised unchanged, with a note that says what was
    saved and how to continue. Use the engine with `with`, or call `close`.
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
            client: A client, such as `anthropic.Anthropic()`, or any object with the same `.messages`. The caller
                closes it.
            store: A store or a `History`, which the caller closes; or the URL of a store, which `close` closes.
            model: The model, such as "claude-sonnet-5-5".
            system: The system prompt: text or content blocks; None: no system prompt. It is stored with each
                conversation, and `SetupChangedWarning` says when a conversation continues with another one.
            tools: The tools that Claude may call, as the API defines them; None: no tools.
            max_tokens: The maximum length of a reply, in tokens. The SDK refuses more than 21,333 in a request that is
                not streamed.
            turn_timeout: How long a turn without a reply counts as open, in seconds (more than 0, at most
                1,000,000,000) or as a `timedelta`. Until then, other engines raise `TurnInProgress`. The process that
                waits for the reply renews this time, so a long reply does not time out. Use the same value in all
                processes that share conversations.
            cache: Whether to use the API's automatic prompt caching (the top-level `cache_control`). It takes one of
                the four cache markers that a request may have, and is left out if `system` and `tools` use all four.
            trimming: The policy that decides, before each turn, which part of the conversation is no longer sent;
                None: everything is sent.
            context_editing: What the API leaves out of its own copy of the conversation; None: nothing.
            options: Further arguments of `messages.create`, such as {"thinking": {"type": "adaptive"}}.

        Raises:
            InvalidInput: An argument is invalid, or the client is an asynchronous one.
            ConfigError: The URL is invalid, or its backend is not installed.
        """
        self.history = store if isinstance(store, History) else History(store)
        self._closing = () if isinstance(store, History) else (self.history,)
        self._settings = EngineSettings.of(
            client,
            self.history,
            asynchronous=False,
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

    _run_flow = staticmethod(run_flow)

    def send(
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
        """Send a user's message in a conversation, and return Claude's reply.

        A conversation that does not exist is created. If the last turn has no reply and has the same message, that turn
        is sent again; the message is not stored twice.

        Args:
            id: The conversation's id.
            content: Text, or content blocks such as tool results.
            scope: The conversation's scope; not given: the scope of the engine's history.
            turn_id: The caller's own id for this turn. Use the same id to repeat a call after a crash or a lost
                answer: the message is not sent twice, and a stored reply is returned. None: a new id.
            expected: The version of the conversation that the caller has seen, such as `Reply.version` or
                `Conversation.version`. If the conversation has changed since, nothing is stored or sent. None: the
                message is added to whatever is stored.
            model: The model for this turn; None: the engine's model. The API drops thinking of another model that the
                target model cannot read.
            max_tokens: The maximum length of the reply, in tokens; None: the engine's value.

        Returns:
            The reply, which is stored.

        Raises:
            TurnInProgress: Another turn of the conversation is open; no tokens were paid for.
            TurnMismatch: The `turn_id` was used for other content.
            TurnRefused: The turn of this `turn_id` was refused by the API, and would be refused again.
            TurnTooLarge: One turn alone exceeds the token budget of `trimming`; nothing was stored or sent.
            TurnError: Tool results came too late, or the conversation continued without a reply to this `turn_id`.
            InvalidInput: The content is blank or malformed, or a result refers to no tool call.
            Conflict: The conversation changed since `expected`.
            OrphanedReply: Another writer changed the conversation while Claude answered. The reply is saved as an
                `reply_orphaned` entry, and is the error's `reply`.
            IncompleteReply: The API's answer is not a complete message.
            StoreError: The store failed; the error's `reply` has a reply that was paid for and not stored.
            Exception: Any error of the SDK, unchanged.
        """
        settings = self._settings.for_call(model=model, max_tokens=max_tokens)
        starter = settings.build_turn_starter(scope, id, expected=expected)
        return self._run_flow(flows.request_reply(settings, lambda: starter.start(content, turn_id=turn_id)))

    @overload
    def submit(
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
    def submit(
        self,
        id: str,
        reply: Reply,
        results: Mapping[str, Any],
        *,
        partial: bool,
        scope: str = OWN_SCOPE,
        expected: str | None = None,
    ) -> Reply | list[str]: ...

    def submit(
        self,
        id: str,
        reply: Reply,
        results: Mapping[str, Any],
        *,
        partial: bool = False,
        scope: str = OWN_SCOPE,
        expected: str | None = None,
    ) -> Reply | list[str]:
        """Send the results of the tools that `reply` calls, and return Claude's next reply.

        Submitting the same results again is safe (a queue may deliver twice): they are sent once, and the stored reply
        is returned.

        Args:
            id: The conversation's id.
            reply: The reply that called the tools.
            results: The result of each tool call, by the id of the call: text, content blocks, or an exception for a
                tool that failed.
            partial: If other calls still await a result, only store these results. The call that submits the last
                result sends all of them; of several that do so at the same time, only one sends. Without `partial`,
                each call without a result is answered with an error.
            scope: The conversation's scope; not given: the scope of the engine's history.
            expected: See `send`.

        Returns:
            Claude's reply; with `partial`, the ids of the calls that still await a result, if there are any.

        Raises:
            InvalidInput: `results` is empty, or names a call that `reply` does not have.
            TurnMismatch: A call already has another result; nothing was stored or sent.
            TurnInProgress: Another turn is open; nothing was stored or sent.
            TurnError: `reply` is not part of the conversation (it was taken back, forgotten or deleted), or the
                conversation continued without these results; nothing was stored or sent.
            ChatHistoryError: Any other error that `send` raises.
        """
        starter = self._settings.build_turn_starter(scope, id, expected=expected)
        return self._run_flow(
            flows.request_reply(self._settings, lambda: starter.submit(reply, results, partial=partial))
        )

    def resume(self, id: str, *, scope: str = OWN_SCOPE, takeover: bool = False, force: bool = False) -> Reply | None:
        """Send the last turn again if it has no reply, because its process died or its request failed.

        Args:
            id: The conversation's id.
            scope: The conversation's scope; not given: the scope of the engine's history.
            takeover: Send the turn even while another process holds it; for when you know that the other process will
                not finish. If it gets a reply all the same, that is saved as a `reply_orphaned` entry, and never sent
                to Claude.
            force: Send the turn even if the API refused it.

        Returns:
            Claude's reply; None if the last turn has its reply, nothing of it can be sent, or there is no such
            conversation.

        Raises:
            TurnRefused: The API refused the turn, and would refuse it again; see `force`.
            TurnInProgress: Another process holds the turn; see `takeover`. A process of this machine that has ended
                does not hold it any longer.
            ChatHistoryError: Any other error that `send` raises.
            Exception: Any error of the SDK, unchanged.
        """
        starter = self._settings.build_turn_starter(scope, id)
        return self._run_flow(
            flows.request_reply(self._settings, lambda: starter.resume(takeover=takeover, force=force))
        )

    def regenerate(
        self, id: str, *, scope: str = OWN_SCOPE, turn_id: str | None = None, expected: str | None = None
    ) -> Reply:
        """Get another reply to the last question of a conversation; the earlier reply stays in the log.

        Everything since the question is taken back: the reply, its tool calls and their results. A question without a
        reply is sent as `resume` does. `Conversation.variants` lists all replies, and `Conversation.choose` returns to
        one of them.

        Args:
            id: The conversation's id.
            scope: The conversation's scope; not given: the scope of the engine's history.
            turn_id: The caller's own id for this turn. Use the same id to repeat a call after a crash or a lost
                answer: the question is not sent twice. None: a new id.
            expected: See `send`.

        Returns:
            The new reply.

        Raises:
            TurnInProgress: A turn is open; nothing was taken back.
            TurnError: The conversation has no question.
            ChatHistoryError: Any other error that `send` raises.
            Exception: Any error of the SDK, unchanged.
        """
        starter = self._settings.build_turn_starter(scope, id, expected=expected)
        return self._run_flow(flows.request_reply(self._settings, lambda: starter.regenerate(turn_id=turn_id)))

    def abandon(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """Close the open turn of a conversation, whichever process holds it.

        The message stays saved. If the other process gets a reply all the same, that is saved as a `reply_orphaned`
        entry.

        Args:
            id: The conversation's id.
            scope: The conversation's scope; not given: the scope of the engine's history.

        Returns:
            True if a turn was closed; False if no turn was open, or there is no such conversation.
        """
        return abandon(self._settings.open_log(scope, id))

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
    ) -> ReplyStream:
        """Send a user's message as `send` does, and stream Claude's reply.

        Nothing is stored or sent before the `with` block is entered.

        Args:
            id: The conversation's id.
            content: Text, or content blocks such as tool results.
            scope: The conversation's scope; not given: the scope of the engine's history.
            turn_id: See `send`; a stored reply is replayed block by block.
            expected: See `send`.
            model: The model for this turn; None: the engine's model.
            max_tokens: The maximum length of the reply, in tokens; None: the engine's value.

        Returns:
            A stream for a `with` block. Entering and reading it raise what `send` raises.
        """
        settings = self._settings.for_call(model=model, max_tokens=max_tokens)
        starter = settings.build_turn_starter(scope, id, expected=expected)
        return ReplyStream(settings, lambda: starter.start(content, turn_id=turn_id))

    def stream_resumed(
        self, id: str, *, scope: str = OWN_SCOPE, takeover: bool = False, force: bool = False
    ) -> ReplyStream:
        """Send the last turn again as `resume` does, and stream Claude's reply.

        Args:
            id: The conversation's id.
            scope: The conversation's scope; not given: the scope of the engine's history.
            takeover: See `resume`.
            force: See `resume`.

        Returns:
            A stream for a `with` block. Entering it raises `TurnError` if there is nothing to resume; else entering and
            reading it raise what `resume` raises.
        """
        starter = self._settings.build_turn_starter(scope, id)
        return ReplyStream(self._settings, lambda: starter.resume_unanswered(takeover=takeover, force=force))

    def stream_regenerated(
        self, id: str, *, scope: str = OWN_SCOPE, turn_id: str | None = None, expected: str | None = None
    ) -> ReplyStream:
        """Get another reply to the last question as `regenerate` does, and stream it.

        Nothing is taken back or sent before the `with` block is entered.

        Args:
            id: The conversation's id.
            scope: The conversation's scope; not given: the scope of the engine's history.
            turn_id: See `regenerate`; a stored reply is replayed block by block.
            expected: See `send`.

        Returns:
            A stream for a `with` block. Entering and reading it raise what `regenerate` raises.
        """
        starter = self._settings.build_turn_starter(scope, id, expected=expected)
        return ReplyStream(self._settings, lambda: starter.regenerate(turn_id=turn_id))

    def run_tools(
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
        """Send a user's message, and let the SDK's tool runner call `tools` until Claude is done.

        Each reply and each set of results is stored at once, so a crash loses none of them. If the result of a tool
        cannot be stored, Claude gets an error as the result of that tool.

        Args:
            id: The conversation's id.
            content: Text or content blocks; None: continue an interrupted turn, as `resume` does. Calls without a
                result are then answered with an error, because their tools may have run.
            tools: Functions made with the SDK's `beta_tool` (for asyncio `beta_async_tool`), or anything else that the
                SDK's `tool_runner` accepts. They replace the engine's `tools` for this turn.
            scope: The conversation's scope; not given: the scope of the engine's history.
            turn_id: See `send`.
            takeover: See `resume`; only used without `content`.
            expected: See `send`.

        Returns:
            The last reply, which ends the turn.

        Raises:
            TurnError: `content` is None, and there is no turn to continue.
            ChatHistoryError: Any error that `send` raises. If results could not be stored, the error's `results` has
                them.
            Exception: Any error of the SDK, unchanged.
        """
        starter = self._settings.build_turn_starter(scope, id, tools, expected=expected)
        if content is None:
            start = partial(starter.resume_unanswered, takeover=takeover)
        else:
            start = partial(starter.start, content, turn_id=turn_id)
        return self._run_flow(flows.run_tools(self._settings, start, tools))

    def compact(self, id: str, *, scope: str = OWN_SCOPE) -> TrimResult | None:
        """Have the API summarize the conversation so far, and send the summary in its place from now on.

        This is a beta feature of the API (`compact-2026-09-04`). The API signs the summary, so later thinking stays
        valid. The log keeps all messages.

        Args:
            id: The conversation's id.
            scope: The conversation's scope; not given: the scope of the engine's history.

        Returns:
            What was cut; None if there is nothing to summarize, or no such conversation.

        Raises:
            TurnInProgress: A turn is open; nothing was changed.
            Conflict: Another writer changed the conversation meanwhile; nothing was changed.
            Exception: Any error of the SDK, unchanged.
        """
        return self._run_flow(flows.compact(self._settings, scope, id))

    def count_tokens(self, id: str, content: Content | None = None, *, scope: str = OWN_SCOPE) -> int:
        """Have the API count the input tokens of a request, with system prompt and tools; nothing is stored.

        Counting is free of charge.

        Args:
            id: The conversation's id; one that does not exist is counted as empty.
            content: Count what `send(id, content)` would send; None: count what `resume(id)` would send.
            scope: The conversation's scope; not given: the scope of the engine's history.

        Returns:
            The number of input tokens. It is the API's estimate.

        Raises:
            InvalidInput: `content` is None, and the conversation ends with a reply or is empty.
            Exception: Any error of the SDK, unchanged.
        """
        return self._run_flow(flows.count_tokens(self._settings, scope, id, content))

    def check(self, id: str, *, scope: str = OWN_SCOPE) -> Refusal | None:
        """Ask the API whether a conversation can be sent, with this engine's model, system prompt and tools.

        This uses the endpoint that counts tokens, which is free of charge and validates a request as sending does. One
        request is made if all is well. If the API refuses the conversation without naming the place, a binary search
        finds it with about log2(number of messages) further requests. Nothing is stored; to continue without the
        refused block, call `Conversation.leave_out`.

        Args:
            id: The conversation's id.
            scope: The conversation's scope; not given: the scope of the engine's history.

        Returns:
            What the API refuses; None if it accepts everything, or there is no such conversation.

        Raises:
            Exception: The SDK's error, if the API was not reached, or if it refuses another part of the request: the
                model, the tools, an option.
        """
        return self._run_flow(flows.check(self._settings, scope, id))


class ReplyStream(StreamedTurn):
    """A reply that is streamed; use it with `with`. Iterating over it yields the pieces of text.

    Leaving the `with` block before the end (an error, Ctrl-C, a `break`) closes the turn. The partial reply is saved
    with the conversation as a `reply_interrupted` entry, which is shown to people and never sent to Claude.
    """

    _pieces: Generator[ReplyEvent] | None = None

    def __enter__(self) -> Self:
        self._turn = run_flow(self._start_turn())
        self._pieces = events_of(self._reply) if self._reply else self._receive_events()
        return self

    @property
    def events(self) -> Iterator[ReplyEvent]:
        """The pieces of text, thinking and tool input as they arrive; a stored reply is replayed block by block.

        Raises `InvalidInput` outside of a `with` block.
        """
        return require_entered(self._pieces)

    @property
    def text_stream(self) -> Iterator[str]:
        """The pieces of text as they arrive. Raises `InvalidInput` outside of a `with` block."""
        return (event.text for event in self.events if event.type == "text")

    def __iter__(self) -> Iterator[str]:
        return self.text_stream

    def get_final_reply(self) -> Reply:
        """Receive the rest of the reply, and return the complete reply.

        Returns:
            The reply, which is stored.

        Raises:
            IncompleteReply: The reply was interrupted.
            InvalidInput: The stream was not entered with `with`.
            ChatHistoryError: Any other error that `ChatEngine.send` raises.
        """
        collections.deque(self.events, maxlen=0)
        if self._reply is None:
            raise IncompleteReply(
                "the reply was interrupted before it was complete; call resume(id) to send the turn again"
            )
        return self._reply

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._pieces is not None:
            self._pieces.close()
        if self._is_open:
            self._turn.abort(error or GeneratorExit(), self._progress.partial_message())

    def _receive_events(self) -> Generator[ReplyEvent]:
        for _ in range(flows.MAX_REQUESTS_PER_TURN):
            if not self._is_open:
                return
            self._progress = StreamProgress()
            with contextlib.ExitStack() as stack:
                call = self._settings.prepare_call("stream", self._settings.request.build_arguments(self._turn))
                try:
                    stream = self._progress.attach_stream(stack.enter_context(call()))
                except Exception as error:
                    if not self._turn.forget_container(error):
                        raise
                    continue
                try:
                    for event in stream:
                        if piece := self._progress.handle_event(event):
                            yield piece
                except (
                    ValueError
                ) as error:  # from the SDK: the input of a tool is not JSON; its message quotes all of it
                    collections.deque(self._progress.remaining_events, maxlen=0)
                    raise self._turn.store_as_text(self._progress.build_unparsed_reply(), error) from None
                self._progress.check_ended()
            self._store_reply(stream.get_final_message(), stream.request_id)
