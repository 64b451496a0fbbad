"""The lock of a conversation: one writer at a time, with a time limit, between threads, processes and stores."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chathistory_file import FileStore
from file_samples import KEY, bodies_of, fill_store, fresh, holding, open_files, revision
from platforms import needs_linux

from chathistory import Key
from chathistory.errors import Conflict, StoreClosed, StoreUnavailable

HOLDER = """
import sys
from chathistory import Key
from chathistory_file import FileStore
from chathistory_file.files import Paths
store = FileStore(sys.argv[1])
def hold():
    print("locked", flush=True)
    sys.stdin.read()
store._locks.run(Paths.for_key(store.root, Key("default", "support/42")), hold)
"""


@pytest.fixture
def holder(store):
    fill_store(store, ["1"])
    command = [sys.executable, "-c", HOLDER, store.root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def note_failed_attempts(store):
    """Return a semaphore that is released each time that a writer of this store has found the lock taken."""
    locks, attempts = store._locks, threading.Semaphore(0)

    def try_lock(path, fds, real=locks._try_lock):
        is_locked = real(path, fds)
        if not is_locked:
            attempts.release()
        return is_locked

    locks._try_lock = try_lock
    return attempts


def wait_for_attempt(attempts):
    assert attempts.acquire(timeout=600)


def test_a_writer_waits_until_the_timeout_and_no_longer(store, holder):
    with FileStore(store.root, lock_timeout=0.2) as other:
        head = other.read(KEY).head  # readers do not wait
        attempts = note_failed_attempts(other)
        for call in (
            lambda: other.append(KEY, ["2"], after=head, revision=revision()),
            lambda: other.forget(KEY, before=1),
            lambda: other.delete(KEY),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert caught.value.outcome == "not stored"
            wait_for_attempt(attempts)
            wait_for_attempt(attempts)  # it did wait
        assert bodies_of(other) == ["1"]


def test_a_dead_holder_holds_nothing(store, holder):
    holder.kill()
    holder.wait()
    with FileStore(store.root, lock_timeout=600) as other:
        other.append(KEY, ["2"], after=other.read(KEY).head, revision=revision())
    assert bodies_of(store) == ["1", "2"]


def test_threads_wait_for_each_other_with_the_same_timeout(tmp_path):
    with FileStore(tmp_path / "h", lock_timeout=0.2) as store:
        head = fill_store(store, ["1"])
        with holding(store):
            caught = []

            def write():
                try:
                    store.append(KEY, ["2"], after=head, revision=revision())
                except StoreUnavailable as error:
                    caught.append(error.outcome)

            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
        assert caught == ["not stored"]


def test_a_removed_folder_does_not_split_the_lock(store):
    fill_store(store, ["1"])
    Path(store.root).rename(store.root + ".old")
    with FileStore(store.root, lock_timeout=0.2) as other:
        fill_store(other, ["new"])
        with holding(store), pytest.raises(StoreUnavailable):
            other.delete(KEY)


def test_locks_do_not_depend_on_how_the_folder_is_spelled(store, tmp_path):
    fill_store(store, ["1"])
    (tmp_path / "link").symlink_to(store.root)
    with (
        FileStore(tmp_path / "link", lock_timeout=0.2) as other,
        holding(store),
        pytest.raises(StoreUnavailable),
    ):
        other.delete(KEY)


def test_close_stops_the_writers_that_wait(store):
    fill_store(store, ["1"])
    outcome = []

    def write():
        try:
            store.delete(KEY)
        except StoreClosed:
            outcome.append("closed")

    with holding(store):
        attempts = note_failed_attempts(store)
        waiting = threading.Thread(target=write)
        waiting.start()
        wait_for_attempt(attempts)
        store._open_guard.close()
    waiting.join()
    assert outcome == ["closed"]


@needs_linux
def test_a_writer_that_is_under_way_when_the_store_closes_leaves_no_lock_behind(store):
    fill_store(store, ["1"])
    with holding(store):
        store.close()
        with FileStore(store.root, lock_timeout=0.1) as other, pytest.raises(StoreUnavailable):
            other.delete(KEY)
    assert not [path for path in open_files() if path.startswith(store.root)]
    with fresh(store) as other:
        assert other.delete(KEY)


@needs_linux
def test_two_writers_of_one_store_have_a_lock_file_each_and_leave_one_open(store):
    head = fill_store(store, ["1"])
    with holding(store):
        attempts = note_failed_attempts(store)
        writer = threading.Thread(
            target=store.append, args=(KEY, ["2"]), kwargs={"after": head, "revision": revision()}
        )
        writer.start()
        wait_for_attempt(attempts)
    writer.join()
    assert bodies_of(store) == ["1", "2"]
    assert len([path for path in open_files() if path.startswith(store.root)]) == 1


@needs_linux
def test_a_forked_child_neither_writes_nor_keeps_the_lock(store):
    head = fill_store(store, ["1"])
    with holding(store):
        child = os.fork()
        if child == 0:
            try:
                store.append(KEY, ["2"], after=head, revision=revision())
            except StoreClosed:
                os._exit(any(path.startswith(store.root) for path in open_files()))
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.append(KEY, ["2"], after=head, revision=revision())


def test_many_threads_and_two_stores_lose_nothing(store):
    key, written = Key("default", "busy"), []

    def write(one, name):
        head = None
        for number in range(15):
            bodies = [f"{name}-{number}-{part}" for part in range(2)]
            while True:
                try:
                    head = one.append(key, bodies, after=head, revision=revision())
                    break
                except Conflict as conflict:
                    head = conflict.head
            written.append(bodies)

    with fresh(store) as other:
        threads = [threading.Thread(target=write, args=((store, other)[n % 2], n)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stored = bodies_of(store, key)
    assert sorted(stored[at : at + 2] for at in range(0, len(stored), 2)) == sorted(written)
    assert len(stored) == 180
