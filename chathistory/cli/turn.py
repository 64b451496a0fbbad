"""One turn: the reply as it comes, and Ctrl-C only where it does no harm.

A stored message whose turn nobody closes would block the conversation for minutes. So signals wait while a turn is
opened and closed, and are let in while the reply comes, where they end it in good order.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from chathistory.engine.chat import ReplyStream
from chathistory.engine.reply import Reply

__all__ = ["NOTES", "make_writer", "play_turn"]

NOTES = {
    "max_tokens": "the reply was cut at the limit of max_tokens",
    "refusal": "Claude declined to answer; this turn is not sent again",
    "model_context_window_exceeded": "the conversation is too long for the model",
}
"""What is worth saying of a reply that is complete, by its stop reason."""

_SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]


def play_turn(stream: ReplyStream, write: Callable[[str], None]) -> Reply:
    """Send a turn, hand the reply's text to `write` piece by piece, and return the reply, which is saved by then.

    Ctrl-C raises `KeyboardInterrupt`, an end of the process asked for by others `SystemExit`; what had come is kept.
    """
    with _Signals() as signals, stream:
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


class _Signals:
    """Signals that would end this process, kept waiting but for a while in which they are let in."""

    def __init__(self) -> None:
        self._waiting: BaseException | None = None
        self._let_in = False

    def __enter__(self) -> Self:
        handled = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
        self._before = [(number, signal.signal(number, self._receive)) for number in handled]
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

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        again = self._waiting is not None
        if self._let_in or again:
            self._let_in = False
            raise error
        self._waiting = error
