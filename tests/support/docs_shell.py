"""The commands of a page, run as a reader would: in a terminal, one after the other, in one folder.

A page shows commands in blocks of `console`: lines that begin with `$ ` are typed, the lines below each are what comes
(`...` stands for anything). An indented block of nothing but `chathistory` commands and `export` is typed as well. A
block that cannot run here has `<!-- shown, not run: why -->` above it.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

CONSOLE = re.compile(r"(<!-- shown, not run: [^>]+ -->\n+)?^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(
    r"(<!-- shown, not run: [^>]+ -->)?(?:\n\n|\A)((?:    (?:chathistory|export) [^\n]*\n)+)(?=\n|\Z)"
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
PROMPT = re.compile(rb"(\x1b\[\?2004hyou> |\]: )(\x1b\[[0-9;?]*[a-zA-Z])*$")
"""The prompt of `chat`, where the terminal is asked to mark what is pasted (its messages begin with "you> " too), and
a question that ends in [y/N]."""
PATIENCE = 600.0


@dataclass
class Command:
    """A line that is typed, and what the page says comes of it; None: it says nothing."""

    line: str
    shown: str | None = None


def commands_of(page: str) -> list[Command]:
    """Return the commands of a page, in its order."""
    found = [(match.start(), _of_block(match[2])) for match in CONSOLE.finditer(page) if not match[1]]
    outside = CONSOLE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), page)
    found += [(match.start(), _of_lines(match[2])) for match in INDENTED.finditer(outside) if not match[1]]
    return [command for _, commands in sorted(found, key=lambda pair: pair[0]) for command in commands]


def _of_lines(block: str) -> list[Command]:
    """Return the commands of an indented block; the key of the API is the reader's own."""
    return [Command(line.strip()) for line in block.splitlines() if "ANTHROPIC_API_KEY" not in line]


def _of_block(block: str) -> list[Command]:
    first, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not first, f"a console block begins with its first command: {block!r}"
    pairs = (part.partition("\n") for part in parts)
    return [Command(line, shown.rstrip() or None) for line, _, shown in pairs]


@dataclass
class Shell:
    """A reader's shell: `cd` and `export` last; what is typed at a question is "y", and then the end of input."""

    folder: Path
    environment: dict[str, str]
    typed: bytes = b"y\r"
    code: int = field(default=0, init=False)

    def run(self, line: str) -> str:
        """Run a line and return what stood on the screen; `code` is its exit code."""
        if line.startswith("export "):
            self.environment |= dict(pair.split("=", 1) for pair in shlex.split(line, comments=True)[1:])
            self.code = 0
            return ""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            return self._watched(process, ours)
        finally:
            self._kill_all(process)
            self.code = process.wait()
            os.close(ours)

    def _kill_all(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the process and those that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _watched(self, process: subprocess.Popen[bytes], screen: int) -> str:
        seen, late, typed = b"", time.monotonic() + PATIENCE, False
        while True:
            if select.select([screen], [], [], 0.1)[0]:
                try:
                    seen += os.read(screen, 65536)
                except OSError:  # the other end is closed
                    break
            elif process.poll() is not None:
                self._kill_all(process)  # what it left running; then the other end is closed
            elif PROMPT.search(seen):
                os.write(screen, b"\x04" if typed else self.typed)
                typed = True
                seen += b"\n"
            assert time.monotonic() < late, f"{process.args} did not end: {seen!r}"
        process.wait()
        return ESCAPES.sub("", seen.decode()).replace("\r\n", "\n").rstrip()


def is_as_shown(seen: str, shown: str) -> bool:
    """Whether a screen is what the page shows; `...` stands for anything."""
    return re.fullmatch(re.escape(shown).replace(r"\.\.\.", ".*"), seen.strip(), re.DOTALL) is not None
