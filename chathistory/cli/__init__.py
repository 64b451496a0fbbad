"""The command `chathistory`: conversations with Claude in the terminal, on any backend.

    app         the group of commands, exit codes, and how errors are reported
    chat        `chat`: choose a conversation, send one message, or prompt for many
    doctor      `doctor`: find what is damaged or refused by the API, and repair it
    show        `show`, and messages in a form for people
    responder   who replies (Claude or a fake), and one turn with its streamed reply
    delete      `delete`, `prune`, `sweep`
    listing     `list`, `backends`
    edit        `annotate`, `rename`, `fork`, `rewind`, `leave-out`: changes to one conversation
    trim        `trim`, `usage`
    transfer    `export`, `import`, `copy`
    config      `config`: the settings in force, and the source of each
    certify     `certify`: test whether a backend keeps the contract
    options     the options that commands share, and the store and scope that they select
    errors      exit codes, and error messages of one or two lines
    output      printing: safe text, tables, JSON, times, progress

Each module uses only those below it. The commands that need rich or the Anthropic SDK import them when they run.
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec

__all__ = ["main"]

_EXTRA = ("click", "rich")
"""The packages that the extra `cli` installs."""


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    if missing := [name for name in _EXTRA if find_spec(name) is None]:
        sys.stderr.write(
            f"Error: the command chathistory needs packages that are not installed ({', '.join(missing)}); "
            'to install them, run: pip install "chathistory[cli]"\n'
        )
        sys.exit(2)
    from chathistory.cli.app import run  # click costs 30 ms, which `import chathistory.cli` does not need

    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # Ctrl-C again, while the first one is being reported
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all work is done: only the exit code is left to report
    sys.exit(code)
