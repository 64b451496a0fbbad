"""The engine for synchronous programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Self

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

__all__ = ["ChatEngine", "ReplyStream"]


class ChatEngine:
    """Sends what a user says to Claude, with all that was said before, and saves both.

    The message is durable before the request goes out, the reply as soon as it is complete. Any process with the same
    store goes on with any conversation. Errors of the SDK pass through as they are, with a note of what was saved.
    """

    def __init__(
        self,
        client: Any,
        store: HistoryStore | History,
        *,
        model: str,
        system: str | Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Any] | None = None,
        max_tokens: int = MAX_TOKENS,
        turn_timeout: float = TURN_TIMEOUT,
        cache: bool = True,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Use a client of the Anthropic SDK (any object with its `.messages`), and a store; both stay the caller's.

        turn_timeout: seconds for which a turn without a reply counts as in progress. cache: let the API cache the
        prompt. options: further arguments of `messages.create`, such as {"thinking": {"type": "adaptive"}}.
        """
        self.history = store if isinstance(store, History) else History(store)
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
        """Return an engine on the store and with the model that the configuration names; close it, or use `with`.

        client: None for one of its own. profile: the name of the one to use. config: a file to read in place of those
        that would be found. store, scope and arguments (those of the constructor) stand above what is configured.

        Raises `ConfigError` for what is wrong in any place, and if no place names a store.
        """
        found = configured(client, arguments, profile=profile, config=config, store=store, scope=scope)
        own = found.client() if client is None else client
        engine = cls(own, found.history, **found.arguments)
        engine._closing = (found.history, *([own] if client is None else []))
        return engine

    def close(self) -> None:
        """Close what `from_config` opened; a client and a store that were handed in stay open."""
        for each in self._closing:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def send(self, id: str, content: Any, *, scope: str = OWN_SCOPE, turn_id: str | None = None) -> Reply:
        """Say something in a conversation (which begins with it, if it is new) and return Claude's reply.

        content: text, or content blocks such as tool results. turn_id: a name of the caller's for this turn; given
        again, after a crash or a lost answer, it is not sent twice: the stored reply is returned.

        Raises `TurnInProgress` if another turn of the conversation is open, before any token is paid for,
        `TurnMismatch` if the `turn_id` was used for other content, `OrphanedReply` if somebody else changed the
        conversation while Claude answered, the SDK's errors, and those of the store.
        """
        return self._answered(self._opening(scope, id).begin(content, turn_id=turn_id))

    def resume(self, id: str, *, scope: str = OWN_SCOPE) -> Reply | None:
        """Send the last turn again if it has no reply (its process died, its request failed); None: it has one."""
        turn = self._opening(scope, id).resume()
        return self._answered(turn) if turn else None

    def abandon(self, id: str, *, scope: str = OWN_SCOPE) -> bool:
        """Close the open turn of a conversation, whoever holds it; False: there was none."""
        return abandon(self._journal(scope, id))

    def stream(self, id: str, content: Any, *, scope: str = OWN_SCOPE, turn_id: str | None = None) -> ReplyStream:
        """Like `send`, with the text as it comes; use it with `with`. Nothing happens before that."""
        opening = self._opening(scope, id)
        return ReplyStream(self._api, self._request, lambda: opening.begin(content, turn_id=turn_id))

    def stream_resumed(self, id: str, *, scope: str = OWN_SCOPE) -> ReplyStream:
        """Like `resume`, with the text as it comes. Raises `TurnError` on entry if there is nothing to resume."""
        return ReplyStream(self._api, self._request, self._opening(scope, id).resumable)

    def run_tools(
        self, id: str, content: Any, *, tools: Sequence[Any], scope: str = OWN_SCOPE, turn_id: str | None = None
    ) -> Reply:
        """Say something and let the SDK's tool runner call `tools` until Claude is done; return the last reply.

        tools: functions made with the SDK's `beta_tool`, or what else its `tool_runner` takes. Each reply and each set
        of results is stored as it happens, so a crash loses none of them. content None: go on with a turn that broke
        off, as `resume` does; calls without a result are then answered with an error, for they may have run.
        """
        opening = Opening(self._journal(scope, id), self._request.setup(tools), self._timeout, self._recall)
        turn = opening.resumable() if content is None else opening.begin(content, turn_id=turn_id)
        return turn.answered or self._ran(turn, self._request.tool_runner(self._beta, turn, tools))

    def _ran(self, turn: Turn, runner: Any) -> Reply:
        reply = None
        try:
            for message in runner:
                reply = turn.finish(message, more=message.stop_reason in GOES_ON)
                if message.stop_reason == "tool_use" and (results := runner.generate_tool_call_response()):
                    turn.add_results(results)
        except Conflict:
            raise  # the turn is not ours any more, and the reply is kept
        except BaseException as error:
            turn.broke_off(error)
            raise
        return turn.left_at(reply)

    def _journal(self, scope: str, name: str) -> Journal:
        return Journal(self.history.store, self.history.key(name, scope))

    def _opening(self, scope: str, name: str) -> Opening:
        return Opening(self._journal(scope, name), self._setup, self._timeout, self._recall)

    def _answered(self, turn: Turn) -> Reply:
        reply = turn.answered
        for _ in range(PAUSES):
            if reply and reply.stop_reason != "pause_turn":
                break
            reply = self._asked(turn)
        assert reply is not None  # noqa: S101  # asked at least once
        return reply

    def _asked(self, turn: Turn) -> Reply:
        try:
            reply = turn.finish(self._api.create(**self._request.arguments(turn.messages, container=turn.container)))
            if reply.stop_reason == "pause_turn":
                turn.go_on()
        except Conflict:
            raise  # the turn is not ours any more, and the reply is kept
        except BaseException as error:
            turn.broke_off(error)
            raise
        return reply


class ReplyStream:
    """A reply as it comes: iterate over pieces of text; `reply` is the whole, once it is complete and saved.

    Leaving the `with` block before the end (an error, Ctrl-C, a break) closes the turn and keeps what had come as an
    `interrupted` record, which is shown to people and not sent to Claude.
    """

    def __init__(self, api: Any, request: Request, opening: Callable[[], Turn]) -> None:
        self._api = api
        self._request = request
        self._opening = opening
        self._progress = Progress()
        self._reply: Reply | None = None

    def __enter__(self) -> Self:
        self._turn = self._opening()
        self._pieces = self._run()
        self._open = True
        return self

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def reply(self) -> Reply:
        """The whole reply; what has not been iterated over is received first."""
        for _ in self._pieces:
            pass
        if self._reply is None:
            msg = "the reply broke off"
            raise IncompleteReply(msg)
        return self._reply

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._pieces.close()
        if self._open:
            self._turn.broke_off(error or GeneratorExit(), self._progress.partial())

    def _run(self) -> Generator[str]:
        if self._turn.answered:
            self._end(self._turn.answered)
            yield self._turn.answered.text
        for _ in range(PAUSES):
            if not self._open:
                return
            yield from self._asked()

    def _asked(self) -> Generator[str]:
        self._progress = Progress()
        with self._api.stream(**self._request.arguments(self._turn.messages, container=self._turn.container)) as stream:
            self._progress.stream = stream
            for event in stream:
                if text := self._progress.see(event):
                    yield text
            self._progress.check_ended()
        try:
            self._end(self._turn.finish(stream.get_final_message(), request_id=stream.request_id))
        except Conflict:
            self._open = False  # the turn is not ours any more, and the reply is kept
            raise

    def _end(self, reply: Reply) -> None:
        self._reply = reply
        self._open = reply.stop_reason == "pause_turn"
        if self._open:
            self._turn.go_on()
