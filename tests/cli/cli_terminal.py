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
from pathlib import Path

COMMAND = str(Path(sysconfig.get_path("scripts")) / "chathistory")
PATIENCE = 20.0
_LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """seen: all that the command has written, escape sequences and all."""

    def __init__(self, words, env, folder, *, columns: int = 100, command=(COMMAND,)) -> None:
        self.fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        launch = [sys.executable, "-c", _LAUNCH, shutil.which(command[0]), *command[1:], *words]
        self.process = subprocess.Popen(
            launch, stdin=other, stdout=other, stderr=other, env=env, cwd=folder, start_new_session=True
        )
        os.close(other)
        self.seen = ""
        self._looked = 0

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
        """Press Ctrl-C until a text appears: a signal just before a system call that waits is seen after it."""
        for _ in range(5):
            self.type("\x03")
            if self._has_come(until, 3):
                break
        self.expect(until)

    def end(self) -> int:
        """Wait for the end of the command and return its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
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
            data = b""
        self.seen += data.decode(errors="replace")
        return bool(data)
