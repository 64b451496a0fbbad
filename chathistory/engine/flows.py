"""The steps that both engines share, as flows: generators that yield each call of the SDK for the engine to make.

This works like `auth_flow` in httpx. A flow works on the store and yields calls without arguments. It is sent what a
call returned, or has the call's error raised at the `yield`. `ChatEngine` makes the calls directly. `AsyncChatEngine`
awaits them, and runs the code between them in a thread.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from chathistory.engine.online_check import find_refused_place
from chathistory.engine.refusals import Refusal
from chathistory.engine.reply import Reply
from chathistory.engine.settings import EngineSettings
from chathistory.engine.stream_message import StreamProgress
from chathistory.engine.turn import Turn
from chathistory.errors import Conflict, ConversationChanged, InvalidInput
from chathistory.log.active_path import load_active
from chathistory.log.entry import make_message_entry
from chathistory.log.lease import check_no_open_turn
from chathistory.trimming.plan_cut import TrimResult, check_summary, plan_cut_of_all
from chathistory.trimming.policies import Summarize
from chathistory.view import build_active_view, build_view

__all__ = ["MAX_REQUESTS_PER_TURN", "Call", "CutFailedWarning", "Flow", "StreamedTurn"]

R = TypeVar("R")
T = TypeVar("T")
Call: TypeAlias = "Callable[[], Any]"
Flow: TypeAlias = "Generator[Call, Any, R]"

MAX_REQUESTS_PER_TURN = 20
"""Most requests that `send` and `stream` make in one turn, if its replies pause (stop reason "pause_turn").

After them, the turn is closed as it is.
"""


class CutFailedWarning(UserWarning):
    """A planned cut was skipped because its summary failed; all messages were sent.

    The policy tries again with the next turn.
    """


@contextlib.contextmanager
def _abort_on_error(turn: Turn) -> Iterator[None]:
    """Close the turn on any error, except when another writer changed the conversation: that has closed it already."""
    try:
        yield
    except ConversationChanged:
        raise
    except BaseException as error:
        turn.abort(error)
        raise


def request_reply(settings: EngineSettings, start: Callable[[], Turn | T]) -> Flow[Reply | T]:
    """Start a turn, send it, and return its reply.

    Args:
        settings: The settings of the engine.
        start: Stores the message and opens the turn. If there is nothing to send, it returns another value.

    Returns:
        The reply, or what `start` returned instead of a turn.

    Raises:
        IncompleteReply: Each of `MAX_REQUESTS_PER_TURN` requests failed for its container, so there is no reply.
        Exception: Errors of the SDK and of the store.
    """
    turn = start()
    if not isinstance(turn, Turn):
        return turn
    if turn.stored_reply:
        return turn.stored_reply
    reply = None
    with _abort_on_error(turn):
        yield from _carry_out_cut(settings, turn)
        for _ in range(MAX_REQUESTS_PER_TURN):
            try:
                response = yield settings.prepare_call("create", settings.request.build_arguments(turn))
            except Exception as error:
                if not turn.forget_container(error):
                    raise
                continue
            reply = turn.finish(response)
            if reply.stop_reason != "pause_turn":
                return reply
            turn.refresh_for_next_request()
    return turn.close_after(reply)


def run_tools(settings: EngineSettings, start: Callable[[], Turn], tools: Sequence[Any]) -> Flow[Reply]:
    """Start a turn, let the SDK's tool runner call tools until Claude is done, and store each step.

    Args:
        settings: The settings of the engine.
        start: Stores the message and opens the turn.
        tools: Tools as the SDK's tool runner takes them.

    Returns:
        The last reply.

    Raises:
        IncompleteReply: The turn ended without a reply.
        Exception: Errors of the SDK and of the store.
    """
    turn = start()
    if turn.stored_reply:
        return turn.stored_reply
    reply, goes_on = None, True
    with _abort_on_error(turn):
        yield from _carry_out_cut(settings, turn)
        while goes_on:
            runner = settings.build_tool_runner(
                turn, tools
            )  # a new one for each request: its own list of messages is not the view
            messages: Any = aiter(runner) if settings.asynchronous else iter(runner)
            advance: Callable[..., Any] = anext if settings.asynchronous else next
            try:
                while (message := (yield partial(advance, messages, None))) is not None:
                    reply = turn.finish(message, stays_open=message.stop_reason in ("tool_use", "pause_turn"))
                    goes_on = message.stop_reason == "pause_turn"
                    if message.stop_reason == "tool_use" and (results := (yield runner.generate_tool_call_response)):
                        turn.add_results(results)
                        goes_on = True
                    yield runner.close
            except Exception as error:
                if not turn.forget_container(error):
                    raise
    return turn.close_after(reply)


def _carry_out_cut(settings: EngineSettings, turn: Turn) -> Flow[None]:
    """Make the summary of a planned cut, and store the cut; if the summary fails, warn, and send the turn uncut."""
    if turn.plan is None:
        return
    policy, messages = turn.plan.policy, turn.list_cut_messages()
    try:
        if isinstance(policy, Summarize):
            is_awaited = settings.asynchronous and inspect.iscoroutinefunction(policy.by)
            answer = (yield partial(policy.by, messages)) if is_awaited else policy.by(messages)
            if settings.asynchronous and inspect.isawaitable(answer):
                summary = check_summary((yield lambda: answer))
            else:
                summary = check_summary(answer)
        else:
            summary = yield settings.prepare_call("create", settings.request.build_compaction_arguments(turn, messages))
        turn.store_cut(summary)
    except ConversationChanged:
        raise
    except Exception as error:  # noqa: BLE001 - the caller's function can raise anything
        turn.plan = None  # the next turn plans it again
        message = (
            f"conversation {turn.log.key.id!r} was not trimmed: making its summary raised {type(error).__name__}; "
            "all messages are sent, and the next turn tries again"
        )
        warnings.warn(message, CutFailedWarning, stacklevel=2)


def compact(settings: EngineSettings, scope: str, id: str) -> Flow[TrimResult | None]:
    """Have the API summarize a conversation, and store the summary.

    Args:
        settings: The settings of the engine.
        scope: The conversation's scope.
        id: The conversation's id.

    Returns:
        What was cut; None if there is nothing to summarize.

    Raises:
        TurnInProgress: A turn is open.
        Conflict: Another writer changed the conversation meanwhile.
        Exception: Errors of the SDK and of the store.
    """
    log = settings.open_log(scope, id)
    with log.lock:
        active = settings.apply_setup(load_active(log))
        plan = plan_cut_of_all(active) if active else None
        if active is None or plan is None:
            return None
        check_no_open_turn(log.key, active.state, timeout=settings.timeout)
    turn = Turn(log, "", settings.timeout, plan=plan, state=active.state)
    response = yield settings.prepare_call(
        "create", settings.request.build_compaction_arguments(turn, build_active_view(active).messages)
    )
    with log.lock:
        head = log.known_head()
        if head is None or head.version != active.head.version:
            raise Conflict(log.key, head.stored if head else None)
        log.append([*settings.setup.list_changes(active.state), plan.to_compaction_entry(response)])
    return plan.trimmed


def count_tokens(settings: EngineSettings, scope: str, id: str, content: Any) -> Flow[int]:
    """Have the API count the tokens of a conversation with one more message, which may have tool results.

    Args:
        settings: The settings of the engine.
        scope: The conversation's scope.
        id: The conversation's id.
        content: The content of the message; None: no further message.

    Returns:
        The number of input tokens.

    Raises:
        InvalidInput: The request would be empty, or would end with a reply.
        Exception: Errors of the SDK and of the store.
    """
    log = settings.open_log(scope, id)
    active = settings.apply_setup(load_active(log))
    new = [] if content is None else [make_message_entry({"role": "user", "content": content})]
    added = [replace(entry, position=active.head.end if active else 0, surrogates=True) for entry in new]
    sent = build_active_view(replace(active, entries=[*active.entries, *added])) if active else build_view(added)
    if not sent.messages or sent.messages[-1]["role"] == "assistant":
        raise InvalidInput(
            "content: must be given, because the conversation is empty or ends with a reply; the API only counts a "
            "request that ends with a user's message"
        )
    turn = Turn(log, "", settings.timeout, state=active.state if active else None)
    counted = yield settings.prepare_call("count_tokens", settings.request.build_count_arguments(turn, sent.messages))
    return int(counted.input_tokens)


def check(settings: EngineSettings, scope: str, id: str) -> Flow[Refusal | None]:
    """Ask the API whether a conversation can be sent.

    Args:
        settings: The settings of the engine.
        scope: The conversation's scope.
        id: The conversation's id.

    Returns:
        What the API refuses; None if it accepts everything, or there is no such conversation.

    Raises:
        Exception: See `find_refused_place`; and errors of the store.
    """
    log = settings.open_log(scope, id)
    active = settings.apply_setup(load_active(log))
    if active is None:
        return None
    turn = Turn(log, "", settings.timeout, state=active.state)
    return (
        yield from find_refused_place(
            active,
            lambda messages: settings.prepare_call(
                "count_tokens", settings.request.build_count_arguments(turn, messages)
            ),
        )
    )


class StreamedTurn:
    """The part of a streamed turn that both engines share.

    The turn is started when the `with` block is entered, and closed on exit if it is still open.
    """

    _turn: Turn

    def __init__(self, settings: EngineSettings, start: Callable[[], Turn]) -> None:
        """Internal: `ChatEngine.stream` creates it."""
        self._settings = settings
        self._start = start
        self._progress = StreamProgress()
        self._reply: Reply | None = None
        self._is_open = False

    def _start_turn(self) -> Flow[Turn]:
        turn = self._start()
        with _abort_on_error(turn):
            yield from _carry_out_cut(self._settings, turn)
        self._reply, self._is_open = turn.stored_reply, turn.stored_reply is None
        return turn

    def _store_reply(self, response: Any, request_id: str | None) -> None:
        """Store a complete reply; one that paused is continued by the next request."""
        try:
            self._reply = self._turn.finish(self._progress.fill_missing_fields(response), request_id=request_id)
            self._progress = StreamProgress()  # what was received so far is stored
            self._is_open = self._reply.stop_reason == "pause_turn"
            if self._is_open:
                self._turn.refresh_for_next_request()
        except ConversationChanged:
            self._is_open = False  # another process has the turn now, and the reply is saved
            raise
