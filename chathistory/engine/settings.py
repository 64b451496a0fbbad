"""The settings of an engine (client, request, setup, trimming), and what is built from them for each turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Self

from chathistory.checks import check_count, check_text, check_type, class_name
from chathistory.engine.clients import beta_of, check_client, check_options
from chathistory.engine.request import PromptSetup, RequestTemplate, to_sendable, to_sendable_tool
from chathistory.engine.start_turn import TurnStarter
from chathistory.engine.stored_turns import is_thinking_required
from chathistory.engine.turn import Turn
from chathistory.engine.view_cache import ViewCache
from chathistory.errors import InvalidInput
from chathistory.history import History
from chathistory.log.active_path import ActiveEntries
from chathistory.log.conversation_log import ConversationLog
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.policies import Policy, check_policy

__all__ = ["EngineSettings"]


_MAX_TURN_TIMEOUT = 10**9
"""In seconds, about 30 years: longer than anybody waits, and short enough for every clock and calendar."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What is the same for all turns of an engine.

    Attributes:
        history: The conversations.
        api: `client.messages` of the SDK.
        beta: `client.beta.messages`, or `api` if the client has no beta namespace.
        request: The arguments of each request.
        setup: The model, system prompt and tools, as they are stored.
        timeout: How long a turn without a reply counts as open, in seconds.
        view_cache: The views of recent conversations.
        trimming: The policy of automatic cuts; None: nothing is cut.
        asynchronous: Whether the calls of `api` and `beta` return awaitables.
    """

    history: History
    api: Any
    beta: Any
    request: RequestTemplate
    setup: PromptSetup
    timeout: float
    view_cache: ViewCache
    trimming: Policy | None
    asynchronous: bool

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
        """Check the arguments of an engine, and return its settings.

        Args:
            client: See `ChatEngine`.
            history: The conversations.
            asynchronous: Whether the engine is an `AsyncChatEngine`.
            tools: See `ChatEngine`.
            turn_timeout: See `ChatEngine`.
            trimming: See `ChatEngine`.
            context_editing: See `ChatEngine`.
            options: See `ChatEngine`.
            request: The arguments `model`, `system`, `max_tokens` and `cache` of `ChatEngine`.

        Returns:
            The settings.

        Raises:
            InvalidInput: An argument is invalid.
        """
        check_client(client, asynchronous=asynchronous)
        seconds: object = turn_timeout.total_seconds() if isinstance(turn_timeout, timedelta) else turn_timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise InvalidInput(f"turn_timeout: must be a number of seconds or a timedelta, not {class_name(seconds)}")
        if not 0 < seconds <= _MAX_TURN_TIMEOUT:  # also refuses NaN
            raise InvalidInput(f"turn_timeout: must be more than 0 and at most {_MAX_TURN_TIMEOUT:,} seconds")
        check_text("model", request["model"])
        check_count("max_tokens", request["max_tokens"], least=1)
        if tools is not None:
            check_type("tools", tools, Iterable, "a list of tools")
        if trimming is not None:
            check_policy("trimming", trimming)
        setup = PromptSetup.of(model=request["model"], system=request["system"], tools=tools)
        try:
            checked_options = to_sendable("options", check_options(options))
        except RecursionError:
            raise InvalidInput("options: must not contain themselves, nor be nested too deep") from None
        request |= {"system": setup.event.system, "tools": setup.event.tools}  # what is stored is what is sent
        template = RequestTemplate(**request, editing=context_editing, options=checked_options)
        return cls(
            history, client.messages, beta_of(client), template, setup, seconds, ViewCache(), trimming, asynchronous
        )

    def for_call(self, *, model: str | None, max_tokens: int | None) -> EngineSettings:
        """Return the settings of a call with a model or a maximum of tokens of its own.

        Args:
            model: The model; None: the engine's.
            max_tokens: The maximum length of the reply, in tokens; None: the engine's.

        Returns:
            These settings, or a copy with the changes.

        Raises:
            InvalidInput: An argument is invalid.
        """
        if model is None and max_tokens is None:
            return self
        if model is not None:
            check_text("model", model)
        if max_tokens is not None:
            check_count("max_tokens", max_tokens, least=1)
        most = self.request.max_tokens if max_tokens is None else max_tokens
        request = replace(self.request, model=model or self.request.model, max_tokens=most)
        return replace(self, request=request, setup=request.prompt_setup(request.tools))

    def build_turn_starter(
        self, scope: str, id: str, tools: Sequence[Any] | None = None, *, expected: str | None = None
    ) -> TurnStarter:
        """Return what opens turns of a conversation.

        Args:
            scope: The conversation's scope.
            id: The conversation's id.
            tools: Tools of the SDK's runner, instead of the engine's; None: the engine's.
            expected: The version that the caller has seen; None: any version.

        Returns:
            The starter.

        Raises:
            InvalidInput: An argument is invalid.
        """
        if expected is not None:
            check_text("expected", expected)
        setup = self.setup if tools is None else self.request.prompt_setup(tools)
        return TurnStarter(self.open_log(scope, id), setup, self.timeout, self.view_cache, self.trimming, expected)

    def open_log(self, scope: str, id: str) -> ConversationLog:
        """Return the log of a conversation, which need not exist.

        Args:
            scope: The conversation's scope.
            id: The conversation's id.

        Returns:
            The log.
        """
        return ConversationLog(self.history.store, self.history.key(id, scope))

    def prepare_call(self, method: str, arguments: dict[str, Any]) -> Callable[[], Any]:
        """Return a call of the SDK, to be made by a flow's driver.

        Arguments with `betas` are only accepted by the beta namespace. Streams are made there, too, if the client has
        them there: the other namespace does not know the deltas of beta blocks, and loses their content.

        Args:
            method: "create", "stream" or "count_tokens".
            arguments: The arguments of the method.

        Returns:
            A function without parameters that makes the call.
        """
        is_beta = callable(getattr(self.beta, "stream", None)) if method == "stream" else "betas" in arguments
        return partial(getattr(self.beta if is_beta else self.api, method), **arguments)

    def build_tool_runner(self, turn: Turn, tools: Sequence[Any]) -> Any:
        """Return the SDK's tool runner for a turn, without message threads (they keep a copy on the server).

        Args:
            turn: The turn.
            tools: Tools as the runner takes them.

        Returns:
            The runner.
        """
        request = replace(self.request, tools=[to_sendable_tool(tool) for tool in tools])
        return self.beta.tool_runner(**request.build_arguments(turn) | {"thread": False})

    def apply_setup(self, active: ActiveEntries | None) -> ActiveEntries | None:
        """Return active entries as they are sent with this setup: without thinking that is bound to another one.

        If the API requires thinking of the last reply, `drop_stale_thinking` is set instead, as when a turn is opened.

        Args:
            active: The active entries; None: the conversation does not exist.

        Returns:
            The entries, with their state changed if the setup did.
        """
        if active is None or active.state.view.drop_stale_thinking or not self.setup.invalidates_thinking(active.state):
            return active
        view = active.state.view
        if is_thinking_required(active):
            view = replace(view, drop_stale_thinking=True)
        else:
            view = replace(view, thinking_valid_from=active.head.end)
        return replace(active, head=replace(active.head, state=replace(active.state, view=view)))
