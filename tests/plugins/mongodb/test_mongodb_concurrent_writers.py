"""Many writers of one conversation: threads and processes, servers that are killed, and much data."""

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from mongodb_samples import body, fill_store, read_all, revision
from mongodb_servers import primary_of, replica_set, standalone
from mongodb_writer import KEY

from chathistory import open_store
from chathistory.errors import Conflict

WRITER = Path(__file__).with_name("mongodb_writer.py")


def _writer(url, name, times):
    command = [sys.executable, str(WRITER), url, name, str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _in_thread(store, name, times):
    head = None
    for number in range(times):
        while True:
            try:
                head = store.append(KEY, [f"{name}-{number}-{at}" for at in range(3)], after=head, revision=revision())
                break
            except Conflict as conflict:
                head = conflict.head


@pytest.mark.parametrize(("thread_count", "process_count"), [(8, 2), pytest.param(16, 8, marks=pytest.mark.stress)])
def test_threads_and_processes_append_to_one_conversation(store, url, thread_count, process_count):
    processes = [_writer(url, f"p{number}", 12) for number in range(process_count)]
    threads = [threading.Thread(target=_in_thread, args=(store, f"t{number}", 6)) for number in range(thread_count)]
    for thread in threads:
        thread.start()
    acknowledged = _acknowledged(processes)
    for thread in threads:
        thread.join()
    assert all(process.returncode == 0 for process in processes), "nobody starves"
    assert len(acknowledged) == 12 * process_count
    bodies = _all_there(store, acknowledged)
    assert len(bodies) == 3 * (12 * process_count + 6 * thread_count)


def _acknowledged(processes):
    return [line.split() for process in processes for line in process.communicate()[0].splitlines()]


def _all_there(store, acknowledged):
    """Check that each acknowledged append is stored once, in one piece, at its position; return all bodies."""
    head, bodies = read_all(store, KEY)
    assert head.start == 0
    bodies = [text.rstrip(".") for text in bodies]
    for position, first, *_ in acknowledged:
        assert bodies[int(position) : int(position) + 3] == [f"{first[:-2]}-{part}" for part in range(3)]
    assert max(Counter(bodies).values()) == 1
    assert all(text.endswith(f"-{at % 3}") for at, text in enumerate(bodies)), "a batch is not in one piece"
    return bodies


def _run_while(url, harm, *, writers=4):
    processes = [_writer(url, f"w{number}", 0) for number in range(writers)]
    try:
        harm()
    finally:
        for process in processes:
            process.terminate()
    return _acknowledged(processes)


@pytest.mark.stress
def test_a_primary_killed_under_load_loses_nothing_and_writers_carry_on():
    with replica_set(3) as servers:
        url = f"mongodb://{','.join(server.address for server in servers)}/app?replicaSet=rs0"

        def harm():
            for _ in range(3):
                time.sleep(3)
                victim = primary_of(servers)
                victim.kill()
                time.sleep(5)
                victim.start()
            time.sleep(5)

        begun = time.monotonic()
        acknowledged = _run_while(url, harm)
        with open_store(url) as store:
            _all_there(store, acknowledged)
        last = {line[1].split("-")[0]: float(line[2]) for line in sorted(acknowledged, key=lambda line: float(line[2]))}
        assert len(last) == 4
        assert all(moment > begun + 26 for moment in last.values()), "a writer did not carry on"
        assert len(acknowledged) > 300


@pytest.mark.stress
def test_a_server_alone_killed_under_load_loses_nothing():
    with standalone() as server:
        url = f"mongodb://{server.address}/app"

        def harm():
            for _ in range(5):
                time.sleep(2)
                server.kill()
                server.start()
            time.sleep(2)

        acknowledged = _run_while(url, harm)
        with open_store(url) as store:
            _all_there(store, acknowledged)
        assert len(acknowledged) > 300


@pytest.mark.stress
def test_a_conversation_of_two_hundred_megabytes(store, database):
    head = fill_store(store, 100, size=2_000_000, key=KEY)
    head = fill_store(store, 20, size=500, key=KEY, head=head)
    for position in (0, 57, 99, 119):
        (record,) = store.read(KEY, start=position, stop=position + 1).records
        assert record.body == body(position, 2_000_000 if position < 100 else 500)
    assert len(store.read(KEY, start=-20).records) == 20
    seen = 0
    while seen < head.end:
        part = store.read(KEY, start=seen)
        assert sum(len(record.body) for record in part.records) < 16_000_000
        assert part.records[0].position == seen
        seen += len(part.records)
    store.forget(KEY, before=60)
    assert database.chathistory_segments.count_documents({"end": {"$lte": 60}}) == 0
    store.delete(KEY)
    assert database.chathistory_segments.count_documents({}) == 0
