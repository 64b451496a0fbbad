"""Guarantees 4, 7 and 10 with real processes: writers that are killed, servers that crash, records that are damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chathistory.errors import CorruptRecord
from chathistory.history import History
from chathistory.store import HistoryStore
from chathistory.testing.certify.base import Certified, needs
from chathistory.testing.certify.writer import BATCH, batch
from chathistory.testing.contract.base import applies
from chathistory.testing.contract.looking import bodies_of, head_of
from chathistory.testing.contract.samples import KEY, created, grown, lines

__all__ = ["Crashes", "Damage", "Processes"]

_MANY = 100_000
_PATIENCE = 120.0


@contextmanager
def _writer(order: str) -> Iterator[subprocess.Popen[str]]:
    """Start a writer, tell it what to do, and see that it ends."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # where the backend's plugin is found, too
    command = [sys.executable, "-m", "chathistory.testing.certify.writer"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:  # noqa: S603  # our own
        assert process.stdin is not None
        process.stdin.write(f"{order}\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def _killed_within_an_append(process: subprocess.Popen[str], acknowledged: int, part: float) -> int:
    """Kill the writer when part of the time of an append has passed since the last; returns how many it told of."""
    assert process.stdout is not None
    told, begun = 0, time.monotonic()
    while told < acknowledged and process.stdout.readline():
        told += 1
        begun = time.monotonic() if told == 1 else begun
    time.sleep(part * (time.monotonic() - begun) / max(told - 1, 1))
    process.kill()
    return told + len(process.stdout.read().splitlines())


class Crashes(Certified, guarantee=4):
    """What was acknowledged is there, whoever died since."""

    @pytest.mark.parametrize(("acknowledged", "part"), [(3, 0.8), (9, 0.5), (23, 0.2)])
    def test_a_killed_writer_loses_nothing_and_leaves_nothing_by_halves(
        self, store: HistoryStore, acknowledged: int, part: float
    ) -> None:
        applies(store.traits.durable, "not durable")
        with _writer(self.target.order(self.room, KEY, name="killed", batches=_MANY)) as process:
            told = _killed_within_an_append(process, acknowledged, part)
        assert told >= acknowledged, f"the writer ended by itself after {told} appends"
        with self.reopen(store) as other:
            bodies = bodies_of(other, KEY)
            batches = len(bodies) // BATCH
            due = [body for number in range(batches) for body in batch("killed", number, number * BATCH)]
            assert bodies == due, "what a killed writer left is not its batches, whole and in order"
            assert batches in {told, told + 1}, f"{told} appends were acknowledged, {batches} are there"
            head = head_of(other, KEY)
            assert head is not None
            assert grown(other, head).end == head.end + 1, "nobody can write where the killed one wrote"

    def test_closed_and_opened_again_and_again(self, store: HistoryStore) -> None:
        applies(store.traits.durable, "not durable")
        head = created(store)
        for _ in range(12):
            with self.reopen(store) as other:
                assert head_of(other, KEY) == head
                head = grown(other, head, 2)
        with self.reopen(store) as other:
            assert bodies_of(other, KEY) == lines(25)

    def test_what_keeps_the_data_crashes(self, store: HistoryStore) -> None:
        applies(store.traits.durable, "not durable")
        crash = self.target.hooks.crash or needs("the hook `crash`")
        head = created(store)
        for _ in range(20):
            head = grown(store, head)
        crash()
        with self.reopen(store) as other:
            assert head_of(other, KEY) == head, "a crash took what was acknowledged"
            assert bodies_of(other, KEY) == lines(21)


class Processes(Certified, guarantee=10):
    """Many processes write one conversation."""

    def test_four_processes_lose_nothing(self, store: HistoryStore) -> None:
        applies(store.traits.shared, "not shared")
        names = [f"process{at}" for at in range(4)]
        self._write_all(names, 10)
        bodies = bodies_of(store, KEY)
        batches = [body.split()[:2] for body in bodies[::BATCH]]
        due = [[name, str(number)] for name in names for number in range(10)]
        assert sorted(batches) == sorted(due), "a batch of a process is missing, or is there twice"
        for at, (name, number) in enumerate(batches):
            seen = bodies[at * BATCH : (at + 1) * BATCH]
            assert seen == batch(name, int(number), at * BATCH), "an append was taken after a head that was not present"

    def _write_all(self, names: list[str], batches: int) -> None:
        if not names:
            return
        with _writer(self.target.order(self.room, KEY, name=names[0], batches=batches)) as process:
            self._write_all(names[1:], batches)
            output, errors = process.communicate(timeout=_PATIENCE)
            assert process.returncode == 0, f"a writer failed: {_last(errors)}"
            assert len(output.splitlines()) == batches


def _last(errors: str) -> str:
    return json.dumps(errors.strip().rpartition("\n")[2])


class Damage(Certified, guarantee=7):
    """A record that was changed behind the back of the store is told, with its position."""

    @pytest.mark.parametrize("position", [0, 2, 4])
    def test_a_damaged_record_is_corrupt_and_not_absent(self, store: HistoryStore, position: int) -> None:
        applies(store.traits.durable, "not durable")
        damage = self.target.hooks.damage or needs("the hook `damage`")
        chat = History(store).conversation(KEY.id, scope=KEY.scope)
        for at in range(5):
            chat.append({"role": ("user", "assistant")[at % 2], "content": f"line {at}"})
        damage(self.room.within, self.room.names.real_key(KEY), position)
        with self.reopen(store) as other, pytest.raises(CorruptRecord) as caught:
            list(History(other).conversation(KEY.id, scope=KEY.scope).records())
        assert caught.value.position in {position, None}
