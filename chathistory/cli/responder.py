"""Who replies (Claude, through the Anthropic SDK, or a fake without a model), and one turn with its streamed reply.

A stored message with a turn that nobody closes would block the conversation for minutes. So signals such as Ctrl-C are
deferred while a turn is opened or closed. They are delivered while the reply is streamed, where they end the turn
properly.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self

import click

from chathistory.config.settings import MODEL, Settings
from chathistory.conversation import Conversation
from chathistory.engine.chat import ChatEngine, ReplyStream
from chathistory.engine.reply import Reply
from chathistory.history import History

__all__ = ["FAKE_MODEL", "STOP_REASONS", "Responder", "make_responder", "make_writer", "play_turn"]

FAKE_MODEL = "fake"
"""The model name that is stored with replies of the fake, so that nobody takes them for Claude's."""

STOP_REASONS = {
    "max_tokens": "the reply was cut at the limit of max_tokens",
    "refusal": "Claude declined to answer; this turn is not sent again",
    "model_context_window_exceeded": "the conversation is too long for the model",
}
"""The note after a complete reply, by its stop reason."""

_SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]


@dataclass(frozen=True, slots=True)
class Responder:
    """A client of the SDK, and the model to ask.

    Attributes:
        client: The client; the caller of `make_responder` closes it.
        settings: The settings in force.
        model: The model to ask; None: the conversation's last model.
        name: The name to show before replies: "claude" or "fake".
    """

    client: Any
    settings: Settings
    model: str | None
    name: str = "claude"

    def make_engine(
        self, history: History, conversation: Conversation, *, system: str | None = None, only_check: bool = False
    ) -> ChatEngine:
        """Return an engine that continues a conversation with its model and system prompt.

        Args:
            history: The history of the conversation.
            conversation: The conversation; it need not exist.
            system: A system prompt in place of the stored one; "": none; None: the stored one.
            only_check: Whether the engine only asks the API if it accepts the conversation: all of it, with its tools.
        """
        setup = conversation.setup() or {}
        stored = setup.get("model")
        options: dict[str, Any] = (
            {"tools": setup.get("tools")}
            if only_check
            else {"trimming": self.settings.trimming, "context_editing": self.settings.context_editing}
        )
        return ChatEngine(
            self.client,
            history,
            model=self.model or (None if stored == FAKE_MODEL else stored) or MODEL,
            system=setup.get("system") if system is None else system or None,
            max_tokens=self.settings.max_tokens,
            **options,
        )


class NoKey(click.UsageError):
    """There is no API key for Claude."""

    def show(self, file: Any = None) -> None:  # without the usage line: the command line is right
        click.ClickException.show(self, file)


def make_responder(settings: Settings, model: str | None = None, *, fake: bool = False) -> Responder:
    """Return the client and the model that reply.

    Args:
        settings: The settings in force, which may set a model.
        model: The model of the option --model; it overrides the settings.
        fake: Reply without a model. These replies are stored with a model name of their own.

    Raises:
        NoKey: The SDK finds no API key.
    """
    if fake:
        from chathistory.testing import FakeMessagesAPI  # only the fake needs it

        api = FakeMessagesAPI(models=[FAKE_MODEL], check_thinking=False)
        return Responder(api.client(), settings, FAKE_MODEL, FAKE_MODEL)
    import anthropic  # takes 0.8 s and 65 MB

    client = anthropic.Anthropic()
    if not (client.api_key or client.auth_token or client.credentials):
        raise NoKey(
            "there is no API key: set ANTHROPIC_API_KEY to chat with Claude, or add --fake to try everything without a "
            "key and without a model (the conversation is really saved)"
        )
    return Responder(client, settings, model or (settings.model if settings.is_set("model") else None))


def play_turn(stream: ReplyStream, write: Callable[[str], None]) -> Reply:
    """Send a turn, pass the reply's text to `write` piece by piece, and return the saved reply.

    Args:
        stream: The stream of the turn, not entered yet.
        write: Gets each piece of text.

    Raises:
        KeyboardInterrupt: Ctrl-C; the partial reply is saved.
        SystemExit: Another signal asked the process to end; the partial reply is saved.
    """
    with _DeferredSignals() as signals, stream:
        with signals.let_in():
            for piece in stream:
                write(piece)
        return stream.get_final_reply()


def make_writer() -> Callable[[str], None]:
    """Return a function that writes text to standard output without buffering, until nobody reads it.

    When the reader has gone it writes nothing more and raises nothing: the reply is paid for, so it is still received
    and saved.
    """
    is_closed = False

    def write(text: str) -> None:
        nonlocal is_closed
        try:
            if not is_closed:
                sys.stdout.write(text)
                sys.stdout.flush()
        except BrokenPipeError:
            is_closed = True

    return write


class _DeferredSignals:
    """Defers the signals that would end this process, except while `let_in` is active."""

    def __init__(self) -> None:
        self._waiting: BaseException | None = None
        self._let_in = False

    def __enter__(self) -> Self:
        handled = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        self._before = [(number, signal.signal(number, self._handle_signal)) for number in handled]
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)
        if isinstance(self._waiting, SystemExit):
            raise self._waiting

    @contextmanager
    def let_in(self) -> Iterator[None]:
        self._let_in = True
        try:
            if waiting := self._waiting:
                self._waiting = None
                raise waiting
            yield
        finally:
            self._let_in = False

    def _handle_signal(self, number: int, _frame: FrameType | None) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        is_second = self._waiting is not None
        if self._let_in or is_second:
            self._let_in = False
            raise error
        self._waiting = error
