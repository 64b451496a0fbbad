"""What both engines do, once: flows that work on the store, and yield each call of the SDK for the engine to make.

As in httpx, whose `auth_flow` yields requests and is sent the responses: a flow is a generator that is sent what its
call answered, or has the call's error raised where it yielded. `ChatEngine` makes the calls at once, `AsyncChatEngine`
awaits them, and runs what lies between them in a thread.
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
from chathistory.log.entry import message_entry
from chathistory.log.lease import check_free
from chathistory.trimming.plan_cut import TrimResult, check_summary, plan_cut_of_all
from chathistory.trimming.policies import Summarize
from chathistory.view import view, view_of

__all__ = ["MAX_PAUSES", "Call", "CutFailedWarning", "Flow", "StreamedTurn"]

R = TypeVar("R")
T = TypeVar("T")
Call: TypeAlias = "Callable[[], Any]"
Flow: TypeAlias = "Generator[Call, Any, R]"

MAX_PAUSES = 20
"""How many requests one turn may take whose replies pause (stop reason "pause_turn"); then it is closed as it is."""


class CutFailedWarning(UserWarning):
    """What was to stand for the messages that a cut leaves out could not be made, so that they are sent once more."""


@contextlib.contextmanager
def _abort_on_error(turn: Turn) -> Iterator[None]:
    """Close the turn if it breaks off; if somebody changed the conversation, it is not ours, and the reply is kept."""
    try:
        yield
    except ConversationChanged:
        raise
    except BaseException as error:
        turn.abort(error)
        raise


def request_reply(settings: EngineSettings, start: Callable[[], Turn | T]) -> Flow[Reply | T]:
    """Start a turn, send it, and return its reply; what `start` returns instead of a turn is returned as it is."""
    turn = start()
    if not isinstance(turn, Turn):
        return turn
    if turn.stored_reply:
        return turn.stored_reply
    reply = None
    with _abort_on_error(turn):
        yield from _carry_out_cut(settings, turn)
        for _ in range(MAX_PAUSES):
            try:
                response = yield settings.prepare_call("create", settings.request.build_arguments(turn))
            except Exception as error:
                if not turn.forget_container(error):
                    raise
                continue
            reply = turn.finish(response)
            if reply.stop_reason != "pause_turn":
                return reply
            turn.continue_turn()
    return turn.close_after(reply)


def run_tools(settings: EngineSettings, start: Callable[[], Turn], tools: Sequence[Any]) -> Flow[Reply]:
    """Start a turn and let the SDK's runner call tools until Claude is done; store each of its steps."""
    turn = start()
    if turn.stored_reply:
        return turn.stored_reply
    reply, goes_on = None, True
    with _abort_on_error(turn):
        yield from _carry_out_cut(settings, turn)
        while goes_on:
            runner = settings.build_tool_runner(turn, tools)  # one for each request: its own list is not the view
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
    """Make what a planned cut needs, and store it; a summary that fails is no reason to leave a turn unanswered."""
    if turn.plan is None:
        return
    policy, messages = turn.plan.policy, turn.list_cut_messages()
    try:
        if isinstance(policy, Summarize):
            is_awaited = settings.asynchronous and inspect.iscoroutinefunction(policy.by)
            summary = (yield partial(policy.by, messages)) if is_awaited else policy.by(messages)
            if settings.asynchronous and inspect.isawaitable(summary):
                made = check_summary((yield lambda: summary))
            else:
                made = check_summary(summary)
        else:
            made = yield settings.prepare_call("create", settings.request.build_compaction_arguments(turn, messages))
        turn.store_cut(made)
    except ConversationChanged:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the caller's function raises
        turn.plan = None  # it can be made with the next turn
        words = f"conversation {turn.log.key.id!r} was not cut: {type(error).__name__} while it was summed up"
        warnings.warn(words, CutFailedWarning, stacklevel=2)


def compact(settings: EngineSettings, scope: str, id: str) -> Flow[TrimResult | None]:
    """Have the API sum up all that was said so far, and store that; None: there is nothing."""
    log = settings.open_log(scope, id)
    with log.lock:
        active = settings.apply_setup(load_active(log))
        plan = plan_cut_of_all(active) if active else None
        if active is None or plan is None:
            return None
        check_free(log.key, active.state, timeout=settings.timeout)
    turn = Turn(log, "", settings.timeout, plan=plan, state=active.state)
    response = yield settings.prepare_call(
        "create", settings.request.build_compaction_arguments(turn, view_of(active).messages)
    )
    with log.lock:
        head = log.seen()
        if head is None or head.version != active.head.version:
            raise Conflict(log.key, head.stored if head else None)
        log.append([*settings.setup.list_changes(active.state), plan.to_compaction_entry(response)])
    return plan.trimmed


def count_tokens(settings: EngineSettings, scope: str, id: str, content: Any) -> Flow[int]:
    """Have the API count what would be sent with one more message, which may hold results of tools."""
    log = settings.open_log(scope, id)
    active = settings.apply_setup(load_active(log))
    new = [] if content is None else [message_entry({"role": "user", "content": content})]
    behind = [replace(entry, position=active.head.end if active else 0, surrogates=True) for entry in new]
    found = view_of(replace(active, entries=[*active.entries, *behind])) if active else view(behind)
    if not found.messages or found.messages[-1]["role"] == "assistant":
        raise InvalidInput("say what is to be sent next: the API counts no request that ends with a reply")
    turn = Turn(log, "", settings.timeout, state=active.state if active else None)
    counted = yield settings.prepare_call("count_tokens", settings.request.build_count_arguments(turn, found.messages))
    return int(counted.input_tokens)


def check(settings: EngineSettings, scope: str, id: str) -> Flow[Refusal | None]:
    """Ask the API whether a conversation can be sent; return what it refuses, None: nothing."""
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
    """A turn whose reply is streamed: what is the same for both engines.

    The turn is started on entry, and closed on exit if it is still open then.
    """

    _turn: Turn

    def __init__(self, settings: EngineSettings, start: Callable[[], Turn]) -> None:
        """Internal: `ChatEngine.stream` makes it."""
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
        """Store what has come whole; a reply that paused is continued by the next request."""
        try:
            self._reply = self._turn.finish(self._progress.fill_missing_fields(response), request_id=request_id)
            self._progress = StreamProgress()  # what had come so far is stored
            self._is_open = self._reply.stop_reason == "pause_turn"
            if self._is_open:
                self._turn.continue_turn()
        except ConversationChanged:
            self._is_open = False  # the turn is not ours any more, and the reply is kept
            raise
