"""For tests of the command: a user with a home of their own, and the command as that user runs it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_terminal import COMMAND, Terminal
from forked_programs import ForkServer

from chathistory import History, open_store
from chathistory.cli import app


@pytest.fixture
def home(tmp_path) -> Path:
    """The user's home; the store of their own is below it, in a folder with characters that mean something in URLs."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def env(home) -> dict[str, str]:
    return make_env(home)


def make_env(home: Path) -> dict[str, str]:
    """Return a user's environment; the terminal has a width of its own, not the one of the tests' terminal."""
    own = {"HOME": str(home), "XDG_DATA_HOME": str(home / "da ta?a=b%20#@ü"), "TERM": "xterm-256color"}
    plain = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONWARNINGS": "error"}
    not_theirs = ("XDG_", "PYTHON", "COLUMNS", "LINES", "ANTHROPIC_", "CHATHISTORY_")
    return {name: value for name, value in os.environ.items() if not name.startswith(not_theirs)} | own | plain


@dataclass(frozen=True)
class Done:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def process(env, tmp_path) -> Callable[..., Done]:
    """Run the command in a process of its own, without a terminal."""

    def process(*words: str, stdin: str | bytes = "", **more: str) -> Done:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        command = [COMMAND, *words]
        done = subprocess.run(command, input=given, capture_output=True, env=env | more, cwd=tmp_path, check=False)
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return process


@pytest.fixture
def run(env, tmp_path) -> Callable[..., Done]:
    """Run the command in this process, which has loaded all it needs: the same, a second faster."""

    def run(*words: str, stdin: str | bytes = "", **more: str) -> Done:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        streams = [io.TextIOWrapper(io.BytesIO(data), encoding="utf-8") for data in (given, b"", b"")]
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (env | more).items():
                patch.setenv(name, value)
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                patch.setattr(sys, name, stream)
            patch.chdir(tmp_path)
            code = app.run(words)
        texts = []
        for stream in streams[1:]:
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
        return Done(code, *texts)

    return run


@pytest.fixture(scope="session")
def forks(tmp_path_factory) -> Iterator[ForkServer]:
    forks = ForkServer(make_env(tmp_path_factory.getbasetemp()))
    yield forks
    forks.close()


@pytest.fixture
def terminal(env, tmp_path, forks) -> Iterator[Callable[..., Terminal]]:
    """Run the command in a terminal of its own, in a process that is forked after its imports."""
    opened = []

    def terminal(*words: str, **more: str) -> Terminal:
        opened.append(Terminal(words, env | more, tmp_path, forks=forks))
        return opened[-1]

    yield terminal
    for each in opened:
        each.close()


@pytest.fixture
def store(tmp_path) -> str:
    """The URL of a store that the test fills itself."""
    return f"file:{tmp_path}/store"


@pytest.fixture
def open_history(store) -> Callable[[], History]:
    """Open that store in this process, in a `with` block."""

    @contextmanager
    def opened() -> Iterator[History]:
        with open_store(store) as there:
            yield History(there)

    return opened
