"""A command in a pseudo-terminal: type, wait for what appears, press Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COMMAND = str(Path(sysconfig.get_path("scripts")) / "chathistory")
PATIENCE = 100.0
"""A guard against hanging; nothing takes this long, except on a very busy machine."""

_LAUNCH = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class CommandForks:
    """Runs the command in processes that are forked from one that has imported it: see `fork_commands`."""

    def __init__(self, env: dict[str, str]) -> None:
        self._screen, other = pty.openpty()  # the server has a terminal too, so its streams are those of a terminal
        self._connection, theirs = socket.socketpair()
        server = Path(__file__).with_name("fork_commands.py")
        self._server = subprocess.Popen(
            [sys.executable, server, str(theirs.fileno())],
            stdin=other,
            stdout=other,
            stderr=other,
            env=env,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        os.close(other)
        self._answers = self._connection.makefile("r")

    def start(self, words: Sequence[str], env: dict[str, str], folder: Path, terminal: int) -> ForkedCommand:
        """Run the command in the terminal of this file descriptor."""
        place = {"folder": str(folder), "terminal": os.ttyname(terminal)}
        return ForkedCommand(self, self._order("start", words=words, env=env, **place))

    def wait_for(self, pid: int) -> int:
        """Wait for the end of a process that was started, and return its exit code."""
        return self._order("wait", pid=pid)

    def close(self) -> None:
        self._answers.close()
        self._connection.close()
        self._server.kill()  # it would take its time to end by itself
        self._server.wait()
        os.close(self._screen)

    def _order(self, do: str, **more: object) -> int:
        self._connection.sendall(f"{json.dumps({'do': do, **more})}\n".encode())
        answer = self._answers.readline()
        assert answer, f"the server ended: {os.read(self._screen, 65536).decode()}"
        return int(answer)


class ForkedCommand:
    """A process of `CommandForks`, used like one of `subprocess`."""

    def __init__(self, forks: CommandForks, pid: int) -> None:
        self.pid = pid
        self._forks = forks
        self._code: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)  # until `wait`, no other process gets its id

    def wait(self) -> int:
        if self._code is None:
            self._code = self._forks.wait_for(self.pid)
        return self._code

    def kill(self) -> None:
        if self._code is None:
            self.send_signal(signal.SIGKILL)


class Terminal:
    """seen: all that the command has written, escape sequences and all."""

    def __init__(
        self, words, env, folder, *, columns: int = 100, command=(COMMAND,), forks: CommandForks | None = None
    ) -> None:
        """Run a command with its words; with `forks`, chathistory in a forked process."""
        self.fd, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        launch = [sys.executable, "-c", _LAUNCH, shutil.which(command[0]), *command[1:], *words]
        self.process = (
            forks.start(words, env, folder, other)
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
