"""The group of commands. It turns what they raise into an exit code and a line or two on standard error."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from chathistory import __version__
from chathistory.cli.certify import certify
from chathistory.cli.chat import chat
from chathistory.cli.config import config
from chathistory.cli.delete import delete, prune, sweep
from chathistory.cli.doctor import doctor
from chathistory.cli.edit import annotate, fork, leave_out, rename, rewind
from chathistory.cli.errors import ExitCode, explain_error, print_error
from chathistory.cli.listing import backends, list_
from chathistory.cli.options import RunState
from chathistory.cli.output import escape_controls
from chathistory.cli.show import show
from chathistory.cli.transfer import copy, export, import_
from chathistory.cli.trim import trim, usage
from chathistory.engine.request import SetupChangedWarning

__all__ = ["group", "run"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="chathistory", message="%(prog)s %(version)s")
def group() -> None:
    r"""Save conversations with Claude; list, show and continue them at any time.

    \b
    Examples:
      chathistory chat                  chat with Claude (needs ANTHROPIC_API_KEY)
      chathistory chat --fake           try it without a key
      chathistory chat --continue       continue the latest conversation
      chathistory list                  list conversations

    Conversations are stored in your user data folder, unless --store, CHATHISTORY_STORE or a
    chathistory.toml names another store. `chathistory config` shows which one is in use.
    """


for command in (
    *(chat, list_, show, annotate, rename, usage, trim, fork, rewind, leave_out, export, import_, copy),
    *(delete, prune, sweep, doctor, backends, config, certify),
):
    group.add_command(command)
for command in (
    group,
    *group.commands.values(),
):  # click's marker for "do not wrap" is a control character, not its escape sequence
    command.help = (command.help or "").replace("\\b\n", "\b\n")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code: one of `ExitCode`."""
    state = RunState()
    # streams may be closed; and the output must accept all text, with "?" for characters that it cannot encode
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for the life of the process
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or sys.stdout
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", SetupChangedWarning)
            warnings.showwarning = partial(_print_warning, warnings.showwarning)
            code = group.main(list(arguments), prog_name="chathistory", standalone_mode=False, obj=state)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        cause = error.__cause__ or error  # click wraps a Ctrl-C in an error of its own
        notes = explain_error(cause)[1:]  # they say what is saved
        click.echo("\n".join(["stopped", *notes]), err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # nobody reads the output: the interpreter would flush it at exit and fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001 - users get a sentence for every error, not a traceback
        print_error(error, debug=state.debug)
        return ExitCode.FAILED
    return int(code or ExitCode.OK)


def _print_warning(print_other: Any, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning of the engine as one line, whatever the interpreter's warning filters are."""
    if issubclass(category, SetupChangedWarning):
        click.echo(escape_controls(f"Note: {message}."), err=True)
    else:
        print_other(message, category, *where, **more)
