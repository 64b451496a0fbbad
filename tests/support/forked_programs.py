"""Programs in processes that are forked from one that has imported what they need: see `fork_server`."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    """What a program printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


class ForkServer:
    """Runs programs. The filters of warnings and the encoding are those of the environment that it is created with."""

    def __init__(self, env: dict[str, str]) -> None:
        self._screen, other = pty.openpty()  # the server has a terminal, so its streams are those of a terminal
        self._connection, theirs = socket.socketpair()
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_server.py"), str(theirs.fileno())],
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

    def start(
        self,
        words: Sequence[str],
        *,
        env: dict[str, str],
        folder: Path,
        streams: Sequence[str],
        program: Path | None = None,
    ) -> ForkedProgram:
        """Start a program.

        Args:
            words: Its `sys.argv`.
            env: Its environment.
            folder: The folder in which it runs.
            streams: The files that are its standard input, output and error; a terminal for all three controls it.
            program: A file of Python; None: the command `chathistory`.
        """
        where = {"folder": str(folder), "streams": streams, "program": str(program) if program else None}
        return ForkedProgram(self, self._order("start", words=words, env=env, **where))

    def run(self, program: Path, *, env: dict[str, str], folder: Path) -> Finished:
        """Run a file of Python to its end, without input."""
        outputs = [program.with_suffix(".stdout"), program.with_suffix(".stderr")]
        for output in outputs:
            output.write_text("")
        streams = [os.devnull, *map(str, outputs)]
        code = self.start([str(program)], env=env, folder=folder, streams=streams, program=program).wait()
        return Finished(code, *(output.read_text() for output in outputs))

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


class ForkedProgram:
    """A process of a `ForkServer`, used like one of `subprocess`."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self._server = server
        self._code: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)  # until `wait`, no other process gets its id

    def wait(self) -> int:
        if self._code is None:
            self._code = self._server.wait_for(self.pid)
        return self._code

    def kill(self) -> None:
        if self._code is None:
            self.send_signal(signal.SIGKILL)
