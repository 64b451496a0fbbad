"""The listing: every conversation of a scope once, by the time of its last append, page by page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from chathistory.errors import InvalidInput
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key
from chathistory.testing.contract.base_test_class import ContractTest, skip_unless
from chathistory.testing.contract.checked_reads import check_heads, list_heads, read_head, read_pages
from chathistory.testing.contract.samples import (
    CLOCK_CHANGES,
    EPOCH,
    KEY,
    append_lines,
    create_conversation,
    make_lines,
    make_revision,
)
from chathistory.testing.guarantees import LISTING

__all__ = ["Listing"]

SCOPE = KEY.scope
_MANY = 250
_URL_SAFE = re.compile(r"[A-Za-z0-9._~=-]+")


def _create_many(store: HistoryStore, count: int) -> list[Head]:
    """Create conversations; return their heads, the latest first."""
    return [create_conversation(store, Key(SCOPE, f"c{at:03d}")) for at in range(count)][::-1]


def _create_at(store: HistoryStore, name: str, updated: int) -> Head:
    return store.append(Key(SCOPE, name), make_lines(1), after=None, revision=make_revision(updated=updated))


def _append_without_moving(store: HistoryStore, head: Head) -> Head:
    """Append a line with the same `updated`."""
    return store.append(
        head.key, make_lines(1, first=head.end), after=head, revision=make_revision(updated=head.revision.updated)
    )


class Listing(ContractTest, guarantee=LISTING):
    """Pages of heads by (updated, id) descending, and all keys."""

    def test_heads_of_an_unknown_scope_is_an_empty_page(self, store: HistoryStore) -> None:
        create_conversation(store)
        page = store.heads("unknown")
        assert list(page.items) == []
        assert page.next is None
        assert list(store.keys("unknown")) == []

    def test_heads_lists_the_current_head(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=3)
        check_heads(store, list_heads(store, SCOPE), [head])
        head = append_lines(store, head, 2)
        check_heads(store, list_heads(store, SCOPE), [head])
        store.forget(KEY, before=2)
        check_heads(store, list_heads(store, SCOPE), [replace(head, start=2)])
        store.forget(KEY, before=5)
        assert list_heads(store, SCOPE) == [replace(head, start=5)], (
            "heads() does not list a conversation without records correctly; it must stay listed"
        )
        store.delete(KEY)
        check_heads(store, list_heads(store, SCOPE), [])
        head = create_conversation(store)
        check_heads(store, list_heads(store, SCOPE), [head])

    def test_heads_lists_the_latest_write_first(self, store: HistoryStore) -> None:
        heads = _create_many(store, 5)
        check_heads(store, list_heads(store, SCOPE), heads)
        moved = append_lines(store, heads[3])
        expected = [moved, *heads[:3], *heads[4:]]
        check_heads(store, list_heads(store, SCOPE), expected)

    def test_forget_does_not_change_the_order(self, store: HistoryStore) -> None:
        heads = _create_many(store, 3)
        store.forget(heads[2].key, before=1)
        expected = [*heads[:2], replace(heads[2], start=1)]
        check_heads(store, list_heads(store, SCOPE), expected)

    def test_an_append_with_the_same_updated_does_not_change_the_order(self, store: HistoryStore) -> None:
        """A title, a cut or a repair is no new message, so the core keeps `updated`."""
        heads = _create_many(store, 5)
        for at in (4, 0, 2, 4):
            heads[at] = _append_without_moving(store, heads[at])
            check_heads(store, list_heads(store, SCOPE), heads)
            check_heads(store, list_heads(store, SCOPE, limit=2), heads)
        heads = [append_lines(store, heads.pop(3)), *heads]
        check_heads(store, list_heads(store, SCOPE), heads)

    @pytest.mark.parametrize("limit", [1, 2, 100])
    def test_heads_orders_appends_at_one_time_by_id(self, store: HistoryStore, limit: int) -> None:
        heads = {name: _create_at(store, name, EPOCH) for name in "badc"}
        for name in "acbda":
            heads[name] = _append_without_moving(store, heads[name])
            expected = [heads[each] for each in "dcba"]
            check_heads(store, list_heads(store, SCOPE, limit=limit), expected)

    def test_heads_orders_times_around_daylight_saving(self, store: HistoryStore) -> None:
        heads = [_create_at(store, f"c{at}", time) for at, time in enumerate(CLOCK_CHANGES)]
        expected = sorted(heads, key=lambda head: head.revision.updated, reverse=True)
        check_heads(store, list_heads(store, SCOPE), expected)

    def test_heads_orders_times_as_numbers_of_microseconds(self, store: HistoryStore) -> None:
        times = (9, 10, 100, 99, EPOCH, EPOCH + 1, EPOCH + 10, EPOCH + 9, EPOCH - 1)
        heads = [_create_at(store, f"c{at}", time) for at, time in enumerate(times)]
        expected = sorted(heads, key=lambda head: head.revision.updated, reverse=True)
        check_heads(store, list_heads(store, SCOPE), expected)
        check_heads(store, list_heads(store, SCOPE, limit=2), expected)

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    def test_heads_orders_equal_times_by_id(self, store: HistoryStore, limit: int) -> None:
        names = ["10", "9", "B", "Z", "_", "a", "aa", "b", "\u00e9", "\ufb01", "\uffee", "\U0001f600"]
        heads = {name: _create_at(store, name, EPOCH) for name in names[::2] + names[1::2]}
        expected = [heads[name] for name in sorted(names, reverse=True)]
        check_heads(store, list_heads(store, SCOPE, limit=limit), expected)

    @pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 7, 12, 13, 1000])
    def test_pages_list_each_conversation_once_and_end(self, store: HistoryStore, limit: int) -> None:
        heads = _create_many(store, 12)
        walked = list(read_pages(store, SCOPE, limit))
        check_heads(store, [head for page in walked for head in page.items], heads)
        assert all(page.items for page in walked), (
            "heads() returned an empty page; the page before it must have no `next`"
        )

    def test_a_page_has_at_most_20_heads_by_default(self, store: HistoryStore) -> None:
        heads = _create_many(store, 21)
        page = store.heads(SCOPE)
        assert 1 <= len(page.items) <= 20  # noqa: PLR2004
        assert page.next is not None, "21 conversations do not fit a page of 20, so `next` must be set"
        if store.traits.recency == "exact":
            assert list(page.items) == heads[:20]

    def test_a_page_is_full_if_there_is_more(self, store: HistoryStore) -> None:
        skip_unless(store.traits.recency == "exact", "pages by time bucket may be shorter")
        _create_many(store, 7)
        assert [len(page.items) for page in read_pages(store, SCOPE, 3)] == [3, 3, 1]

    def test_a_cursor_is_text_that_is_safe_in_a_url(self, store: HistoryStore) -> None:
        for name in ("a", "b?&=/#", "ü \u2028", "😀" * 255):
            create_conversation(store, Key(SCOPE, name))
        for page in read_pages(store, SCOPE, 1):
            assert page.next is None or _URL_SAFE.fullmatch(page.next), (
                f"the cursor {page.next!r} has characters that are not safe in a URL"
            )

    def test_a_cursor_may_be_used_twice(self, store: HistoryStore) -> None:
        _create_many(store, 5)
        cursor = store.heads(SCOPE, limit=2).next
        assert cursor is not None
        once, twice = (store.heads(SCOPE, after=cursor, limit=1).items for _ in range(2))
        assert list(once) == list(twice)

    def test_heads_and_keys_list_250_conversations(self, store: HistoryStore) -> None:
        heads = _create_many(store, _MANY)
        for limit in (100, 1000):
            check_heads(store, list_heads(store, SCOPE, limit=limit), heads)
        assert sorted(store.keys(SCOPE)) == sorted(head.key for head in heads)

    @pytest.mark.parametrize("cursor", ["", "x", "not a cursor", "é\u2028", "bnVsbA", "WzEsIDJd", "W10", "e30", "\0"])
    def test_a_foreign_cursor_is_refused(self, store: HistoryStore, cursor: str) -> None:
        _create_many(store, 2)
        with pytest.raises(InvalidInput):
            store.heads(SCOPE, after=cursor)

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused(self, store: HistoryStore, limit: int) -> None:
        create_conversation(store)
        with pytest.raises(InvalidInput):
            store.heads(SCOPE, limit=limit)

    def test_keys_yields_each_conversation_once(self, store: HistoryStore) -> None:
        keys = sorted(Key(scope, f"c{at}") for scope in ("one", "two") for at in range(15))
        heads = [create_conversation(store, key, 3) for key in keys]
        for head in heads[::2]:
            append_lines(store, head)
        assert sorted(store.keys()) == keys
        assert sorted(store.keys("one")) == keys[:15]
        store.forget(keys[0], before=9)
        store.delete(keys[1])
        assert sorted(store.keys()) == [keys[0], *keys[2:]]

    def test_keys_of_an_empty_store_yields_nothing(self, store: HistoryStore) -> None:
        assert list(store.keys()) == []
        assert list(store.keys("one")) == []


def _write_unseen(store: HistoryStore, heads: list[Head]) -> set[Key]:
    append_lines(store, heads[-1])
    return {heads[-1].key}


def _write_seen(store: HistoryStore, heads: list[Head]) -> set[Key]:
    append_lines(store, heads[0])
    return {heads[0].key}


def _write_last_of_the_page(store: HistoryStore, heads: list[Head]) -> set[Key]:
    append_lines(store, heads[2])
    return {heads[2].key}


def _delete_seen(store: HistoryStore, heads: list[Head]) -> set[Key]:
    store.delete(heads[0].key)
    return {heads[0].key}


def _delete_last_of_the_page(store: HistoryStore, heads: list[Head]) -> set[Key]:
    store.delete(heads[2].key)
    return {heads[2].key}


def _delete_unseen(store: HistoryStore, heads: list[Head]) -> set[Key]:
    store.delete(heads[3].key)
    return {heads[3].key}


def _make_new(store: HistoryStore, heads: list[Head]) -> set[Key]:
    return {create_conversation(store, Key(SCOPE, f"new{at}")).key for at in range(2)} - {head.key for head in heads}


def _write_unseen_at_its_time(store: HistoryStore, heads: list[Head]) -> set[Key]:
    return {_append_without_moving(store, heads[-1]).key}


def _write_last_of_the_page_at_its_time(store: HistoryStore, heads: list[Head]) -> set[Key]:
    return {_append_without_moving(store, heads[2]).key}


_MEANWHILE = [_write_unseen, _write_seen, _write_last_of_the_page, _delete_seen, _delete_last_of_the_page]
_MEANWHILE += [_delete_unseen, _make_new, _write_unseen_at_its_time, _write_last_of_the_page_at_its_time]


class ListingWhileOthersWrite(ContractTest, guarantee=LISTING):
    """Conversations that are not written between two pages are listed exactly once."""

    @pytest.mark.parametrize("meanwhile", _MEANWHILE)
    def test_pages_list_unwritten_conversations_once_during_writes(
        self, store: HistoryStore, meanwhile: Callable[[HistoryStore, list[Head]], set[Key]]
    ) -> None:
        _create_many(store, 12)
        expected = list_heads(store, SCOPE)  # in the order of this store: a page of three ends with the third
        walked: list[Key] = []
        written: set[Key] = set()
        for page in read_pages(store, SCOPE, 3):
            walked += [head.key for head in page.items]
            if not written:
                written = meanwhile(store, expected)
        seen = Counter(key for key in walked if key not in written)
        for key in {head.key for head in expected} - written:
            assert seen[key] == 1, (
                f"{key} was not written meanwhile, but heads() listed it {seen[key]} times; expected once"
            )

    @pytest.mark.parametrize("walk", ["keys", "scan_keys"])
    def test_keys_yields_unchanged_conversations_once_during_writes(self, store: HistoryStore, walk: str) -> None:
        heads = _create_many(store, 40)
        walked: list[Key] = []
        others: set[Key] = set()
        for key in getattr(store, walk)(SCOPE):
            walked.append(key)
            if len(walked) in {1, 2, 9, 20}:
                others |= self._change_while_walking(
                    store, [head.key for head in heads if head.key not in others], walked
                )
        seen = Counter(key for key in walked if key not in others)
        for key in {head.key for head in heads} - others:
            assert seen[key] == 1, (
                f"{key} was neither created nor deleted meanwhile, but {walk}() yielded it {seen[key]} times; "
                "expected once"
            )

    def _change_while_walking(self, store: HistoryStore, keys: list[Key], walked: list[Key]) -> set[Key]:
        """Delete a yielded and an unyielded key, create one, append to the last; return the deleted and new keys."""
        *others, last = keys
        named = [key for key in others if key in walked]
        unnamed = [key for key in others if key not in walked]
        gone = {*named[:1], *unnamed[:1]}
        for key in gone:
            store.delete(key)
        head = read_head(store, last)
        assert head is not None
        append_lines(store, head)
        return {*gone, create_conversation(store, Key(SCOPE, f"new{len(walked)}")).key}
