"""A command in a pseudo-terminal: type, wait for what appears, press Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Callable
from pathlib import Path

from forked_programs import ForkServer

COMMAND = str(Path(sysconfig.get_path("scripts")) / "chathistory")
PATIENCE = 600.0
"""A guard against hanging; nothing takes this long, except on a very busy machine."""

_LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """seen: all that the command has written, escape sequences and all."""

    def __init__(
        self, words, env, folder, *, columns: int = 100, command=(COMMAND,), forks: ForkServer | None = None
    ) -> None:
        """Run a command with its words; with `forks`, chathistory in a forked process."""
        self.fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        launch = [sys.executable, "-c", _LAUNCH, shutil.which(command[0]), *command[1:], *words]
        self.process = (
            forks.start(["chathistory", *words], env=env, folder=folder, streams=[os.ttyname(other)] * 3)
            if forks
            else subprocess.Popen(
                launch, stdin=other, stdout=other, stderr=other, env=env, cwd=folder, start_new_session=True
            )
        )
        os.close(other)
        self.seen = ""
        self._looked = 0
        self._is_closed = False

    def expect(self, *texts: str) -> None:
        """Wait until the texts appear one after the other."""
        for text in texts:
            assert self._has_come(text, PATIENCE), f"{text!r} did not come after:\n{self.seen[self._looked :]!r}"
            self._looked = self.seen.index(text, self._looked) + len(text)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def say(self, line: str) -> None:
        """Type a line at the prompt."""
        self.expect("you> ")
        self.type(f"{line}\r")

    def press_ctrl_c(self, until: str) -> None:
        """Press Ctrl-C, and wait until a text appears."""
        signal_until(lambda: self.type("\x03"), lambda seconds: self._has_come(until, seconds), self.process.pid)
        self.expect(until)

    def end(self) -> int:
        """Wait for the end of the command and return its exit code."""
        assert self.has_ended(PATIENCE), f"the command did not end after:\n{self.seen[self._looked :]!r}"
        return self.process.wait()

    def has_ended(self, patience: float) -> bool:
        """Wait for the end of the command, at most this number of seconds, and return True if it has ended."""
        deadline = time.monotonic() + patience
        while self._read(deadline):
            pass
        return self._is_closed

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)

    def _has_come(self, text: str, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while text not in self.seen[self._looked :]:
            if not self._read(deadline):
                return False
        return True

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))
        try:
            data = os.read(self.fd, 65536) if ready else b""
        except OSError:  # the other end is closed
            data, self._is_closed = b"", True
        self.seen += data.decode(errors="replace")
        return bool(data)


def signal_until(send: Callable[[], object], happened: Callable[[float], bool], pid: int) -> None:
    """Send a signal, and wait until it has its effect.

    Python sees a signal that arrives just before a system call that waits only after that call. So the signal is sent
    again, but only to a process that sleeps and has shown no effect: a second one would hit what the first one began.

    Args:
        send: Sends the signal.
        happened: Waits for the effect, at most this number of seconds, and says whether it is there.
        pid: The process.
    """
    deadline = time.monotonic() + PATIENCE
    send()
    while not happened(3):
        assert time.monotonic() < deadline, "the signal had no effect"
        if is_asleep(pid) and not happened(0):
            send()


def is_asleep(pid: int) -> bool:
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return shown.stdout.startswith("S")
