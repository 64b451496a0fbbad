"""The raw form of `file:`: lock, open, json.dumps, write, fdatasync, close; read by seeking back and json.loads.

It keeps no version, checksum, batch or order, and reads no tail that is longer than its guess of 32 kB.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
from pathlib import Path
from typing import Any, ClassVar

from ..samples import Turn
from .library_base import MeasuredLibrary

__all__ = ["RawFile"]

_GUESS = 32 * 1024


class RawFile(MeasuredLibrary):
    """A program with a file of lines for each conversation."""

    name: ClassVar[str] = "raw"
    imports: ClassVar[str] = "import fcntl, json, os"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._root = Path(place.removeprefix("file:")) / "raw"
        self._root.mkdir(parents=True, exist_ok=True)

    def append(self, name: str, turn: Turn) -> object:
        with (self._root / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self._path(name).open("a") as file:
                file.write("".join(json.dumps(message) + "\n" for message in turn))
                file.flush()
                os.fdatasync(file.fileno())
        return None

    def fill(self, name: str, turns: list[Turn]) -> None:
        self._path(name).write_text("".join(json.dumps(message) + "\n" for turn in turns for message in turn))

    def tail(self, name: str) -> list[Any]:
        with self._path(name).open("rb") as file:
            file.seek(-min(_GUESS, os.fstat(file.fileno()).st_size), os.SEEK_END)
            return [json.loads(line) for line in file.read().decode("utf-8", "replace").split("\n")[-21:-1]]

    def load(self, name: str) -> list[Any]:
        with self._path(name).open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def fill_conversations(self, count: int) -> None:
        folder = self._root / f"listing-{count}"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            path = folder / f"chat-{number}.jsonl"
            path.write_text("{}\n")
            os.utime(path, ns=(number * 10**9, number * 10**9))

    def recent(self, count: int) -> list[Any]:
        with os.scandir(self._root / f"listing-{count}") as entries:
            return heapq.nlargest(20, ((entry.stat().st_mtime_ns, entry.name) for entry in entries))

    def _path(self, name: str) -> Path:
        return self._root / f"{name}.jsonl"
