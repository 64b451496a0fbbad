"""Guarantee 10, the rest: an open store works, a closed one says so, and none is carried across a fork."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from chathistory.errors import StoreClosed
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Revision, Traits
from chathistory.testing.contract.base import Contract
from chathistory.testing.contract.calls import CALLS, error_of
from chathistory.testing.contract.forked_child import in_child
from chathistory.testing.contract.queries import bodies_of, head_of
from chathistory.testing.contract.samples import KEY, created, grown, lines

__all__ = ["Lifecycle"]


class Lifecycle(Contract, guarantee=10):
    """Open, closed, forked."""

    def test_the_traits_can_be_read(self, store: HistoryStore) -> None:
        traits = store.traits
        assert isinstance(traits, Traits)
        created(store)
        assert store.traits == traits, "the traits of an open store changed"
        assert traits.recency in {"exact", "bucket"}
        assert all(limit is None or limit > 0 for limit in (traits.largest_record, traits.largest_batch))

    def test_check_of_an_open_store_returns(self, store: HistoryStore) -> None:
        store.check()
        assert list(store.keys()) == [], "check() left something behind"

    def test_closing_twice_does_nothing(self, store: HistoryStore) -> None:
        created(store)
        store.close()
        store.close()

    def test_closing_an_unused_store(self, store: HistoryStore) -> None:
        store.close()
        store.close()

    @pytest.mark.parametrize("name", CALLS)
    def test_a_closed_store_refuses(self, store: HistoryStore, name: str) -> None:
        created(store)
        store.close()
        error = error_of(partial(CALLS[name], store))
        assert isinstance(error, StoreClosed), f"{name} of a closed store: {error!r}"

    def test_a_with_block_closes(self, store: HistoryStore) -> None:
        with store as same:
            assert same is store
            created(store)
        with pytest.raises(StoreClosed):
            store.read(KEY)

    if sys.platform != "win32":  # there is no fork to protect from

        def test_a_forked_child_is_refused_and_the_parent_goes_on(self, store: HistoryStore) -> None:
            head = created(store)
            seen = in_child(partial(_tried, store))
            assert seen == dict.fromkeys([*CALLS, "close", "close again"], "StoreClosed") | {
                "close": "None",
                "close again": "None",
            }
            assert head_of(store, KEY) == head, "the child changed what its parent stores"
            head = grown(store, head, 2)
            assert bodies_of(store, KEY) == lines(head.end)

        def test_a_store_that_was_not_used_survives_a_fork(self, store: HistoryStore) -> None:
            unused = self.reopen(store) if store.traits.shared or store.traits.durable else store
            with unused:
                assert in_child(partial(_begun, unused)) == {"append": "None", "read": "None"}
                head = created(unused)
                assert head_of(unused, KEY) == head, "the child used up what its parent had"


_OF_THE_CHILD = replace(KEY, id="of the child")


def _begun(store: HistoryStore) -> dict[str, str]:  # pragma: no cover  # runs in the forked child
    append = partial(store.append, _OF_THE_CHILD, ["line"], after=None, revision=Revision("v", 1))
    calls: dict[str, Callable[[], object]] = {"append": append, "read": partial(store.read, _OF_THE_CHILD)}
    return {name: _name(error_of(call)) for name, call in calls.items()}


def _tried(store: HistoryStore) -> dict[str, str]:  # pragma: no cover  # runs in the forked child
    outcomes = {name: _name(error_of(partial(call, store))) for name, call in CALLS.items()}
    for name in ("close", "close again"):
        outcomes[name] = _name(error_of(store.close))
    return outcomes


def _name(error: BaseException | None) -> str:
    return "None" if error is None else type(error).__name__
