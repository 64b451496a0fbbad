"""Guarantee 10: an open store works, a closed one raises StoreClosed, and so does one that was used before a fork."""

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
from chathistory.testing.contract.checked_reads import check_bodies, read_head
from chathistory.testing.contract.every_method import CALLS, catch_error
from chathistory.testing.contract.forked_child import run_in_child
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines

__all__ = ["OpenCloseFork"]


class OpenCloseFork(ContractTest, guarantee=10):
    """What a store must do when it is open, closed, or carried across a fork."""

    def test_traits_are_valid_and_do_not_change(self, store: HistoryStore) -> None:
        traits = store.traits
        assert isinstance(traits, Traits)
        create_conversation(store)
        assert store.traits == traits, "`traits` changed while the store was open"
        assert traits.recency in {"exact", "bucket"}
        assert all(limit is None or limit > 0 for limit in (traits.largest_record, traits.largest_batch))

    def test_check_of_an_open_store_returns_and_leaves_nothing(self, store: HistoryStore) -> None:
        store.check()
        assert list(store.keys()) == [], "check() stored something and did not remove it"

    def test_closing_twice_does_nothing(self, store: HistoryStore) -> None:
        create_conversation(store)
        store.close()
        store.close()

    def test_an_unused_store_can_be_closed(self, store: HistoryStore) -> None:
        store.close()
        store.close()

    @pytest.mark.parametrize("name", CALLS)
    def test_every_method_of_a_closed_store_raises_store_closed(self, store: HistoryStore, name: str) -> None:
        create_conversation(store)
        store.close()
        error = catch_error(partial(CALLS[name], store))
        assert isinstance(error, StoreClosed), f"{name} of a closed store gave {error!r}; expected StoreClosed"

    def test_a_with_block_closes_the_store(self, store: HistoryStore) -> None:
        with store as same:
            assert same is store
            create_conversation(store)
        with pytest.raises(StoreClosed):
            store.read(KEY)

    if sys.platform != "win32":  # Windows has no fork

        def test_a_used_store_raises_store_closed_in_a_forked_child(self, store: HistoryStore) -> None:
            head = create_conversation(store)
            seen = run_in_child(partial(_try_every_call, store))
            assert seen == dict.fromkeys([*CALLS, "close", "close again"], "StoreClosed") | {
                "close": "None",
                "close again": "None",
            }
            assert read_head(store, KEY) == head, "a forked child changed the data of its parent"
            head = append_lines(store, head, 2)
            check_bodies(store, KEY, make_lines(head.end))

        def test_an_unused_store_works_in_a_forked_child(self, store: HistoryStore) -> None:
            unused = self.reopen(store) if store.traits.shared or store.traits.durable else store
            with unused:
                assert run_in_child(partial(_use_in_child, unused)) == {"append": "None", "read": "None"}
                head = create_conversation(unused)
                assert read_head(unused, KEY) == head, "a forked child used the connection of its parent"


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
