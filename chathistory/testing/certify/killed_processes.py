"""Guarantees 4, 7, 9 and 10 with real processes: killed writers, many writers, crashed servers, damaged records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from chathistory.errors import CorruptRecord
from chathistory.history import History
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head
from chathistory.testing.certify.base_test_class import CertifyTest, skip_as_not_tested
from chathistory.testing.certify.writer_process import BATCH, WriterOrder, batch_bodies, forgettable_body
from chathistory.testing.contract.base_test_class import skip_unless
from chathistory.testing.contract.checked_reads import list_heads, read_bodies, read_head
from chathistory.testing.contract.concurrency import (
    check_incarnation,
    check_incarnation_listed,
    check_pairs,
    check_pairs_listed,
    check_refused,
    forget_all_but_three,
)
from chathistory.testing.contract.run_threads import HANG_SECONDS
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines, make_revision
from chathistory.testing.guarantees import belongs_to

__all__ = ["ConcurrentProcesses", "Crashes", "KilledRemovals", "ReportedDamage"]

_MANY = 100_000
_ROUNDS = 40


@contextmanager
def _start_writer(order: WriterOrder) -> Iterator[subprocess.Popen[str]]:
    """Start a writer process with an order on its standard input, and kill it at the end of the block."""
    command = [sys.executable, "-m", "chathistory.testing.certify.writer_process"]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603  # our own
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # finds the backend's plugin as well
    ) as process:
        assert process.stdin is not None
        process.stdin.write(f"{order.to_json()}\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def _kill_within_an_append(process: subprocess.Popen[str], acknowledged: int, part: float) -> int:
    """Kill the writer in the middle of an append; return how many appends it reported.

    Args:
        process: The writer.
        acknowledged: How many appends to wait for.
        part: When to kill it after these, as a part of the mean time of an append.
    """
    assert process.stdout is not None
    reported, begun = 0, time.monotonic()
    while reported < acknowledged and process.stdout.readline():
        reported += 1
        begun = time.monotonic() if reported == 1 else begun
    time.sleep(part * (time.monotonic() - begun) / max(reported - 1, 1))
    process.kill()
    return reported + len(process.stdout.read().splitlines())


class Crashes(CertifyTest, guarantee=4):
    """What was acknowledged is stored, whichever process was killed since."""

    @pytest.mark.parametrize(("acknowledged", "part"), [(3, 0.8), (9, 0.5), (23, 0.2)])
    def test_a_killed_writer_loses_no_append_and_leaves_no_partial_batch(
        self, store: HistoryStore, acknowledged: int, part: float
    ) -> None:
        skip_unless(store.traits.durable, "not durable")
        with _start_writer(self.target.order(self.scoped, KEY, "appends", rounds=_MANY, name="killed")) as process:
            reported = _kill_within_an_append(process, acknowledged, part)
        assert reported >= acknowledged, f"the writer ended on its own after {reported} appends"
        with self.reopen(store) as other:
            bodies = read_bodies(other, KEY)
            batches = len(bodies) // BATCH
            expected = [body for number in range(batches) for body in batch_bodies("killed", number, number * BATCH)]
            assert bodies == expected, "a killed writer left something else than its batches, complete and in order"
            assert batches in {reported, reported + 1}, f"{reported} appends were acknowledged, {batches} are stored"
            for walk in (other.keys(), other.scan_keys(), (head.key for head in list_heads(other, KEY.scope))):
                assert list(walk) == [KEY], (
                    "keys(), scan_keys() or heads() does not find the conversation of a killed writer"
                )
            head = read_head(other, KEY)
            assert head is not None
            head = append_lines(other, head)
            assert read_bodies(other, KEY) == [*expected, *make_lines(1, first=len(expected))], (
                "the next writer cannot append after a killed one"
            )
            assert list_heads(other, KEY.scope) == [head]

    def test_appends_survive_repeated_close_and_reopen(self, store: HistoryStore) -> None:
        skip_unless(store.traits.durable, "not durable")
        head = create_conversation(store)
        for _ in range(12):
            with self.reopen(store) as other:
                assert read_head(other, KEY) == head
                head = append_lines(other, head, 2)
        with self.reopen(store) as other:
            assert read_bodies(other, KEY) == make_lines(25)

    def test_appends_survive_a_crash_of_the_server(self, store: HistoryStore) -> None:
        skip_unless(store.traits.durable, "not durable")
        crash = self.target.hooks.crash or skip_as_not_tested("the hook `crash`")
        head = create_conversation(store)
        for _ in range(20):
            head = append_lines(store, head)
        crash()
        with self.reopen(store) as other:
            assert read_head(other, KEY) == head, "acknowledged appends are missing after a crash"
            assert read_bodies(other, KEY) == make_lines(21)


class KilledRemovals(CertifyTest, guarantee=9):
    """What a process leaves that is killed during forget or delete is removed by the next call."""

    @pytest.mark.parametrize(("acknowledged", "part"), [(2, 0.9), (7, 0.6), (15, 0.3)])
    def test_the_next_forget_removes_what_a_killed_one_left(
        self, store: HistoryStore, acknowledged: int, part: float
    ) -> None:
        word = self._kill_while_removing("forgets", acknowledged, part)
        with self.reopen(store) as other:
            head = read_head(other, KEY)
            assert head is not None
            expected = [forgettable_body(word, position) for position in range(head.start, head.end)]
            assert read_bodies(other, KEY) == expected, "a killed forget changed the records that it must keep"
            other.forget(KEY, before=head.end)
            for position in range(head.end):
                assert not self.remains(forgettable_body(word, position)), (
                    f"the text of the forgotten record {position} is still stored"
                )

    @pytest.mark.parametrize(("acknowledged", "part"), [(2, 0.9), (7, 0.6), (15, 0.3)])
    def test_an_erasure_removes_what_a_killed_delete_left(
        self, store: HistoryStore, acknowledged: int, part: float
    ) -> None:
        word = self._kill_while_removing("deletes", acknowledged, part)
        with self.reopen(store) as other:
            other.delete(KEY)
            assert other.remove_leftovers(KEY.scope).complete
            assert not self.remains(word), "the text of a deleted conversation is still stored"
            assert read_bodies(other, create_conversation(other, count=2).key) == make_lines(2)

    def _kill_while_removing(self, work: str, acknowledged: int, part: float) -> str:
        """Kill a process during its work; return the word that all its lines contain."""
        skip_unless(self.scoped.traits.durable, "not durable")
        if self.target.hooks.remains is None:
            skip_as_not_tested("the hook `remains`")
        word = f"killed{uuid.uuid4().hex}"
        with _start_writer(self.target.order(self.scoped, KEY, work, rounds=_MANY, name=word)) as process:
            reported = _kill_within_an_append(process, acknowledged, part)
        assert reported >= acknowledged, f"the process ended on its own after {reported} rounds"
        return word


class ConcurrentProcesses(CertifyTest, guarantee=10):
    """Many processes write and read one conversation."""

    def test_four_processes_lose_no_append(self, store: HistoryStore) -> None:
        skip_unless(store.traits.shared, "not shared")
        names = [f"process{at}" for at in range(4)]
        self._write_all(names, 10)
        bodies = read_bodies(store, KEY)
        batches = [body.split()[:2] for body in bodies[::BATCH]]
        expected = [[name, str(number)] for name in names for number in range(10)]
        assert sorted(batches) == sorted(expected), "a batch of a process is missing or stored twice"
        for at, (name, number) in enumerate(batches):
            seen = bodies[at * BATCH : (at + 1) * BATCH]
            assert seen == batch_bodies(name, int(number), at * BATCH), (
                "an append succeeded after a head that was not the current one"
            )

    def _write_all(self, names: list[str], batches: int) -> None:
        if not names:
            return
        with _start_writer(self.target.order(self.scoped, KEY, "appends", rounds=batches, name=names[0])) as process:
            self._write_all(names[1:], batches)
            assert _RoundCounter(process).stop_writer() == batches

    @belongs_to(7)
    def test_read_returns_one_moment_while_another_process_writes(self, store: HistoryStore) -> None:
        self._check_while_writing(
            store, "pairs", partial(check_pairs, start=-3), partial(check_pairs, start=0), check_pairs_listed
        )

    @belongs_to(2)
    def test_creating_an_existing_conversation_is_a_conflict_across_processes(self, store: HistoryStore) -> None:
        self._check_while_writing(
            store,
            "pairs",
            partial(check_refused, after=None),
            partial(check_refused, after=Head(KEY, 0, 2, make_revision())),
        )

    @belongs_to(9)
    def test_forget_loses_no_append_of_another_process(self, store: HistoryStore) -> None:
        rounds = self._check_while_writing(store, "kept_pairs", forget_all_but_three)
        head = read_head(store, KEY)
        assert head is not None
        assert head.end == 2 * rounds + 2, "a forget undid an append of another process"
        assert read_bodies(store, KEY) == make_lines(head.end - head.start, first=head.start)

    @belongs_to(9)
    def test_delete_by_another_process_is_never_seen_half_done(self, store: HistoryStore) -> None:
        looks = (partial(check_incarnation, start=0), partial(check_incarnation, start=-3), check_incarnation_listed)
        self._check_while_writing(store, "incarnations", *looks)

    def _check_while_writing(self, store: HistoryStore, work: str, *looks: Callable[[HistoryStore], object]) -> int:
        """Call `looks` while a process works, once for each of its rounds; return how many rounds it did.

        Looking without a pause could keep the lock of a store from the process until that gives up.
        """
        skip_unless(store.traits.shared, "not shared")
        with _start_writer(
            self.target.order(self.scoped, KEY, work, rounds=_ROUNDS, until_stdin_closes=True)
        ) as process:
            reported = _RoundCounter(process)
            for _ in range(_ROUNDS):
                assert reported.progress.acquire(timeout=HANG_SECONDS), "a process did not finish a round"
                if reported.has_ended:
                    break
                for look in looks:
                    look(store)
            return reported.stop_writer()


class _RoundCounter(threading.Thread):
    """Counts the rounds that a process reports."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.rounds = 0
        self.has_ended = False
        self.progress = threading.Semaphore(0)  # how many rounds, and the end, nobody has waited for
        self._process = process
        self.start()

    def run(self) -> None:
        for _ in self._process.stdout or ():
            self.rounds += 1
            self.progress.release()
        self.has_ended = True
        self.progress.release()

    def stop_writer(self) -> int:
        """Close the input of the process, check that it ends without an error, and return how many rounds it did."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        self.join(HANG_SECONDS)
        assert not self.is_alive(), "a process did not end after its input was closed"
        assert self._process.wait(HANG_SECONDS) == 0, f"a writer failed: {_last_line(self._process.stderr.read())}"
        return self.rounds


def _last_line(errors: str) -> str:
    return json.dumps(errors.strip().rpartition("\n")[2])


class ReportedDamage(CertifyTest, guarantee=7):
    """A damaged record is reported with its position."""

    @pytest.mark.parametrize("position", [0, 2, 4])
    def test_a_damaged_record_raises_corrupt_record(self, store: HistoryStore, position: int) -> None:
        skip_unless(store.traits.durable, "not durable")
        damage = self.target.hooks.damage or skip_as_not_tested("the hook `damage`")
        chat = History(store).conversation(KEY.id, scope=KEY.scope)
        for at in range(5):
            chat.append({"role": ("user", "assistant")[at % 2], "content": f"line {at}"})
        damage(self.scoped.inner, self.scoped.names.stored_key(KEY), position)
        with self.reopen(store) as other, pytest.raises(CorruptRecord) as caught:
            list(History(other).conversation(KEY.id, scope=KEY.scope).entries())
        assert caught.value.position in {position, None}
