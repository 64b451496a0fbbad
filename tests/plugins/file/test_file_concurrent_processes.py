"""Many processes with one conversation, and processes that are killed."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from file_samples import bodies_of, revision
from file_writer import KEY

WRITER = Path(__file__).with_name("file_writer.py")


def _writer(store, name, times):
    command = [sys.executable, str(WRITER), store.root, name, str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_four_processes_append_to_one_conversation(store):
    processes = [_writer(store, f"p{number}", 12) for number in range(4)]
    acknowledged = [line.split() for process in processes for line in process.communicate()[0].splitlines()]
    assert all(process.returncode == 0 for process in processes)
    bodies = [body.rstrip(".") for body in bodies_of(store, KEY)]
    assert len(acknowledged) == 48
    assert len(bodies) == 144
    for position, _, first in acknowledged:
        stem = first[: -len("-0")]
        assert bodies[int(position) : int(position) + 3] == [f"{stem}-{part}" for part in range(3)]


def _campaign(store, kills):
    dice, acknowledged = random.Random(kills), []
    for round_ in range(kills):
        with _writer(store, f"k{round_}", 0) as process:
            acknowledged += [process.stdout.readline() for _ in range(dice.randrange(1, 20))]
            time.sleep(dice.random() * 0.002)  # so that it is at any step of the next append
            process.kill()
            acknowledged += [line for line in process.stdout if line.endswith("\n")]
        _check_all_there(store, acknowledged)
    return len(acknowledged)


def _check_all_there(store, acknowledged):
    found = store.read(KEY)
    kept = {record.position: record.body.rstrip(".") for record in found.records}
    assert list(kept) == list(range(found.head.start, found.head.end))
    for line in acknowledged:
        position, _, first = line.split()
        assert int(position) + 3 <= found.head.end
        if int(position) >= found.head.start:
            assert [kept[int(position) + part] for part in range(3)] == [f"{first[:-2]}-{part}" for part in range(3)]
    assert store.heads("default").items == [found.head]
    head = store.append(KEY, ["a", "b", "c"], after=found.head, revision=revision(found.head.revision.updated + 1))
    assert store.read(KEY, start=-3).head == head


def test_nothing_acknowledged_is_lost_when_writers_are_killed(store):
    assert _campaign(store, 5) >= 5


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_in_two_hundred_kills(store):
    assert _campaign(store, 200) >= 200
