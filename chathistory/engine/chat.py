"""The engine for synchronous programs."""

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
    """Run a flow, making each of its calls at once; return what the flow returns."""
    try:
        call = next(flow)
        while True:
            try:
                answer = call()
            except BaseException as error:  # noqa: BLE001 - the flow raises it, unless it can go on
                call = flow.throw(error)
                continue
            if inspect.iscoroutine(answer):
                answer.close()  # nothing was sent yet; else Python warns that nobody awaited it
            if inspect.isawaitable(answer):
                words = "a call gave an awaitable, so this is an asynchronous client; use AsyncChatEngine"
                call = flow.throw(InvalidInput(f"client: {words}"))
            else:
                call = flow.send(answer)
    except StopIteration as end:
        return cast("T", end.value)


class ChatEngine(FromConfig):
    """Sends what a user says to Claude, with all that was said before, and saves both.

    The message is durable before the request goes out, the reply as soon as it is complete. Any process with the same
    store goes on with any conversation. Errors of the SDK pass through as they are, with a note of what was saved.
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
        """Use a client of the Anthropic SDK, and a store.

        Args:
            client: A client, such as `anthropic.Anthropic()`, or any object with its `.messages`; it stays the
                caller's to close.
            store: A store or a history, which stay the caller's to close, or the URL of a store, which `close` closes.
            model: The model to ask.
            system: The system prompt: text or content blocks.
            tools: The tools that Claude may call, as the API takes them.
            max_tokens: The longest reply, in tokens.
            turn_timeout: How long a turn without a reply counts as open, in seconds or as a `timedelta`; the process
                that holds one renews that in time, so it should be the same for all who share conversations.
            cache: Whether the API caches the prompt.
            trimming: What decides, before each turn, whether a part of the conversation is no longer sent.
            context_editing: What the API does with its own copy.
            options: Further arguments of `messages.create`, such as {"thinking": {"type": "adaptive"}}.

        Raises:
            InvalidInput: Something of it cannot work.
            ConfigError: The URL is wrong, or its backend cannot be used.
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
        """Say something in a conversation (which begins with it, if it is new) and return Claude's reply.

        Args:
            id: The conversation.
            content: Text, or content blocks such as tool results.
            scope: The conversation's scope.
            turn_id: A name of the caller's for this turn; given again, after a crash or a lost answer, it is not sent
                twice: the stored reply is returned.
            expected: The version of the conversation that the caller has seen, such as `Reply.version` or
                `Conversation.version`; if somebody changed it since, nothing is stored or sent.
            model: The model for this turn; None: the engine's. Thinking of another model may not be sent on.
            max_tokens: The longest reply, in tokens; None: the engine's.

        Raises:
            TurnInProgress: Another turn of the conversation is open; no token was paid for.
            TurnMismatch: The `turn_id` was used for other content.
            Conflict: Somebody changed the conversation since `expected`.
            OrphanedReply: Somebody else changed the conversation while Claude answered.
            Exception: Errors of the SDK, as they are, and those of the store.
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

        The same results submitted again, for a queue may deliver twice, are sent once: the stored reply is returned.

        Args:
            id: The conversation.
            reply: The reply that called the tools.
            results: By the id of each call: text, content blocks, or an exception for a tool that failed.
            partial: Only store these results if other calls await theirs; whoever hands in the last one sends all, and
                of several who do so at once only one sends. Without it, calls without a result are answered with an
                error.
            scope: The conversation's scope.
            expected: See `send`.

        Returns:
            The reply; with `partial` the ids of the calls that still await a result, if there are any.

        Raises:
            InvalidInput: There are no results, or one names no call of `reply`.
            TurnError: `reply` is not part of the conversation (it was taken back, forgotten or deleted), or the
                conversation went on without these results. `TurnMismatch`: a call has another result already.
                `TurnInProgress`: another turn is open. Nothing is stored and nothing is sent then.
            ChatHistoryError: What `send` raises.
        """
        starter = self._settings.build_turn_starter(scope, id, expected=expected)
        return self._run_flow(
            flows.request_reply(self._settings, lambda: starter.submit(reply, results, partial=partial))
        )

    def resume(self, id: str, *, scope: str = OWN_SCOPE, takeover: bool = False, force: bool = False) -> Reply | None:
        """Send the last turn again if it has no reply: its process died, or its request failed.

        Args:
            id: The conversation.
            scope: The conversation's scope.
            takeover: Do so even while another process holds the turn, if you know that it comes to nothing. A reply
                that it still gets is kept beside the conversation.
            force: Send it even if the API refused it.

        Returns:
            Its reply; None if nothing is left to send.

        Raises:
            TurnRefused: The API refused it, and would refuse it again.
            TurnInProgress: Another process holds the turn. One of this machine that has ended need not be waited for.
        """
        starter = self._settings.build_turn_starter(scope, id)
        return self._run_flow(
            flows.request_reply(self._settings, lambda: starter.resume(takeover=takeover, force=force))
        )

    def regenerate(
        self, id: str, *, scope: str = OWN_SCOPE, turn_id: str | None = None, expected: str | None = None
    ) -> Reply:
        """Get another reply to the last question of a conversation; the first one stays in the log.

        What Claude did in its place (calls of tools, their results) is taken back with it. A question without a reply
        is sent as `resume` does. `Conversation.variants` has all replies, `Conversation.choose` goes back to one.

        Args:
            id: The conversation.
            scope: The conversation's scope.
            turn_id: A name for this turn; given again, after a crash or a lost answer, it is not sent twice.
            expected: See `send`.

        Raises:
            TurnInProgress: A turn is open. Nothing is taken back then.
            TurnError: There is no question.
            ChatHistoryError: What `send` raises.
        """
        starter = self._settings.build_turn_starter(scope, id, expected=expected)
        return self._run_flow(flows.request_reply(self._settings, lambda: starter.regenerate(turn_id=turn_id)))

    def abandon(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """Close the open turn of a conversation, whoever holds it; False: there was none."""
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
        """Like `send`, with the text as it comes; use it with `with`. Nothing happens before that."""
        settings = self._settings.for_call(model=model, max_tokens=max_tokens)
        starter = settings.build_turn_starter(scope, id, expected=expected)
        return ReplyStream(settings, lambda: starter.start(content, turn_id=turn_id))

    def stream_resumed(
        self, id: str, *, scope: str = OWN_SCOPE, takeover: bool = False, force: bool = False
    ) -> ReplyStream:
        """Like `resume`, with the text as it comes. Raises `TurnError` on entry if there is nothing to resume."""
        starter = self._settings.build_turn_starter(scope, id)
        return ReplyStream(self._settings, lambda: starter.resume_unanswered(takeover=takeover, force=force))

    def stream_regenerated(
        self, id: str, *, scope: str = OWN_SCOPE, turn_id: str | None = None, expected: str | None = None
    ) -> ReplyStream:
        """Like `regenerate`, with the text as it comes; use it with `with`. Nothing happens before that."""
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
        """Say something and let the SDK's tool runner call `tools` until Claude is done; return the last reply.

        Each reply and each set of results is stored as it happens, so a crash loses none of them. Where a tool gives
        something that cannot be stored, Claude is told so as the error of that tool.

        Args:
            id: The conversation.
            content: Text or content blocks; None: go on with a turn that broke off, as `resume` does. Calls without a
                result are then answered with an error, for they may have run.
            tools: Functions made with the SDK's `beta_tool` (`beta_async_tool` for asyncio), or what else its
                `tool_runner` takes.
            scope: The conversation's scope.
            turn_id: See `send`.
            takeover: See `resume`.
            expected: See `send`.

        Raises:
            ChatHistoryError: What `send` raises.
            TurnError: Without `content`, there is no turn that broke off.
        """
        starter = self._settings.build_turn_starter(scope, id, tools, expected=expected)
        if content is None:
            start = partial(starter.resume_unanswered, takeover=takeover)
        else:
            start = partial(starter.start, content, turn_id=turn_id)
        return self._run_flow(flows.run_tools(self._settings, start, tools))

    def compact(self, id: str, *, scope: str = OWN_SCOPE) -> TrimResult | None:
        """Have the API sum up all that was said so far; from now on that is sent in its place. None: there is nothing.

        A beta of the API, which signs the summary, so that thinking stays valid. The log stays whole. Raises
        `TurnInProgress` if a turn is open, and `Conflict` if somebody wrote meanwhile; nothing changes then.
        """
        return self._run_flow(flows.compact(self._settings, scope, id))

    def count_tokens(self, id: str, content: Content | None = None, *, scope: str = OWN_SCOPE) -> int:
        """Have the API count what `send(id, content)` would send, with system prompt and tools; nothing is stored.

        Without `content`, what `resume` would send. Raises `InvalidInput` if that would end with a reply.
        """
        return self._run_flow(flows.count_tokens(self._settings, scope, id, content))

    def check(self, id: str, *, scope: str = OWN_SCOPE) -> Refusal | None:
        """Ask the API whether a conversation can be sent, with this engine's model, system prompt and tools.

        Asked is the endpoint that counts tokens, which costs nothing: once if all is well, else about as often as the
        conversation has doublings, to find the place. Nothing is stored; `Conversation.leave_out` goes on without it.

        Args:
            id: The conversation.
            scope: The conversation's scope.

        Returns:
            What the API refuses of it; None: nothing, or there is no such conversation.

        Raises:
            Exception: The SDK's error, if the API cannot be asked, or if it does not refuse the messages but something
                else of the request: the model, the tools, an option.
        """
        return self._run_flow(flows.check(self._settings, scope, id))


class ReplyStream(StreamedTurn):
    """A reply as it comes; use it with `with`. Iterate over it for the pieces of text.

    Leaving the `with` block before the end (an error, Ctrl-C, a break) closes the turn and keeps what had come as an
    `interrupted` record, which is shown to people and not sent to Claude.
    """

    _pieces: Generator[ReplyEvent] | None = None

    def __enter__(self) -> Self:
        self._turn = run_flow(self._start_turn())
        self._pieces = events_of(self._reply) if self._reply else self._receive_events()
        return self

    @property
    def events(self) -> Iterator[ReplyEvent]:
        """The pieces of text, thinking and the input of tools, as they come; a stored reply comes block by block."""
        return require_entered(self._pieces)

    @property
    def text_stream(self) -> Iterator[str]:
        """The pieces of text, as they come."""
        return (event.text for event in self.events if event.type == "text")

    def __iter__(self) -> Iterator[str]:
        return self.text_stream

    def get_final_reply(self) -> Reply:
        """Return the whole reply; what has not been iterated over is received first.

        Raises:
            IncompleteReply: The reply broke off.
        """
        collections.deque(self.events, maxlen=0)
        if self._reply is None:
            raise IncompleteReply("the reply broke off")
        return self._reply

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._pieces is not None:
            self._pieces.close()
        if self._is_open:
            self._turn.abort(error or GeneratorExit(), self._progress.partial_message())

    def _receive_events(self) -> Generator[ReplyEvent]:
        for _ in range(flows.MAX_PAUSES):
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
                except ValueError as error:  # of the SDK about a tool's input that is no JSON, with all its text
                    collections.deque(self._progress.remaining_events, maxlen=0)
                    raise self._turn.store_as_text(self._progress.build_unparsed_reply(), error) from None
                self._progress.check_ended()
            self._store_reply(stream.get_final_message(), stream.request_id)
