"""Guarantee 13, complete walks: `erase` and `doctor` do not depend on an index that can lose entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key, Leftovers
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import check_everything, check_head, read_everything, read_head
from chathistory.testing.contract.samples import FAR, KEY, append_lines, create_conversation, make_lines, make_revision
from chathistory.testing.contract.tricky_names import NAMES

__all__ = ["CompleteWalks"]


def _check_each_once(found: Iterator[Key], expected: set[Key]) -> None:
    seen = Counter(found)
    assert set(seen) == expected, (
        f"missing {sorted(expected - set(seen))[:3]}, unexpected {sorted(set(seen) - expected)[:3]}"
    )
    assert max(seen.values(), default=1) == 1, "a key was yielded twice"


class CompleteWalks(ContractTest, guarantee=13):
    """scan_keys and remove_leftovers walk the storage itself; is_index_complete is honest about the index."""

    def test_scan_keys_finds_the_same_as_keys(self, store: HistoryStore) -> None:
        keys = {Key(scope, f"c{at}") for scope in ("one", "two", "on") for at in range(15)}
        for at, key in enumerate(sorted(keys)):
            head = create_conversation(store, key, 1 + at % 3)
            if at % 4 == 0:
                append_lines(store, head, 2)
        store.forget(Key("one", "c1"), before=99)
        store.delete(Key("one", "c2"))
        store.append(
            Key("one", "c3"),
            make_lines(1),
            after=read_head(store, Key("one", "c3")),
            revision=make_revision(expires=FAR),
        )
        keys -= {Key("one", "c2")}
        for walk in (store.keys, store.scan_keys):
            _check_each_once(walk(), keys)
            for scope in ("one", "two", "on", "unknown", "o"):
                _check_each_once(walk(scope), {key for key in keys if key.scope == scope})

    def test_scan_keys_returns_every_name_unchanged(self, store: HistoryStore) -> None:
        keys = {Key(KEY.scope, name) for name in NAMES} | {Key(name, KEY.id) for name in NAMES}
        for key in sorted(keys):
            create_conversation(store, key)
        _check_each_once(store.scan_keys(), keys)
        for scope in NAMES[::7]:
            _check_each_once(store.scan_keys(scope), {key for key in keys if key.scope == scope})

    def test_scan_keys_finds_250_conversations(self, store: HistoryStore) -> None:
        keys = {Key(KEY.scope, f"c{at}") for at in range(250)}
        for key in keys:
            create_conversation(store, key)
        _check_each_once(store.scan_keys(KEY.scope), keys)

    def test_scan_keys_of_an_empty_store_yields_nothing(self, store: HistoryStore) -> None:
        assert list(store.scan_keys()) == list(store.scan_keys(KEY.scope)) == []

    def test_is_index_complete_returns_a_bool(self, store: HistoryStore) -> None:
        assert store.is_index_complete() in {True, False}

    def test_scan_keys_finds_conversations_missing_from_the_index(self, store: HistoryStore) -> None:
        keys = [Key(scope, f"c{at}") for scope in (KEY.scope, "other") for at in range(5)]
        heads = {key: create_conversation(store, key, 2) for key in keys}
        for key in keys[::3]:
            self.lose_index(store, key)
        with self._second_instance(store) as other:
            named = set(other.keys())
            assert named >= set(keys) or not other.is_index_complete(), (
                "keys() misses a conversation, but is_index_complete() returned True"
            )
            _check_each_once(other.scan_keys(KEY.scope), set(keys[:5]))
            _check_each_once(other.scan_keys(), set(keys))
            for key, head in heads.items():
                check_head(other, key, head)
                assert append_lines(other, head).end == 3  # noqa: PLR2004
            _check_each_once(other.keys(), set(keys))

    def test_remove_leftovers_of_an_empty_scope_reports_complete(self, store: HistoryStore) -> None:
        create_conversation(store, Key("other", "c"))
        before = read_everything(store)
        assert store.remove_leftovers(KEY.scope) == Leftovers(0, (), complete=True)
        check_everything(store, before)

    def test_remove_leftovers_keeps_readable_conversations(self, store: HistoryStore) -> None:
        """remove_leftovers must not report `complete` while the scope has conversations."""
        for key in (KEY, Key(KEY.scope, "forgotten"), Key("other", KEY.id)):
            head = create_conversation(store, key, 3)
            append_lines(store, head, 300)
        store.forget(Key(KEY.scope, "forgotten"), before=999)
        before = read_everything(store)
        report = store.remove_leftovers(KEY.scope)
        assert read_everything(store) == before, "remove_leftovers() removed or changed a readable conversation"
        assert report.complete is False, (
            "remove_leftovers() returned complete=True; the scope still has two conversations"
        )
        assert report.left, "remove_leftovers() returned no places in `left`; it must name what is left"
        for name in report.left:
            assert isinstance(name, str)
            assert name

    def test_remove_leftovers_does_not_disturb_a_writer(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        for _ in range(3):
            store.remove_leftovers(KEY.scope)
            head = append_lines(store, head, 2)
            check_head(store, KEY, head)
