"""Guarantees 2, 7, 9 and 10 with many threads at once: one winner, nothing lost, nothing seen by halves.

Each race runs through one instance, and through one instance for each thread where the store is shared: a lock that an
instance holds must not be all that keeps two writers apart.
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
from chathistory.testing.contract.base import Contract, applies
from chathistory.testing.contract.queries import bodies_of, check_run, contents, head_of, listed
from chathistory.testing.contract.samples import KEY, created, grown, line, lines, revision
from chathistory.testing.contract.threads import Meanwhile, together
from chathistory.testing.guarantees import belongs_to

__all__ = [
    "Concurrency",
    "Incarnations",
    "Pairs",
    "forget_some",
    "is_refused",
    "see_incarnation",
    "see_incarnation_listed",
    "see_pairs",
    "see_pairs_listed",
]

_THREADS = 16
_INSTANCES = 6  # so many threads race where each has an instance of its own
_RACES = 5
_ROUNDS = 30

Instances: TypeAlias = Callable[[int], list[HistoryStore]]
"""Gives each of so many threads its store: all the same, or an instance each. There may be fewer, but two at least."""


def race(stores: list[HistoryStore], after: Head | None) -> None:
    """Let every store append after one head at once: check that one wins, and that the others learn who."""
    appends = [
        partial(s.append, KEY, [f"of {at}"] * 2, after=after, revision=revision()) for at, s in enumerate(stores)
    ]
    outcomes = together(*appends, expect=(Conflict,))
    winners = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Head)]
    assert len(winners) == 1, f"{len(winners)} of {len(stores)} appends after one head were taken"
    head = outcomes[winners[0]]
    for store in stores:
        assert head_of(store, KEY) == head
    for outcome in outcomes:
        assert outcome is head or cast("Conflict", outcome).head == head, "a loser was not told the present head"
    assert bodies_of(stores[0], KEY) == [*lines(after.end if after else 0), *[f"of {winners[0]}"] * 2]


def persistent(store: HistoryStore, name: str, batches: int) -> None:
    """Append batches of three lines, each as often as it takes, going on from the head of the Conflict."""
    head = head_of(store, KEY)
    for batch in range(batches):
        bodies = [f"{name} {batch} {part}" for part in range(3)]
        given = revision()
        while True:
            try:
                head = store.append(KEY, bodies, after=head, revision=given)
                break
            except Conflict as conflict:
                head = conflict.head


class Concurrency(Contract, guarantee=10):
    """Safe to use from many threads at once, through one instance and through many."""

    @pytest.fixture(params=["one instance", "one per thread"])
    def instances(self, request: pytest.FixtureRequest, store: HistoryStore) -> Iterator[Instances]:
        """Give each thread of a race its store: all the same one, or an instance each. Part of the suite."""
        own = request.param == "one per thread"
        applies(store.traits.shared or not own, "not shared")
        with ExitStack() as opened:
            stores = [store]

            def given(count: int) -> list[HistoryStore]:
                if not own:
                    return [store] * count
                while len(stores) < min(count, _INSTANCES):
                    stores.append(opened.enter_context(self.reopen(store)))
                return stores[:count]

            yield given

    @belongs_to(2)
    def test_one_of_many_appends_wins(self, store: HistoryStore, instances: Instances) -> None:
        for _ in range(_RACES):
            race(instances(_THREADS), created(store, count=2))
            store.delete(KEY)

    @belongs_to(2)
    def test_one_of_many_makes_the_conversation(self, store: HistoryStore, instances: Instances) -> None:
        for _ in range(_RACES):
            race(instances(_THREADS), None)
            store.delete(KEY)

    def test_one_of_many_deletes_wins(self, store: HistoryStore, instances: Instances) -> None:
        for _ in range(_RACES):
            version = created(store).revision.version
            outcomes = together(*[partial(each.delete, KEY, version=version) for each in instances(_THREADS)])
            assert sum(map(bool, outcomes)) == 1, "one delete is True, the others False"
            assert store.read(KEY) is None

    @belongs_to(2)
    def test_an_append_and_a_delete_of_one_version(self, store: HistoryStore, instances: Instances) -> None:
        for turn in range(10):  # the thread that is started last often works first: an append and a delete in turn
            head = created(store)
            works: list[Callable[[], object]] = []
            for at, each in enumerate(instances(4)):
                append = partial(each.append, KEY, lines(1), after=head, revision=revision())
                works.append(append if (at + turn) % 2 else partial(each.delete, KEY, version=head.revision.version))
            won = [outcome for outcome in together(*works, expect=(Conflict,)) if isinstance(outcome, Head | bool)]
            taken = [outcome for outcome in won if outcome is not False]
            assert len(taken) == 1, f"{taken} were all taken, of one version"
            assert (store.read(KEY) is None) is (taken == [True])
            store.delete(KEY)

    def test_every_batch_of_many_writers_is_there_once_and_in_one_piece(
        self, store: HistoryStore, instances: Instances
    ) -> None:
        stores = instances(_THREADS)
        together(*[partial(persistent, each, f"writer{at}", 2) for at, each in enumerate(stores)])
        bodies = bodies_of(store, KEY)
        batches = [tuple(bodies[at : at + 3]) for at in range(0, len(bodies), 3)]
        writers = range(len(stores))
        expected = [tuple(f"writer{at} {batch} {part}" for part in range(3)) for at in writers for batch in range(2)]
        assert sorted(batches) == sorted(expected), "a batch is missing, doubled, or was cut by another one"

    def test_many_conversations_at_once(self, store: HistoryStore, instances: Instances) -> None:
        stores = instances(8)
        together(*[partial(_own, each, Key(f"scope{at % 3}", f"c{at}")) for at, each in enumerate(stores)])
        assert len(list(store.keys())) == len(stores)

    def test_each_instance_sees_at_once_what_any_of_them_did(self, store: HistoryStore, instances: Instances) -> None:
        stores, head = instances(4), created(store)
        for writer in (*stores, *stores):
            head = grown(writer, head, 2)
            self._all_see(stores, head)
            head = cast("Head", writer.forget(KEY, before=head.end - 1))
            self._all_see(stores, head)
        stores[-1].delete(KEY)
        for each in stores:
            assert contents(each) == {}, "a deleted conversation is still seen"
            assert each.read(KEY) is None
            assert listed(each, KEY.scope) == []

    def _all_see(self, stores: list[HistoryStore], head: Head) -> None:
        for each in stores:
            assert contents(each).get(KEY) == (head, "", {at: line(at) for at in range(head.start, head.end)})

    @belongs_to(7)
    def test_a_reader_sees_head_and_records_of_one_moment(self, instances: Instances) -> None:
        writing, *reading = instances(5)
        pairs, meanwhile = Pairs(writing), Meanwhile()
        meanwhile.work(pairs.step, rounds=_ROUNDS)
        for at, start in enumerate((-3, 0, -2)):
            meanwhile.look(partial(see_pairs, reading[at % len(reading)], start))
        meanwhile.look(partial(see_pairs_listed, reading[-1]))
        meanwhile.run()

    def test_no_refused_append_is_seen(self, instances: Instances) -> None:
        writing, *others = instances(4)
        pairs, meanwhile = Pairs(writing), Meanwhile()
        old = replace(pairs.head, revision=revision())
        meanwhile.work(pairs.step, rounds=_ROUNDS)
        meanwhile.look(partial(is_refused, others[0], old))
        for start in (-3, 0):
            meanwhile.look(partial(see_pairs, others[-1], start))
        meanwhile.run()

    @belongs_to(2)
    def test_nobody_makes_a_conversation_that_is_there(self, instances: Instances) -> None:
        writing, *others = instances(4)
        pairs, meanwhile = Pairs(writing), Meanwhile()
        meanwhile.work(pairs.step, rounds=_ROUNDS)
        for other in others:
            meanwhile.look(partial(is_refused, other, None))
        meanwhile.run()
        assert head_of(writing, KEY) == pairs.head

    @belongs_to(9)
    def test_a_forget_loses_nothing_that_is_appended(self, instances: Instances) -> None:
        writing, *others = instances(3)
        pairs, meanwhile = Pairs(writing), Meanwhile()
        meanwhile.work(partial(pairs.step, keep=None), rounds=_ROUNDS)
        for other in others:
            meanwhile.look(partial(forget_some, other))
        meanwhile.run()
        head = head_of(writing, KEY)
        assert head is not None
        assert (head.end, head.revision) == (pairs.head.end, pairs.head.revision), "a forget took back an append"
        assert bodies_of(writing, KEY) == lines(head.end - head.start, first=head.start)

    @belongs_to(9)
    def test_a_delete_happens_at_one_moment(self, instances: Instances) -> None:
        writing, *reading = instances(4)
        incarnations, meanwhile = Incarnations(writing), Meanwhile()
        meanwhile.work(incarnations.step, rounds=_ROUNDS)
        for at, start in enumerate((0, -3)):
            meanwhile.look(partial(see_incarnation, reading[at % len(reading)], start))
        meanwhile.look(partial(see_incarnation_listed, reading[-1]))
        meanwhile.run()

    @belongs_to(9)
    def test_a_delete_takes_nothing_of_what_is_made_after_it(self, instances: Instances) -> None:
        deleting, *making = instances(2)
        for _ in range(_ROUNDS):
            created(deleting, count=3)
            gone = Event()
            _, head = together(partial(_deleted, deleting, gone), partial(_made_when_gone, making[-1], gone))
            assert head_of(deleting, KEY) == head
            assert bodies_of(deleting, KEY) == ["new"] * 2, "a delete removed records of the conversation after it"
            making[-1].delete(KEY)


def _own(store: HistoryStore, key: Key) -> None:
    head = None
    for at in range(6):
        head = store.append(key, [line(at)], after=head, revision=revision())
        assert bodies_of(store, key) == lines(at + 1)


def _deleted(store: HistoryStore, gone: Event) -> None:
    try:
        assert store.delete(KEY) is True
    finally:
        gone.set()


def _made_when_gone(store: HistoryStore, gone: Event) -> Head:
    """Make the conversation anew as soon as that is allowed."""
    while True:
        deleted = gone.is_set()
        try:
            return store.append(KEY, ["new"] * 2, after=None, revision=revision())
        except Conflict:
            assert not deleted, "a conversation that was deleted keeps others from making it anew"


class Pairs:
    """A conversation to which somebody appends pairs of lines, and forgets by pairs; the info names its end."""

    def __init__(self, store: HistoryStore, key: Key = KEY) -> None:
        self.store = store
        self.key = key
        self.head = self._appended(None)

    def _appended(self, after: Head | None) -> Head:
        end = after.end if after else 0
        return self.store.append(self.key, lines(2, first=end), after=after, revision=revision(payload=str(end + 2)))

    def step(self, *, keep: int | None = 8) -> None:
        """Append a pair; where more than `keep` records are kept, forget all but four."""
        self.head = self._appended(self.head)
        if keep is not None and self.head.end - self.head.start > keep:
            self.head = cast("Head", self.store.forget(self.key, before=self.head.end - 4))


def see_pairs(store: HistoryStore, start: int) -> None:
    """Read a conversation of `Pairs`, and check that all that is seen is of one moment."""
    run = store.read(KEY, start=start)
    assert run is not None, "a conversation that is only written was absent for a moment"
    check_run(run, start)
    _one_moment(run.head)
    for record in run.records:
        assert record.body == line(record.position), f"{record.body!r} was read at position {record.position}"


def see_pairs_listed(store: HistoryStore) -> None:
    """List, and check that the conversation of `Pairs` is there, and its head of one moment."""
    heads = store.heads(KEY.scope).items
    assert [head.key for head in heads] == [KEY], "a conversation that is written left its listing for a moment"
    _one_moment(heads[0])


def _one_moment(head: Head) -> None:
    assert head.start % 2 == head.end % 2 == 0, f"half a batch was seen: {head}"
    assert head.revision.payload == str(head.end), (
        f"the revision of end {head.revision.payload} was seen with the end {head.end}"
    )


def is_refused(store: HistoryStore, after: Head | None) -> None:
    """Append after a head that is not the present one of a conversation that is there; check that it is a Conflict."""
    with pytest.raises(Conflict) as caught:
        store.append(KEY, ["refused"] * 2, after=after, revision=revision())
    assert caught.value.head is not None, "a conversation that is only written was absent for a moment"


def forget_some(store: HistoryStore) -> None:
    """Forget all but the three newest records."""
    head = head_of(store, KEY)
    assert head is not None
    store.forget(KEY, before=head.end - 3)


class Incarnations:
    """A conversation that is made, grown and deleted again and again; each time all its lines say which one it is."""

    def __init__(self, store: HistoryStore, key: Key = KEY) -> None:
        self.store = store
        self.key = key
        self._count = 0

    def step(self) -> None:
        """Make the next one, append to it, and delete it."""
        self._count += 1
        name = f"incarnation {self._count}"
        head = self.store.append(self.key, [name] * 3, after=None, revision=revision(payload=name))
        head = self.store.append(self.key, [name] * 3, after=head, revision=revision(payload=name))
        assert self.store.delete(self.key, version=head.revision.version) is True


def see_incarnation(store: HistoryStore, start: int) -> None:
    """Read a conversation of `Incarnations`: it is absent, or whole and of one incarnation."""
    run = store.read(KEY, start=start)
    if run is None:
        return
    check_run(run, start)
    assert run.head.end - run.head.start in {3, 6}, f"half a batch was seen: {run.head}"
    others = {record.body for record in run.records} - {run.head.revision.payload}
    assert not others, f"records of {sorted(others)} were seen under the head of {run.head.revision.payload}"


def see_incarnation_listed(store: HistoryStore) -> None:
    """List: the conversation of `Incarnations` is there once, or not at all."""
    heads = store.heads(KEY.scope).items
    assert [head.key for head in heads] in ([], [KEY])
