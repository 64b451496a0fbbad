"""Guarantees 2, 7 and 10 with many threads at once: one winner, nothing lost, nothing seen by halves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import cast

from chathistory.errors import Conflict
from chathistory.store import Head, HistoryStore, Key
from chathistory.testing.contract.base import Contract
from chathistory.testing.contract.looking import bodies_of, check_run, head_of
from chathistory.testing.contract.samples import KEY, created, line, lines, stamp
from chathistory.testing.contract.threads import together
from chathistory.testing.guarantees import belongs_to

__all__ = ["Concurrency", "persistent", "race"]

_THREADS = 16
_WRITES = 200
_SECONDS = 1.5  # a slow store does fewer writes


def race(stores: list[HistoryStore], after: Head | None) -> None:
    """Let every store append after one head at once: check that one wins, and that the others learn who."""
    appends = [partial(s.append, KEY, [f"of {at}"], after=after, stamp=stamp()) for at, s in enumerate(stores)]
    outcomes = together(*appends, expect=(Conflict,))
    winners = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Head)]
    assert len(winners) == 1, f"{len(winners)} of {len(stores)} appends after one head were taken"
    head = outcomes[winners[0]]
    assert head_of(stores[0], KEY) == head
    for outcome in outcomes:
        assert outcome is head or cast("Conflict", outcome).head == head, "a loser was not told the present head"
    assert bodies_of(stores[0], KEY) == [*lines(after.end if after else 0), f"of {winners[0]}"]


def persistent(store: HistoryStore, name: str, batches: int) -> None:
    """Append batches of three lines, each as often as it takes, going on from the head of the Conflict."""
    head = head_of(store, KEY)
    for batch in range(batches):
        bodies = [f"{name} {batch} {part}" for part in range(3)]
        given = stamp()
        while True:
            try:
                head = store.append(KEY, bodies, after=head, stamp=given)
                break
            except Conflict as conflict:
                head = conflict.head


class Concurrency(Contract, guarantee=10):
    """Safe to use from many threads at once."""

    @belongs_to(2)
    def test_one_of_many_appends_wins(self, store: HistoryStore) -> None:
        race([store] * _THREADS, created(store, count=2))

    @belongs_to(2)
    def test_one_of_many_makes_the_conversation(self, store: HistoryStore) -> None:
        race([store] * _THREADS, None)

    def test_one_of_many_deletes_wins(self, store: HistoryStore) -> None:
        version = created(store).stamp.version
        outcomes = together(*[partial(store.delete, KEY, version=version)] * _THREADS)
        assert sorted(outcomes, key=bool) == [False] * (_THREADS - 1) + [True], "one delete is True, the others False"
        assert store.read(KEY) is None

    @belongs_to(2)
    def test_an_append_and_a_delete_of_one_version(self, store: HistoryStore) -> None:
        for _ in range(10):
            head = created(store)
            append = partial(store.append, KEY, lines(1), after=head, stamp=stamp())
            delete = partial(store.delete, KEY, version=head.stamp.version)
            works: list[Callable[[], object]] = [append, delete] * 2
            won = [outcome for outcome in together(*works, expect=(Conflict,)) if isinstance(outcome, Head | bool)]
            taken = [outcome for outcome in won if outcome is not False]
            assert len(taken) == 1, f"{taken} were all taken, of one version"
            assert (store.read(KEY) is None) is (taken == [True])
            store.delete(KEY)

    def test_every_batch_of_many_writers_is_there_once_and_in_one_piece(self, store: HistoryStore) -> None:
        together(*[partial(persistent, store, f"writer{at}", 2) for at in range(_THREADS)])
        bodies = bodies_of(store, KEY)
        batches = [tuple(bodies[at : at + 3]) for at in range(0, len(bodies), 3)]
        due = [tuple(f"writer{at} {batch} {part}" for part in range(3)) for at in range(_THREADS) for batch in range(2)]
        assert sorted(batches) == sorted(due), "a batch is missing, doubled, or was cut by another one"

    def test_many_conversations_at_once(self, store: HistoryStore) -> None:
        together(*[partial(_own, store, Key(f"scope{at % 3}", f"c{at}")) for at in range(8)])
        assert len(list(store.keys())) == 8  # noqa: PLR2004

    @belongs_to(7)
    def test_a_reader_sees_head_and_records_of_one_moment(self, store: HistoryStore) -> None:
        _write_pairs(store, 1)
        done = threading.Event()
        works: list[Callable[[], object]] = [partial(_watch, store, done, start) for start in (-3, 0, -2)]
        together(partial(_write_and_tell, store, done), partial(_watch_listing, store, done), *works)

    @belongs_to(9)
    def test_a_forget_loses_nothing_that_is_appended(self, store: HistoryStore) -> None:
        created(store, count=2)
        done = threading.Event()
        works: list[Callable[[], Head | None]] = [
            partial(_write_and_tell, store, done),
            partial(_forget_on, store, done),
        ]
        last = cast("Head", together(*works)[0])
        head = head_of(store, KEY)
        assert head is not None
        assert (head.end, head.stamp) == (last.end, last.stamp), "a forget took back an append"
        assert bodies_of(store, KEY) == lines(head.end - head.start, first=head.start)


def _own(store: HistoryStore, key: Key) -> None:
    head = None
    for at in range(6):
        head = store.append(key, [line(at)], after=head, stamp=stamp())
        assert bodies_of(store, key) == lines(at + 1)


def _write_pairs(store: HistoryStore, most: int) -> Head | None:
    """Append pairs, forgetting by pairs; the info says where the conversation then ends. Returns the last head."""
    head = head_of(store, KEY)
    late = time.monotonic() + _SECONDS
    for _ in range(most):
        end = head.end if head else 0
        head = store.append(KEY, lines(2, first=end), after=head, stamp=stamp(info=str(end + 2)))
        if head.end - head.start > 8:  # noqa: PLR2004  # so much is kept
            store.forget(KEY, before=head.end - 4)  # which leaves the version, so the writer just goes on
        if time.monotonic() > late:
            break
    return head


def _write_and_tell(store: HistoryStore, done: threading.Event) -> Head | None:
    try:
        return _write_pairs(store, _WRITES)
    finally:
        done.set()


def _watch(store: HistoryStore, done: threading.Event, start: int) -> None:
    while not done.is_set():
        run = store.read(KEY, start=start)
        assert run is not None, "a conversation that is only written was absent for a moment"
        check_run(run, start)
        _one_moment(run.head)
        for record in run.records:
            assert record.body == line(record.position), f"{record.body!r} was read at position {record.position}"


def _watch_listing(store: HistoryStore, done: threading.Event) -> None:
    while not done.is_set():
        heads = store.heads(KEY.scope).items
        assert [head.key for head in heads] == [KEY], "a conversation that is written left its listing for a moment"
        _one_moment(heads[0])


def _one_moment(head: Head) -> None:
    assert head.start % 2 == head.end % 2 == 0, f"half a batch was seen: {head}"
    assert head.stamp.info == str(head.end), f"the stamp of end {head.stamp.info} was seen with the end {head.end}"


def _forget_on(store: HistoryStore, done: threading.Event) -> None:
    while not done.is_set():
        head = head_of(store, KEY)
        assert head is not None
        store.forget(KEY, before=head.end - 3)
