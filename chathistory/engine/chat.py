"""The engine for synchronous programs."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

from chathistory.defaults import OWN_SCOPE
from chathistory.engine.clients import MessagesClient, answered
from chathistory.engine.from_config import FromConfig
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

if TYPE_CHECKING:
    from chathistory.aio import AsyncHistory

__all__ = ["ChatEngine", "ReplyStream"]


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
        return self._answered(settings, settings.opening(scope, id, expected=expected).begin(content, turn_id=turn_id))

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
        turn = self._settings.opening(scope, id, expected=expected).submit(reply, results, partial=partial)
        return turn if isinstance(turn, list) else self._answered(self._settings, turn)

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
        turn = self._settings.opening(scope, id).resume(takeover=takeover, force=force)
        return self._answered(self._settings, turn) if turn else None

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
        return self._answered(
            self._settings, self._settings.opening(scope, id, expected=expected).regenerate(turn_id=turn_id)
        )

    def abandon(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """Close the open turn of a conversation, whoever holds it; False: there was none."""
        return abandon(self._settings.log(scope, id))

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
        opening = settings.opening(scope, id, expected=expected)
        return ReplyStream(settings, lambda: self._prepared(opening.begin(content, turn_id=turn_id)))

    def stream_resumed(
        self, id: str, *, scope: str = OWN_SCOPE, takeover: bool = False, force: bool = False
    ) -> ReplyStream:
        """Like `resume`, with the text as it comes. Raises `TurnError` on entry if there is nothing to resume."""
        opening = self._settings.opening(scope, id)
        return ReplyStream(self._settings, lambda: opening.resumable(takeover=takeover, force=force))

    def stream_regenerated(
        self, id: str, *, scope: str = OWN_SCOPE, turn_id: str | None = None, expected: str | None = None
    ) -> ReplyStream:
        """Like `regenerate`, with the text as it comes; use it with `with`. Nothing happens before that."""
        opening = self._settings.opening(scope, id, expected=expected)
        return ReplyStream(self._settings, lambda: opening.regenerate(turn_id=turn_id))

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

        tools: functions made with the SDK's `beta_tool`, or what else its `tool_runner` takes. Each reply and each set
        of results is stored as it happens, so a crash loses none of them. Where a tool gives something that cannot be
        stored, Claude is told so as the error of that tool. content None: go on with a turn that broke off, as `resume`
        does (takeover: as there); calls without a result are then answered with an error, for they may have run.
        """
        opening = self._settings.opening(scope, id, tools, expected=expected)
        again = content is None
        turn = opening.resumable(takeover=takeover) if again else opening.begin(content, turn_id=turn_id)
        return turn.answered or self._ran(self._prepared(turn), tools)

    def compact(self, id: str, *, scope: str = OWN_SCOPE) -> TrimResult | None:
        """Have the API sum up all that was said so far; from now on that is sent in its place. None: there is nothing.

        A beta of the API, which signs the summary, so that thinking stays valid. The log stays whole. Raises
        `TurnInProgress` if a turn is open, and `Conflict` if somebody wrote meanwhile; nothing changes then.
        """
        found = self._settings.whole(scope, id)
        if found is None:
            return None
        turn, messages = found
        return self._settings.compacted(turn, self._compaction(turn, messages))

    def count_tokens(self, id: str, content: Content | None = None, *, scope: str = OWN_SCOPE) -> int:
        """Have the API count what `send(id, content)` would send, with system prompt and tools; nothing is stored.

        Without `content`, what `resume` would send. Raises `InvalidInput` if that would end with a reply.
        """
        api, arguments = self._settings.counting(scope, id, content)
        return int(answered(api.count_tokens(**arguments)).input_tokens)

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
        found = self._settings.checking(scope, id)
        if found is None:
            return None
        asking, request = found
        first, answer = None, None
        try:
            messages = next(asking)
            while True:
                answer = self._refused(request(messages))
                first = first or answer
                messages = asking.send(answer)
        except StopIteration as end:
            if end.value is None and first is not None:
                raise first from None
            return cast("Refusal | None", end.value)

    def _refused(self, arguments: dict[str, Any]) -> Exception | None:
        """Have the tokens of a request counted; return the error if the API refuses it."""
        try:
            answered(self._settings.counter(arguments)(**arguments))
        except Exception as error:
            if not is_refusal(error):
                raise
            return error
        return None

    def _ran(self, turn: Turn, tools: Sequence[Any]) -> Reply:
        reply, goes_on = None, True
        try:
            while goes_on:
                runner = self._settings.tool_runner(turn, tools)  # one for each request: its own list is not the view
                for message in runner:
                    reply = turn.finish(message, more=message.stop_reason in GOES_ON)
                    goes_on = message.stop_reason == "pause_turn"
                    if message.stop_reason == "tool_use" and (results := runner.generate_tool_call_response()):
                        turn.add_results(results)
                        goes_on = True
                    runner.close()
        except ConversationChanged:
            raise  # the turn is not ours any more, and the reply is kept
        except BaseException as error:
            if turn.forget_container(error):
                return self._ran(turn, tools)
            turn.broke_off(error)
            raise
        return turn.left_at(reply)

    def _prepared(self, turn: Turn) -> Turn:
        """Make what a planned cut needs, and store it; a summary that fails is no reason to leave a turn unanswered."""
        if turn.plan is None:
            return turn
        by, messages = self._settings.writer(turn)
        try:
            turn.cut(text_from(by(messages)) if by else self._compaction(turn, messages))
        except ConversationChanged:
            raise  # the turn is not ours any more
        except Exception as error:  # noqa: BLE001 - whatever the caller's function raises
            self._settings.uncut(turn, error)
        except BaseException as error:
            turn.broke_off(error)
            raise
        return turn

    def _compaction(self, turn: Turn, messages: list[Message]) -> Any:
        return answered(self._settings.beta.create(**self._settings.request.compaction(turn, messages)))

    def _answered(self, settings: EngineSettings, turn: Turn) -> Reply:
        reply = self._prepared(turn).answered
        for _ in range(PAUSES):
            if reply and reply.stop_reason != "pause_turn":
                break
            reply = self._asked(settings, turn)
        return turn.left_at(reply) if reply is None or reply.stop_reason == "pause_turn" else reply

    def _asked(self, settings: EngineSettings, turn: Turn) -> Reply:
        try:
            reply = turn.finish(_create(settings, turn))
            if reply.stop_reason == "pause_turn":
                turn.go_on()
        except ConversationChanged:
            raise  # the turn is not ours any more, and the reply is kept
        except BaseException as error:
            turn.broke_off(error)
            raise
        return reply


def _create(settings: EngineSettings, turn: Turn) -> Any:
    """Send a turn; once more without its container if the API does not know that any longer."""
    api, arguments = settings.asked(turn)
    try:
        return answered(api.create(**arguments))
    except Exception as error:
        if not turn.forget_container(error):
            raise
    api, arguments = settings.asked(turn)
    return answered(api.create(**arguments))


class ReplyStream:
    """A reply as it comes; use it with `with`. Iterate over it for the pieces of text.

    Leaving the `with` block before the end (an error, Ctrl-C, a break) closes the turn and keeps what had come as an
    `interrupted` record, which is shown to people and not sent to Claude.
    """

    def __init__(self, settings: EngineSettings, opening: Callable[[], Turn]) -> None:
        """Internal: `ChatEngine.stream` makes it."""
        self._settings = settings
        self._opening = opening
        self._progress = Progress()
        self._reply: Reply | None = None
        self._pieces: Generator[ReplyEvent] | None = None

    def __enter__(self) -> Self:
        self._turn = self._opening()
        self._pieces = self._run()
        self._open = True
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
        if self._open:
            self._turn.broke_off(error or GeneratorExit(), self._progress.partial())

    def _run(self) -> Generator[ReplyEvent]:
        if self._turn.answered:
            self._end(self._turn.answered)
            yield from events_of(self._turn.answered)
        for _ in range(PAUSES):
            if not self._open:
                return
            yield from self._asked()

    def _asked(self) -> Generator[ReplyEvent]:
        self._progress = Progress()
        with contextlib.ExitStack() as stack:
            stream = self._progress.begin(self._entered(stack))
            try:
                for event in stream:
                    if piece := self._progress.see(event):
                        yield piece
            except ValueError as error:  # the SDK cannot parse the input of a tool, which it tells with all its text
                collections.deque(self._progress.rest, maxlen=0)
                raise self._turn.kept_as_text(self._progress.unread(), error) from None
            self._progress.check_ended()
        try:
            self._end(self._turn.finish(self._progress.whole(stream.get_final_message()), request_id=stream.request_id))
        except ConversationChanged:
            self._open = False  # the turn is not ours any more, and the reply is kept
            raise

    def _entered(self, stack: contextlib.ExitStack) -> Any:
        """Open the stream; once more without the turn's container if the API does not know that any longer."""
        api, arguments = self._settings.streamed(self._turn)
        try:
            return stack.enter_context(api.stream(**arguments))
        except Exception as error:
            if not self._turn.forget_container(error):
                raise
        api, arguments = self._settings.streamed(self._turn)
        return stack.enter_context(api.stream(**arguments))

    def _end(self, reply: Reply) -> None:
        self._reply, self._progress = reply, Progress()  # what had come so far is stored
        self._open = reply.stop_reason == "pause_turn"
        if self._open:
            self._turn.go_on()
