"""Guarantees 2, 7, 9 and 10 with many threads: one writer succeeds, nothing is lost, nothing is seen half done.

Each race runs through one instance and, if the store is shared, through an instance for each thread: a lock within an
instance must not be all that separates two writers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from threading import Event
from typing import TypeAlias, cast

import pytest

from chathistory.errors import Conflict
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key
from chathistory.testing.contract.base_test_class import ContractTest, skip_unless
from chathistory.testing.contract.checked_reads import (
    check_absent,
    check_bodies,
    check_head,
    check_heads,
    check_read_result,
    list_heads,
    read_bodies,
    read_everything,
    read_head,
)
from chathistory.testing.contract.run_threads import WritersAndReaders, run_together
from chathistory.testing.contract.samples import (
    KEY,
    append_lines,
    create_conversation,
    make_line,
    make_lines,
    make_revision,
)
from chathistory.testing.guarantees import belongs_to

__all__ = [
    "Concurrency",
    "IncarnationWriter",
    "PairWriter",
    "check_incarnation",
    "check_incarnation_listed",
    "check_pairs",
    "check_pairs_listed",
    "check_refused",
    "forget_all_but_three",
]

_THREADS = 16
_INSTANCES = 6  # threads in a race where each has its own instance
_RACES = 5
_ROUNDS = 30

Instances: TypeAlias = Callable[[int], list[HistoryStore]]
"""Returns a store for each of a number of threads: the same for all, or an instance each (fewer, but at least two)."""


def race_appends(stores: list[HistoryStore], after: Head | None) -> None:
    """Append after the same head from every store at once; check that one succeeds and the others get its head."""
    appends = [
        partial(s.append, KEY, [f"of {at}"] * 2, after=after, revision=make_revision()) for at, s in enumerate(stores)
    ]
    outcomes = run_together(*appends, expect=(Conflict,))
    winners = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Head)]
    assert len(winners) == 1, f"{len(winners)} of {len(stores)} appends after the same head succeeded; expected 1"
    head = outcomes[winners[0]]
    for store in stores:
        check_head(store, KEY, cast("Head", head))
    for outcome in outcomes:
        assert outcome is head or cast("Conflict", outcome).head == head, (
            "the Conflict of a refused append does not carry the current head"
        )
    check_bodies(stores[0], KEY, [*make_lines(after.end if after else 0), *[f"of {winners[0]}"] * 2])


def append_until_stored(store: HistoryStore, name: str, batches: int) -> None:
    """Append batches of three lines; repeat each after the head of its Conflict until it is stored."""
    head = read_head(store, KEY)
    for batch in range(batches):
        bodies = [f"{name} {batch} {part}" for part in range(3)]
        given = make_revision()
        while True:
            try:
                head = store.append(KEY, bodies, after=head, revision=given)
                break
            except Conflict as conflict:
                head = conflict.head


class Concurrency(ContractTest, guarantee=10):
    """Many threads use a store at once, through one instance and through many."""

    @pytest.fixture(params=["one instance", "one per thread"])
    def instances(self, request: pytest.FixtureRequest, store: HistoryStore) -> Iterator[Instances]:
        """Yield a function that returns a store for each thread: the same for all, or an instance each."""
        own = request.param == "one per thread"
        skip_unless(store.traits.shared or not own, "not shared")
        with ExitStack() as opened:
            stores = [store]

            def stores_for(count: int) -> list[HistoryStore]:
                if not own:
                    return [store] * count
                while len(stores) < min(count, _INSTANCES):
                    stores.append(opened.enter_context(self.reopen(store)))
                return stores[:count]

            yield stores_for

    @belongs_to(2)
    def test_exactly_one_of_many_appends_succeeds(self, store: HistoryStore, instances: Instances) -> None:
        for _ in range(_RACES):
            race_appends(instances(_THREADS), create_conversation(store, count=2))
            store.delete(KEY)

    @belongs_to(2)
    def test_exactly_one_of_many_threads_creates_the_conversation(
        self, store: HistoryStore, instances: Instances
    ) -> None:
        for _ in range(_RACES):
            race_appends(instances(_THREADS), None)
            store.delete(KEY)

    def test_exactly_one_of_many_deletes_succeeds(self, store: HistoryStore, instances: Instances) -> None:
        for _ in range(_RACES):
            version = create_conversation(store).revision.version
            outcomes = run_together(*[partial(each.delete, KEY, version=version) for each in instances(_THREADS)])
            assert sum(map(bool, outcomes)) == 1, (
                "exactly one of the concurrent deletes must return True, the others False"
            )
            check_absent(store, KEY)

    @belongs_to(2)
    def test_exactly_one_of_an_append_and_a_delete_succeeds(self, store: HistoryStore, instances: Instances) -> None:
        for turn in range(10):  # alternates, since the thread that is started last often runs first
            head = create_conversation(store)
            works: list[Callable[[], object]] = []
            for at, each in enumerate(instances(4)):
                append = partial(each.append, KEY, make_lines(1), after=head, revision=make_revision())
                works.append(append if (at + turn) % 2 else partial(each.delete, KEY, version=head.revision.version))
            won = [outcome for outcome in run_together(*works, expect=(Conflict,)) if isinstance(outcome, Head | bool)]
            succeeded = [outcome for outcome in won if outcome is not False]
            assert len(succeeded) == 1, (
                f"an append and a delete of one version gave {succeeded}; exactly one must succeed"
            )
            assert (store.read(KEY) is None) is (succeeded == [True])
            store.delete(KEY)

    def test_batches_of_many_writers_are_stored_once_and_not_interleaved(
        self, store: HistoryStore, instances: Instances
    ) -> None:
        stores = instances(_THREADS)
        run_together(*[partial(append_until_stored, each, f"writer{at}", 2) for at, each in enumerate(stores)])
        bodies = read_bodies(store, KEY)
        batches = [tuple(bodies[at : at + 3]) for at in range(0, len(bodies), 3)]
        writers = range(len(stores))
        expected = [tuple(f"writer{at} {batch} {part}" for part in range(3)) for at in writers for batch in range(2)]
        assert sorted(batches) == sorted(expected), "a batch is missing, stored twice, or interleaved with another one"

    def test_threads_write_separate_conversations_at_once(self, store: HistoryStore, instances: Instances) -> None:
        stores = instances(8)
        run_together(
            *[partial(_write_own_conversation, each, Key(f"scope{at % 3}", f"c{at}")) for at, each in enumerate(stores)]
        )
        assert len(list(store.keys())) == len(stores)

    def test_every_instance_sees_each_write_at_once(self, store: HistoryStore, instances: Instances) -> None:
        stores, head = instances(4), create_conversation(store)
        for writer in (*stores, *stores):
            head = append_lines(writer, head, 2)
            self._check_all_see(stores, head)
            head = cast("Head", writer.forget(KEY, before=head.end - 1))
            self._check_all_see(stores, head)
        stores[-1].delete(KEY)
        for each in stores:
            assert read_everything(each) == {}, "an instance still finds a deleted conversation"
            check_absent(each, KEY)
            check_heads(each, list_heads(each, KEY.scope), [])

    def _check_all_see(self, stores: list[HistoryStore], head: Head) -> None:
        for each in stores:
            assert read_everything(each).get(KEY) == (
                head,
                "",
                {at: make_line(at) for at in range(head.start, head.end)},
            )

    @belongs_to(7)
    def test_read_returns_head_and_records_of_one_moment(self, instances: Instances) -> None:
        writing, *reading = instances(5)
        pairs, meanwhile = PairWriter(writing), WritersAndReaders()
        meanwhile.add_writer(pairs.step, rounds=_ROUNDS)
        for at, start in enumerate((-3, 0, -2)):
            meanwhile.add_reader(partial(check_pairs, reading[at % len(reading)], start))
        meanwhile.add_reader(partial(check_pairs_listed, reading[-1]))
        meanwhile.run()

    def test_a_refused_append_is_never_visible(self, instances: Instances) -> None:
        writing, *others = instances(4)
        pairs, meanwhile = PairWriter(writing), WritersAndReaders()
        old = replace(pairs.head, revision=make_revision())
        meanwhile.add_writer(pairs.step, rounds=_ROUNDS)
        meanwhile.add_reader(partial(check_refused, others[0], old))
        for start in (-3, 0):
            meanwhile.add_reader(partial(check_pairs, others[-1], start))
        meanwhile.run()

    @belongs_to(2)
    def test_creating_an_existing_conversation_is_a_conflict_during_writes(self, instances: Instances) -> None:
        writing, *others = instances(4)
        pairs, meanwhile = PairWriter(writing), WritersAndReaders()
        meanwhile.add_writer(pairs.step, rounds=_ROUNDS)
        for other in others:
            meanwhile.add_reader(partial(check_refused, other, None))
        meanwhile.run()
        check_head(writing, KEY, pairs.head)

    @belongs_to(9)
    def test_forget_loses_no_concurrent_append(self, instances: Instances) -> None:
        writing, *others = instances(3)
        pairs, meanwhile = PairWriter(writing), WritersAndReaders()
        meanwhile.add_writer(partial(pairs.step, keep=None), rounds=_ROUNDS)
        for other in others:
            meanwhile.add_reader(partial(forget_all_but_three, other))
        meanwhile.run()
        head = read_head(writing, KEY)
        assert head is not None
        assert (head.end, head.revision) == (pairs.head.end, pairs.head.revision), (
            "a forget undid a concurrent append: the end or the revision is not that of the last append"
        )
        check_bodies(writing, KEY, make_lines(head.end - head.start, first=head.start))

    @belongs_to(9)
    def test_delete_is_never_seen_half_done(self, instances: Instances) -> None:
        writing, *reading = instances(4)
        incarnations, meanwhile = IncarnationWriter(writing), WritersAndReaders()
        meanwhile.add_writer(incarnations.step, rounds=_ROUNDS)
        for at, start in enumerate((0, -3)):
            meanwhile.add_reader(partial(check_incarnation, reading[at % len(reading)], start))
        meanwhile.add_reader(partial(check_incarnation_listed, reading[-1]))
        meanwhile.run()

    @belongs_to(9)
    def test_delete_removes_nothing_of_the_next_conversation(self, instances: Instances) -> None:
        deleting, *making = instances(2)
        for _ in range(_ROUNDS):
            create_conversation(deleting, count=3)
            gone = Event()
            _, head = run_together(
                partial(_delete_and_signal, deleting, gone), partial(_create_once_deleted, making[-1], gone)
            )
            check_head(deleting, KEY, cast("Head", head))
            assert read_bodies(deleting, KEY) == ["new"] * 2, (
                "a delete removed records of the conversation that was created after it"
            )
            making[-1].delete(KEY)


def _write_own_conversation(store: HistoryStore, key: Key) -> None:
    head = None
    for at in range(6):
        head = store.append(key, [make_line(at)], after=head, revision=make_revision())
        check_bodies(store, key, make_lines(at + 1))


def _delete_and_signal(store: HistoryStore, gone: Event) -> None:
    try:
        assert store.delete(KEY) is True, "delete() must return True: the conversation existed"
    finally:
        gone.set()


def _create_once_deleted(store: HistoryStore, gone: Event) -> Head:
    """Create the conversation again as soon as that is allowed."""
    while True:
        deleted = gone.is_set()
        try:
            return store.append(KEY, ["new"] * 2, after=None, revision=make_revision())
        except Conflict:
            assert not deleted, "append(after=None) raised Conflict after the conversation was deleted"


class PairWriter:
    """Appends pairs of lines to a conversation and forgets by pairs; the payload is the end."""

    def __init__(self, store: HistoryStore, key: Key = KEY) -> None:
        self.store = store
        self.key = key
        self.head = self._append_pair(None)

    def _append_pair(self, after: Head | None) -> Head:
        end = after.end if after else 0
        return self.store.append(
            self.key, make_lines(2, first=end), after=after, revision=make_revision(payload=str(end + 2))
        )

    def step(self, *, keep: int | None = 8) -> None:
        """Append a pair; if there are more than `keep` records, forget all but four."""
        self.head = self._append_pair(self.head)
        if keep is not None and self.head.end - self.head.start > keep:
            self.head = cast("Head", self.store.forget(self.key, before=self.head.end - 4))


def check_pairs(store: HistoryStore, start: int) -> None:
    """Read the conversation of a `PairWriter`, and check that head and records are of one moment."""
    run = store.read(KEY, start=start)
    assert run is not None, "a conversation that is only appended to was absent for a moment"
    check_read_result(run, start)
    _check_one_moment(run.head)
    for record in run.records:
        assert record.body == make_line(record.position), (
            f"read() returned {record.body!r} at position {record.position}"
        )


def check_pairs_listed(store: HistoryStore) -> None:
    """Check that heads() lists the conversation of a `PairWriter`, with a head of one moment."""
    heads = store.heads(KEY.scope).items
    assert [head.key for head in heads] == [KEY], (
        "a conversation that is appended to was missing in heads() for a moment"
    )
    _check_one_moment(heads[0])


def _check_one_moment(head: Head) -> None:
    assert head.start % 2 == head.end % 2 == 0, f"a reader saw a part of a batch: {head}"
    assert head.revision.payload == str(head.end), (
        f"a reader saw the end {head.end} with the revision of the end {head.revision.payload}"
    )


def check_refused(store: HistoryStore, after: Head | None) -> None:
    """Append after an outdated head of an existing conversation; check that it is a Conflict."""
    with pytest.raises(Conflict) as caught:
        store.append(KEY, ["refused"] * 2, after=after, revision=make_revision())
    assert caught.value.head is not None, "a conversation that is only appended to was absent for a moment"


def forget_all_but_three(store: HistoryStore) -> None:
    """Forget all but the three newest records."""
    head = read_head(store, KEY)
    assert head is not None
    store.forget(KEY, before=head.end - 3)


class IncarnationWriter:
    """Creates, extends and deletes a conversation repeatedly; all lines of one incarnation name it."""

    def __init__(self, store: HistoryStore, key: Key = KEY) -> None:
        self.store = store
        self.key = key
        self._count = 0

    def step(self) -> None:
        """Create the next incarnation, append to it, and delete it."""
        self._count += 1
        name = f"incarnation {self._count}"
        head = self.store.append(self.key, [name] * 3, after=None, revision=make_revision(payload=name))
        head = self.store.append(self.key, [name] * 3, after=head, revision=make_revision(payload=name))
        assert self.store.delete(self.key, version=head.revision.version) is True, (
            "delete() must return True: the conversation existed"
        )


def check_incarnation(store: HistoryStore, start: int) -> None:
    """Read the conversation of an `IncarnationWriter`: it is absent, or complete and of one incarnation."""
    run = store.read(KEY, start=start)
    if run is None:
        return
    check_read_result(run, start)
    assert run.head.end - run.head.start in {3, 6}, f"a reader saw a part of a batch: {run.head}"
    others = {record.body for record in run.records} - {run.head.revision.payload}
    assert not others, f"read() returned records of {sorted(others)} with the head of {run.head.revision.payload}"


def check_incarnation_listed(store: HistoryStore) -> None:
    """Check that heads() lists the conversation of an `IncarnationWriter` once or not at all."""
    heads = store.heads(KEY.scope).items
    assert [head.key for head in heads] in ([], [KEY])
