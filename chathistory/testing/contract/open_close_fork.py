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
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import read_bodies, read_head
from chathistory.testing.contract.every_method import CALLS, catch_error
from chathistory.testing.contract.forked_child import run_in_child
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines

__all__ = ["OpenCloseFork"]


class OpenCloseFork(ContractTest, guarantee=10):
    """Open, closed, forked."""

    def test_the_traits_can_be_read(self, store: HistoryStore) -> None:
        traits = store.traits
        assert isinstance(traits, Traits)
        create_conversation(store)
        assert store.traits == traits, "the traits of an open store changed"
        assert traits.recency in {"exact", "bucket"}
        assert all(limit is None or limit > 0 for limit in (traits.largest_record, traits.largest_batch))

    def test_check_of_an_open_store_returns(self, store: HistoryStore) -> None:
        store.check()
        assert list(store.keys()) == [], "check() left something behind"

    def test_closing_twice_does_nothing(self, store: HistoryStore) -> None:
        create_conversation(store)
        store.close()
        store.close()

    def test_closing_an_unused_store(self, store: HistoryStore) -> None:
        store.close()
        store.close()

    @pytest.mark.parametrize("name", CALLS)
    def test_a_closed_store_refuses(self, store: HistoryStore, name: str) -> None:
        create_conversation(store)
        store.close()
        error = catch_error(partial(CALLS[name], store))
        assert isinstance(error, StoreClosed), f"{name} of a closed store: {error!r}"

    def test_a_with_block_closes(self, store: HistoryStore) -> None:
        with store as same:
            assert same is store
            create_conversation(store)
        with pytest.raises(StoreClosed):
            store.read(KEY)

    if sys.platform != "win32":  # there is no fork to protect from

        def test_a_forked_child_is_refused_and_the_parent_goes_on(self, store: HistoryStore) -> None:
            head = create_conversation(store)
            seen = run_in_child(partial(_try_every_call, store))
            assert seen == dict.fromkeys([*CALLS, "close", "close again"], "StoreClosed") | {
                "close": "None",
                "close again": "None",
            }
            assert read_head(store, KEY) == head, "the child changed what its parent stores"
            head = append_lines(store, head, 2)
            assert read_bodies(store, KEY) == make_lines(head.end)

        def test_a_store_that_was_not_used_survives_a_fork(self, store: HistoryStore) -> None:
            unused = self.reopen(store) if store.traits.shared or store.traits.durable else store
            with unused:
                assert run_in_child(partial(_use_in_child, unused)) == {"append": "None", "read": "None"}
                head = create_conversation(unused)
                assert read_head(unused, KEY) == head, "the child used up what its parent had"


_OF_THE_CHILD = replace(KEY, id="of the child")


def _use_in_child(store: HistoryStore) -> dict[str, str]:  # pragma: no cover  # runs in the forked child
    append = partial(store.append, _OF_THE_CHILD, ["line"], after=None, revision=Revision("v", 1))
    calls: dict[str, Callable[[], object]] = {"append": append, "read": partial(store.read, _OF_THE_CHILD)}
    return {name: _error_name(catch_error(call)) for name, call in calls.items()}


def _try_every_call(store: HistoryStore) -> dict[str, str]:  # pragma: no cover  # runs in the forked child
    outcomes = {name: _error_name(catch_error(partial(call, store))) for name, call in CALLS.items()}
    for name in ("close", "close again"):
        outcomes[name] = _error_name(catch_error(store.close))
    return outcomes


def _error_name(error: BaseException | None) -> str:
    return "None" if error is None else type(error).__name__
