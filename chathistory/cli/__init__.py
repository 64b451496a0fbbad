"""The command `chathistory`: conversations with Claude in the terminal, on any backend.

    app            the commands together, and what becomes of what they raise
    chat           `chat`: which conversation, and one message or many
    repl           the prompt of `chat`: what can be typed there
    turn           one turn: the reply as it comes, and Ctrl-C only where it does no harm
    responder      who replies: Claude, or a fake without a model
    listing        `list`, `show`, `backends`
    edit           `annotate`, `rename`, `fork`, `rewind`, `leave-out`: changes to one conversation
    trim           `trim`, `usage`
    delete         `delete`, `prune`, `sweep`
    transfer       `export`, `import`, `copy`
    doctor         `doctor`: what is damaged, and its repair
    doctor_online  `doctor --online`: what the API refuses
    config         `config`: what is in force, and where it came from
    certify        `certify`: whether a backend keeps the contract
    target         which store and which scope, and the options that commands share
    parsers        durations, times and filters as people write them
    output         lines, tables, JSON, a bar while something takes its time
    render         entries and times as people read them
    errors         exit codes, and errors in a line or two
    escape         stored text on its way to a terminal

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
