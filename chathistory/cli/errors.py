"""Exit codes, and error messages of one or two lines: what went wrong, what is saved, what to do.

Tracebacks are printed only with `--debug`.
"""

from __future__ import annotations

import enum
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chathistory.cli.output import escape_controls, to_one_line
from chathistory.errors import ChatHistoryError, InvalidInput, OrphanedReply, TurnInProgress

__all__ = ["ExitCode", "explain_error", "is_known_error", "name_options", "print_error"]


class ExitCode(enum.IntEnum):
    """How a command ended. `docs/using.md` has the same table."""

    OK = 0
    FAILED = 1
    """The command failed; or `doctor` found something that is not repaired."""
    USAGE = 2
    """Usage error: an unknown option, a missing argument, no API key."""
    PARTLY = 3
    """Done for some conversations; standard error names the others."""
    INTERRUPTED = 130
    """Ctrl-C."""


_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
_MAX_LINE_LENGTH = 600  # characters
_SDK_MODULES = frozenset({"anthropic", "httpx2", "httpx", "httpcore"})  # by name: importing the SDK takes 0.8 s


def print_error(error: BaseException, *, debug: bool = False) -> None:
    """Print an error to standard error.

    Args:
        error: The error.
        debug: Whether to print its traceback first.
    """
    if debug:
        sys.stderr.write(escape_controls(_mask_keys("".join(traceback.format_exception(error)))))
    for line in explain_error(error):
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def explain_error(error: BaseException) -> list[str]:
    """Return the lines that explain an error; the first begins with "Error: "."""
    words = str(error) or type(error).__name__
    match error:
        case TurnInProgress():
            by = f"process {error.pid} on {error.host!r}" if error.pid is not None else "another process"
            until = f"{error.until.astimezone():%H:%M:%S}"
            words = (
                f"{by} is waiting for a reply in conversation {error.key.id!r}; wait until {until} at the latest, or "
                "give that reply up with --abandon (at the prompt: /abandon)"
            )
        case OrphanedReply():
            words = (
                f"the reply came too late: somebody else continued conversation {error.key.id!r}; it is saved, but "
                "never sent to Claude"
            )
        case OSError() if error.filename and error.strerror:
            words = f"{error.filename!r}: {error.strerror}"
        case _ if _is_from_sdk(error):
            words = _explain_api_error(error)
        case _ if not is_known_error(error):
            words = f"{type(error).__name__}: {error} (unexpected; --debug shows the traceback)"
    notes = [note.removeprefix("chathistory: ") for note in getattr(error, "__notes__", ()) if "`" not in note]
    return [to_one_line(_mask_keys(line), _MAX_LINE_LENGTH) for line in (f"Error: {words}", *notes)]


def _explain_api_error(error: Any) -> str:
    status = getattr(error, "status_code", None)
    if status is None:
        return _UNREACHABLE.get(type(error).__name__, "the connection to the API failed: {}").format(error)
    template = _REFUSED if hasattr(error, "refusal") else _STATUS.get(status, _REFUSED)
    return template.format(status, getattr(error, "api_message", None) or "no reason given")


@contextmanager
def name_options(options: Mapping[str, str]) -> Iterator[None]:
    """Let an `InvalidInput` of the body name the option of the command in place of the parameter of the method.

    Args:
        options: The option for each parameter, such as {"position": "--record"}.
    """
    try:
        yield
    except InvalidInput as error:
        parameter, _, words = str(error).partition(": ")
        if parameter in options:
            error.args = (f"{options[parameter]}: {words}",)
        raise


def is_known_error(error: BaseException) -> bool:
    """Return True for an expected kind of error: of this library, of the SDK or of the operating system."""
    return isinstance(error, ChatHistoryError | OSError) or _is_from_sdk(error)


def _is_from_sdk(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _SDK_MODULES


_UNREACHABLE = {
    "APITimeoutError": "the API did not answer in time; try again",
    "APIConnectionError": "cannot reach the API ({}); check your network, and ANTHROPIC_BASE_URL if you set it",
    "APIStatusError": "the API interrupted the reply with an error: {}",
    "AnthropicError": "{}",
    "CredentialsError": "{}",
}

_REFUSED = "the API refused the request ({}): {}"
_STATUS = {
    401: "the API does not accept the key ({}): {}; check ANTHROPIC_API_KEY",
    404: "the API did not find it ({}): {}; check --model",
    429: "too many requests for this key ({}): {}; wait a moment and try again",
    529: "the API is overloaded ({}): {}; wait a moment and try again",
}


def _mask_keys(text: str) -> str:
    """Return the text without API keys of the environment, in case an error quotes one."""
    for name in _KEYS:
        if key := os.environ.get(name):
            text = text.replace(key, "***")
    return text
