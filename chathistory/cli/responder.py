"""Who replies (Claude, through the Anthropic SDK, or a fake without a model), and one turn with the reply as it comes.

A stored message whose turn nobody closes would block the conversation for minutes. So signals such as Ctrl-C wait
while a turn is opened and closed, and are let in while the reply comes, where they end it in good order.
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
"""The model that replies of the fake are stored under, so that they are never taken for Claude's."""

STOP_REASONS = {
    "max_tokens": "the reply was cut at the limit of max_tokens",
    "refusal": "Claude declined to answer; this turn is not sent again",
    "model_context_window_exceeded": "the conversation is too long for the model",
}
"""What is worth saying of a reply that is complete, by its stop reason."""

_SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]


@dataclass(frozen=True, slots=True)
class Responder:
    """A client of the SDK, and the model to ask.

    Attributes:
        client: The client; to be closed by whoever asked for it.
        settings: The settings in force.
        model: The model that is asked for; None: that of the conversation.
        name: What the one who replies is called: "claude" or "fake".
    """

    client: Any
    settings: Settings
    model: str | None
    name: str = "claude"

    def make_engine(
        self, history: History, conversation: Conversation, *, system: str | None = None, only_check: bool = False
    ) -> ChatEngine:
        """Return an engine that continues a conversation with the model and the system prompt that it had.

        Args:
            history: The history that the conversation is in.
            conversation: The conversation; it need not exist.
            system: Another system prompt; "": without one.
            only_check: Whether the engine only asks the API if the conversation can be sent: all of it, with its tools.
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
    """Claude cannot be asked without a key."""

    def show(self, file: Any = None) -> None:  # without the usage, which is right
        click.ClickException.show(self, file)


def make_responder(settings: Settings, model: str | None = None, *, fake: bool = False) -> Responder:
    """Return who replies.

    Args:
        settings: The settings in force: a model that they set is asked for.
        model: The model that a flag names.
        fake: Reply without a model. Its replies are stored under a model name of their own.

    Raises:
        NoKey: The SDK finds no key.
    """
    if fake:
        from chathistory.testing import FakeMessagesAPI  # only this needs it

        api = FakeMessagesAPI(models=[FAKE_MODEL], check_thinking=False)
        return Responder(api.client(), settings, FAKE_MODEL, FAKE_MODEL)
    import anthropic  # costs 0.8 s and 65 MB

    client = anthropic.Anthropic()
    if not (client.api_key or client.auth_token or client.credentials):
        raise NoKey(
            "there is no API key: set ANTHROPIC_API_KEY=... to talk with Claude, or add --fake to try everything "
            "without a key and without a model (your conversation is saved all the same)"
        )
    return Responder(client, settings, model or (settings.model if settings.is_set("model") else None))


def play_turn(stream: ReplyStream, write: Callable[[str], None]) -> Reply:
    """Send a turn, hand the reply's text to `write` piece by piece, and return the reply, which is saved by then.

    Ctrl-C raises `KeyboardInterrupt`, an end of the process asked for by others `SystemExit`; what had come is kept.
    """
    with _DeferredSignals() as signals, stream:
        with signals.let_in():
            for piece in stream:
                write(piece)
        return stream.get_final_reply()


def make_writer() -> Callable[[str], None]:
    """Return a function that writes to standard output at once, and is silent once nobody reads it.

    A reply that is under way is paid for: it is received and saved all the same.
    """
    gone = False

    def write(text: str) -> None:
        nonlocal gone
        try:
            if not gone:
                sys.stdout.write(text)
                sys.stdout.flush()
        except BrokenPipeError:
            gone = True

    return write


class _DeferredSignals:
    """Signals that would end this process, kept waiting but for a while in which they are let in."""

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
        again = self._waiting is not None
        if self._let_in or again:
            self._let_in = False
            raise error
        self._waiting = error
