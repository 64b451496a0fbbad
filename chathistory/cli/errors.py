"""Errors in a line or two: what went wrong, what is saved, what to do about it. Tracebacks only for `--debug`."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

from chathistory.cli.escape import one_line, safe
from chathistory.errors import ChatHistoryError, CorruptRecord, OrphanedReply, TurnInProgress

__all__ = ["explained", "is_known", "report"]

KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_LONGEST = 600
_FROM_THE_SDK = frozenset({"anthropic", "httpx2", "httpx", "httpcore"})  # asked by name: importing it costs 0.8 s


def report(error: BaseException, *, debug: bool = False) -> None:
    """Print an error to standard error; with `debug`, its traceback before it."""
    if debug:
        sys.stderr.write(safe(_masked("".join(traceback.format_exception(error)))))
    for line in explained(error):
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def explained(error: BaseException) -> list[str]:
    """Return the lines that tell of an error; the first begins with "Error: "."""
    known = is_known(error)
    words = _words(error) if known else f"{type(error).__name__}: {error} (unexpected; --debug shows where)"
    notes = [note.removeprefix("chathistory: ") for note in getattr(error, "__notes__", ()) if "`" not in note]
    return [one_line(_masked(line), _LONGEST) for line in (f"Error: {words}", *notes)]


def is_known(error: BaseException) -> bool:
    """Tell whether this can happen to anybody: an error of ours, of the SDK or of the operating system."""
    return isinstance(error, ChatHistoryError | OSError) or _of_the_sdk(error)


def _of_the_sdk(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _FROM_THE_SDK


def _words(error: Any) -> str:
    if isinstance(error, TurnInProgress):
        return _in_progress(error)
    if isinstance(error, CorruptRecord) and error.position is not None:
        return f"{error}; chathistory doctor looks for a way around it"
    if isinstance(error, OrphanedReply):
        return f"somebody else went on with conversation {error.key.id!r} meanwhile; the reply is kept, but beside it"
    status = getattr(error, "status_code", None)
    if not _of_the_sdk(error):
        return str(error) or type(error).__name__
    if status is None:
        return _UNREACHABLE.get(type(error).__name__, "the connection to the API failed: {}").format(error)
    told = getattr(error, "api_message", None) or "no reason given"
    words = _REFUSED if hasattr(error, "refusal") else _STATUS.get(status, _REFUSED)
    return words.format(status, told)


_UNREACHABLE = {
    "APITimeoutError": "the API did not answer in time; try again",
    "APIConnectionError": "the API cannot be reached ({}); look at your network, or ANTHROPIC_BASE_URL if you set it",
    "APIStatusError": "the API broke off with an error: {}",
    "AnthropicError": "{}",
    "CredentialsError": "{}",
}

_REFUSED = "the API refused the request ({}): {}"
_STATUS = {
    401: "the API does not accept the key ({}): {}; look at ANTHROPIC_API_KEY",
    404: "the API does not know what was asked for ({}): {}; is --model right?",
    429: "too many requests for this key ({}): {}; wait a little and try again",
    529: "the API is overloaded ({}): {}; wait a little and try again",
}


def _in_progress(error: TurnInProgress) -> str:
    until = error.until.astimezone()
    by = f", by process {error.pid} on {error.host!r}" if error.pid is not None else ""
    return (
        f"conversation {error.key.id!r} still waits for a reply that was asked for elsewhere{by}; without one it is "
        f"free at {until:%H:%M:%S}, or now with --abandon (in a talk: /abandon)"
    )


def _masked(text: str) -> str:
    """Return the text without the keys of the environment, should anybody have quoted them."""
    for name in KEYS:
        if key := os.environ.get(name):
            text = text.replace(key, "***")
    return text
