"""The command `chathistory`: conversations with Claude in the terminal, on any backend.

    app         the commands together, and what becomes of what they raise
    chat        `chat`: which conversation, one message, or a prompt for many
    doctor      `doctor`: what is damaged or refused by the API, and its repair
    show        `show`, and what was said as people read it
    responder   who replies (Claude or a fake), and one turn with the reply as it comes
    delete      `delete`, `prune`, `sweep`
    listing     `list`, `backends`
    edit        `annotate`, `rename`, `fork`, `rewind`, `leave-out`: changes to one conversation
    trim        `trim`, `usage`
    transfer    `export`, `import`, `copy`
    config      `config`: what is in force, and where it came from
    certify     `certify`: whether a backend keeps the contract
    options     the options that commands share; the store and the scope that they name
    errors      exit codes, and errors in a line or two
    output      what commands print: safe text, tables, JSON, times, progress

Each uses only those below it. rich and the Anthropic SDK are imported by the commands that need them, not before.
"""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    from chathistory.cli.app import run  # click costs 30 ms, which `import chathistory.cli` need not

    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # pressed again, while the first was being reported
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: the exit code says how it went
    sys.exit(code)
