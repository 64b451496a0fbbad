"""On which terms an engine holds its conversations: client, request, setup, trimming; the same in both engines."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Self

from chathistory.checks import check_count, check_kind, check_text, class_name
from chathistory.engine.clients import beta_of, check_client, check_options
from chathistory.engine.online_check import Questions, questions
from chathistory.engine.prompt_setup import PromptSetup, encodable_tool, sendable_options
from chathistory.engine.request import Request
from chathistory.engine.start_turn import TurnStarter
from chathistory.engine.stored_turns import is_thinking_wanted
from chathistory.engine.turn import Turn
from chathistory.engine.view_cache import ViewCache
from chathistory.errors import Conflict, InvalidInput
from chathistory.history import History
from chathistory.log.active_path import ActiveEntries, load_active
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry
from chathistory.log.lease import check_free
from chathistory.log.message_entries import message_entry
from chathistory.messages.content import Message
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.plan_cut import TrimResult, plan_cut_of_all
from chathistory.trimming.policies import Policy, Summarize, check_policy
from chathistory.view import view, view_of

__all__ = ["CutFailedWarning", "EngineSettings"]


class CutFailedWarning(UserWarning):
    """What was to stand for the messages that a cut leaves out could not be made, so that they are sent once more."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What is the same for all turns of an engine. api, beta: the SDK's messages, and those of its beta namespace."""

    history: History
    api: Any
    beta: Any
    request: Request
    setup: PromptSetup
    timeout: float
    recall: ViewCache
    trimming: Policy | None

    @classmethod
    def of(
        cls,
        client: Any,
        history: History,
        *,
        asynchronous: bool,
        tools: Sequence[Any] | None,
        turn_timeout: float | timedelta,
        trimming: Policy | None,
        context_editing: ContextEditing | None,
        options: Mapping[str, Any] | None,
        **request: Any,
    ) -> Self:
        """Take what an engine is made with. Raises `InvalidInput` for a client, policy or option that cannot work."""
        check_client(client, asynchronous=asynchronous)
        timeout = _timeout_of(turn_timeout)
        check_text("model", request["model"])
        check_count("max_tokens", request["max_tokens"], least=1)
        if tools is not None:
            check_kind("tools", tools, Iterable, "a list of tools")
        if trimming is not None:
            check_policy("trimming", trimming)
        setup = PromptSetup.of(model=request["model"], system=request["system"], tools=tools)
        held: dict[str, Any] = {
            name: getattr(setup.event, name) for name in ("system", "tools")
        }  # sent is what is stored
        made = Request(**{**request, **held}, editing=context_editing, options=_options(options))
        return cls(history, client.messages, beta_of(client), made, setup, timeout, ViewCache(), trimming)

    def for_call(self, *, model: str | None, max_tokens: int | None) -> EngineSettings:
        """Return the settings of a call that names a model or a number of tokens of its own; None: the engine's."""
        if model is None and max_tokens is None:
            return self
        if model is not None:
            check_text("model", model)
        if max_tokens is not None:
            check_count("max_tokens", max_tokens, least=1)
        most = self.request.max_tokens if max_tokens is None else max_tokens
        request = replace(self.request, model=model or self.request.model, max_tokens=most)
        return replace(self, request=request, setup=request.setup(request.tools))

    def opening(
        self, scope: str, id: str, tools: Sequence[Any] | None = None, *, expected: str | None = None
    ) -> TurnStarter:
        """Return what opens turns of a conversation; tools: those of the SDK's runner, in place of the engine's."""
        if expected is not None:
            check_text("expected", expected)
        setup = self.setup if tools is None else self.request.setup(tools)
        return TurnStarter(self.log(scope, id), setup, self.timeout, self.recall, self.trimming, expected)

    def log(self, scope: str, id: str) -> ConversationLog:
        """Return the log of a conversation."""
        return ConversationLog(self.history.store, self.history.key(id, scope))

    def asked(self, turn: Turn) -> tuple[Any, dict[str, Any]]:
        """Return where to send a turn, and the arguments."""
        return self._placed(self.request.arguments(turn))

    def streamed(self, turn: Turn) -> tuple[Any, dict[str, Any]]:
        """Return where to have a turn streamed, and the arguments.

        That is the beta namespace where there is one: the other one does not know the deltas of beta blocks, and so
        leaves out what they say.
        """
        api = self.beta if callable(getattr(self.beta, "stream", None)) else self.api
        return api, self.request.arguments(turn)

    def _placed(self, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the arguments and where they go: what names betas is taken by the beta namespace alone."""
        return (self.beta if "betas" in arguments else self.api), arguments

    def tool_runner(self, turn: Turn, tools: Sequence[Any]) -> Any:
        """Return the SDK's tool runner for a turn; without its threads, which keep a copy on the server."""
        request = replace(self.request, tools=[encodable_tool(tool) for tool in tools])
        return self.beta.tool_runner(**request.arguments(turn) | {"thread": False})

    def counting(self, scope: str, id: str, content: Any) -> tuple[Any, dict[str, Any]]:
        """Return where to have counted what would be sent with one more message, and the arguments."""
        log = self.log(scope, id)
        sent = self._held(load_active(log))
        new = [] if content is None else [message_entry({"role": "user", "content": content})]
        messages = _with(sent, new)
        if not messages or messages[-1]["role"] == "assistant":
            raise InvalidInput("say what is to be sent next: the API counts no request that ends with a reply")
        turn = Turn(log, "", self.timeout, state=sent.state if sent else None)
        return self._placed(self.request.counting(turn, messages))

    def checking(self, scope: str, id: str) -> tuple[Questions, Callable[[list[Message]], dict[str, Any]]] | None:
        """Return the questions that find what the API refuses of a conversation, and what makes a request of one.

        None: there is no such conversation.
        """
        log = self.log(scope, id)
        sent = self._held(load_active(log))
        if sent is None:
            return None
        turn = Turn(log, "", self.timeout, state=sent.state)
        return questions(sent), lambda messages: self.request.counting(turn, messages)

    def counter(self, arguments: dict[str, Any]) -> Any:
        """Return what counts the tokens of a request with these arguments."""
        return self._placed(arguments)[0].count_tokens

    def _held(self, sent: ActiveEntries | None) -> ActiveEntries | None:
        """Return what is sent when it is held with this setup: without thinking that is bound to another one.

        If the API wants some of that back, it is asked to drop it itself, as when a turn is opened.
        """
        if sent is None or sent.state.view.drop_block or not self.setup.invalidates_thinking(sent.state):
            return sent
        view = sent.state.view
        if is_thinking_wanted(sent):
            view = replace(view, drop_block=True)
        else:
            view = replace(view, thinking_valid_from=sent.head.end)
        return replace(sent, head=replace(sent.head, state=replace(sent.state, view=view)))

    # Cuts for which something has to be made first.

    def writer(self, turn: Turn) -> tuple[Any, list[Message]]:
        """Return what makes the summary for a planned cut (None: the API does), and the messages that it stands for."""
        policy = turn.plan.policy if turn.plan else None
        return (policy.by if isinstance(policy, Summarize) else None), turn.to_sum_up()

    def uncut(self, turn: Turn, error: Exception) -> None:
        """Go on without the planned cut: it can be made with the next turn."""
        turn.plan = None
        words = f"conversation {turn.log.key.id!r} was not cut: {type(error).__name__} while it was summed up"
        try:
            warnings.warn(words, CutFailedWarning, stacklevel=2)
        except CutFailedWarning as raised:  # warnings may be errors
            turn.broke_off(raised)
            raise

    def whole(self, scope: str, id: str) -> tuple[Turn, list[Message]] | None:
        """Return a compaction of all that was said so far, as a turn that is not opened, and those messages."""
        log = self.log(scope, id)
        with log.lock:
            sent = self._held(load_active(log))
            plan = plan_cut_of_all(sent) if sent else None
            if sent is None or plan is None:
                return None
            check_free(log.key, sent.state, timeout=self.timeout)
            turn = Turn(log, sent.head.revision.version, self.timeout, plan=plan, state=sent.state)
            return turn, view_of(sent).messages

    def compacted(self, turn: Turn, response: Any) -> TrimResult:
        """Store a compaction of all that was said. Raises `Conflict` if somebody wrote meanwhile."""
        assert turn.plan is not None  # noqa: S101  # `whole` made it
        with turn.log.lock:
            head = turn.log.seen()
            if head is None or head.version != turn.id:
                raise Conflict(turn.log.key, head.stored if head else None)
            turn.log.append([*self.setup.entries(turn.state), turn.plan.compaction(response)])
        return turn.plan.trimmed


def _timeout_of(given: object) -> float:
    """Return the seconds for which a turn counts as open. Raises `InvalidInput` for what is no such time."""
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidInput(f"turn_timeout: must be a number of seconds or a timedelta, not {class_name(given)}")
    if not 0 < seconds <= _LONGEST_TURN:  # neither does NaN pass
        raise InvalidInput(f"turn_timeout: must be more than 0 and at most {_LONGEST_TURN:,} seconds")
    return seconds


_LONGEST_TURN = 10**9
"""Seconds, some 30 years: longer than anybody waits, and short enough for every clock and calendar."""


def _options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return further arguments of a request. Raises `InvalidInput` for what must not be there, or holds itself."""
    try:
        return sendable_options(check_options(given))
    except RecursionError:
        pass
    raise InvalidInput("options: must not hold themselves, nor be nested too deep")


def _with(sent: ActiveEntries | None, new: Sequence[Entry]) -> list[Message]:
    """Return the messages that are sent when something is said next: results of tools may be among it."""
    behind: list[Entry] = [replace(entry, position=sent.head.end if sent else 0, surrogates=True) for entry in new]
    if sent is None:
        return view(behind).messages
    return view_of(replace(sent, entries=[*sent.entries, *behind])).messages
