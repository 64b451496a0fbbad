"""The command `chathistory`: conversations with Claude in the terminal, on any backend.

    app         the commands together, and what becomes of what they raise
    chat        `chat`: which conversation, and one message or a talk
    talk        a talk: the prompt, what can be typed there, what is drawn
    turn        one turn: the reply as it comes, and Ctrl-C only where it does no harm
    voice       who replies: Claude, or a stand-in without a model
    shelf       `list`, `show`, `delete`, `backends`
    trim        `trim`, `usage`
    doctor      `doctor`: what is damaged, and the way around it
    config      `config`: what is in force, and where it came from
    certify     `certify`: whether a backend keeps the contract
    branch      `fork`, `rewind`
    move        `export`, `import`, `copy`
    keep        `retain`, `erase`, `sweep`
    finding     a conversation by its id, and those with an id like it
    asked       times, spans and filters as people write them
    output      lines, tables, JSON, a bar for what takes its time
    render      entries, rows and times as people read them
    place       which store and which scope, and the options for them; the configuration
    faults      errors in a line or two
    safe        stored text on its way to a terminal

Each uses only those below it. rich and the Anthropic SDK are imported by the commands that need them, not before.
"""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    from chathistory.cli.app import run  # noqa: PLC0415 - click costs 30 ms, which `import chathistory.cli` need not

    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # pressed again, while the first was told of
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was to be done is done: the exit code says how it went
    sys.exit(code)
