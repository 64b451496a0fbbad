"""Guarantee 9 below the interface: forgotten, deleted or erased text is nowhere in the storage.

The hook `remains` searches the storage. Each test first checks that it finds the text while that is stored: a hook that
never finds anything proves nothing.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from functools import partial

import pytest

from chathistory.errors import Conflict
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import read_bodies, read_everything, read_records
from chathistory.testing.contract.run_threads import run_together
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_revision

__all__ = ["RemovedText"]

_SIZES = {"short": 0, "long": 20_000, "very long": 400_000}
_BATCHES = {"one by one": [1] * 8, "pairs": [2] * 4, "one batch": [8], "mixed": [3, 1, 4]}


def _unique_word() -> str:
    """Return a word that was never stored before."""
    return f"word{uuid.uuid4().hex}"


def _size_within_limits(store: HistoryStore, size: int) -> int:
    limits = [limit for limit in (store.traits.largest_record, store.traits.largest_batch) if limit is not None]
    return min([size, *(limit // 16 for limit in limits)])


def _bodies_with(word: str, count: int, size: int) -> list[str]:
    return [f'{{"text": "{word} {at} {"x" * size}"}}' for at in range(count)]


class RemovedText(ContractTest, guarantee=9):
    """On return, no part of the removed text can be read in the storage."""

    def _check_found(self, *words: str) -> None:
        for word in words:
            assert self.remains(word), (
                "remains() does not find text that is stored, so it proves nothing; correct the hook"
            )

    def _check_gone(self, *words: str) -> None:
        for word in words:
            places = self.remains(word)
            assert not places, f"removed text is still stored in {list(places)[:3]}"

    def _store_batches(self, store: HistoryStore, key: Key, word: str, sizes: list[int], size: int) -> Head:
        """Store one word per batch: `word` and the number of the batch; return the head."""
        head = None
        for at, count in enumerate(sizes):
            given = make_revision(payload=f"info of {word}batch{at}end")
            head = store.append(
                key,
                _bodies_with(f"{word}batch{at}end", count, _size_within_limits(store, size)),
                after=head,
                revision=given,
            )
        assert head is not None
        return head

    @pytest.mark.parametrize("size", _SIZES.values(), ids=_SIZES)
    @pytest.mark.parametrize("sizes", _BATCHES.values(), ids=_BATCHES)
    def test_no_text_remains_after_delete(self, store: HistoryStore, sizes: list[int], size: int) -> None:
        word = _unique_word()
        head = self._store_batches(store, KEY, word, sizes, size)
        self._check_found(word)
        assert store.delete(KEY, version=head.revision.version) is True, (
            "delete() must return True: the conversation existed"
        )
        self._check_gone(word)

    @pytest.mark.parametrize("size", _SIZES.values(), ids=_SIZES)
    @pytest.mark.parametrize("before", [1, 3, 8])
    def test_no_text_remains_after_forget(self, store: HistoryStore, before: int, size: int) -> None:
        word = _unique_word()
        head = None
        for at in range(8):
            head = store.append(
                KEY,
                _bodies_with(f"{word}line{at}end", 1, _size_within_limits(store, size)),
                after=head,
                revision=make_revision(),
            )
        self._check_found(*(f"{word}line{at}end" for at in range(8)))
        store.forget(KEY, before=before)
        self._check_gone(*(f"{word}line{at}end" for at in range(before)))
        assert len(read_bodies(store, KEY)) == 8 - before
        self._check_found(*(f"{word}line{at}end" for at in range(before, 8)))

    def test_no_text_remains_of_a_partly_forgotten_batch(self, store: HistoryStore) -> None:
        word = _unique_word()
        store.append(KEY, [f"{word}line{at}end" for at in range(300)], after=None, revision=make_revision())
        for before in (1, 2, 150, 299, 300):
            store.forget(KEY, before=before)
            self._check_gone(f"{word}line0end", f"{word}line{before - 1}end", f"{word}line{before // 2}end")
            if before < 300:  # noqa: PLR2004
                self._check_found(f"{word}line{before}end", f"{word}line299end")

    def test_no_text_remains_after_forget_and_delete(self, store: HistoryStore) -> None:
        word = _unique_word()
        head = self._store_batches(store, KEY, word, [2, 2, 2], 0)
        self._check_found(word)
        store.forget(KEY, before=3)
        append_lines(store, head, 2)
        store.forget(KEY, before=7)
        self._check_gone(f"{word}batch0end 0", f"{word}batch2end 1")
        store.delete(KEY)
        self._check_gone(word)

    def test_no_text_remains_of_an_earlier_conversation_of_the_same_name(self, store: HistoryStore) -> None:
        words = [_unique_word() for _ in range(3)]
        for word in words:
            store.delete(KEY)
            self._store_batches(store, KEY, word, [3, 1], 100)
        self._check_gone(*words[:-1])
        self._check_found(words[-1])
        store.delete(KEY)
        self._check_gone(*words)

    def test_no_text_remains_after_a_delete_by_a_second_instance(self, store: HistoryStore) -> None:
        word = _unique_word()
        self._store_batches(store, KEY, word, [2, 1], 0)
        self._check_found(word)
        with self._second_instance(store) as other:
            assert len(read_records(other, KEY)) == 3  # noqa: PLR2004
            assert other.delete(KEY) is True, "delete() must return True: the conversation existed"
        self._check_gone(word)

    def test_no_text_remains_of_refused_appends_after_an_erasure(self, store: HistoryStore) -> None:
        word, bystander = _unique_word(), Key("bystander", "c")
        create_conversation(store, bystander, 3)
        kept = read_everything(store)
        for at, size in enumerate(_SIZES.values()):
            key = Key(KEY.scope, f"sound {at}")
            head = self._store_batches(store, key, word, [2, 3], size)
            for after in (None, head, Head(key, 0, 2, make_revision())):
                self._race_refused_appends(store, key, after, _bodies_with(word, 3, _size_within_limits(store, size)))
        self._store_batches(store, Key(KEY.scope, "forgotten"), word, [4], 0)
        store.forget(Key(KEY.scope, "forgotten"), before=9)
        self._store_batches(store, Key(KEY.scope, "deleted"), word, [4], 0)
        store.delete(Key(KEY.scope, "deleted"))
        self._check_found(word)
        with self._second_instance(store) as other:
            self._erase_scope(other, KEY.scope)
            self._check_gone(word)
            assert read_everything(other) == kept, "the erasure of one scope changed another scope"

    def test_no_text_remains_of_a_damaged_head_after_an_erasure(self, store: HistoryStore) -> None:
        word = _unique_word()
        for at in range(3):
            self._store_batches(store, Key(KEY.scope, f"c{at}"), word, [1, 300], 0)
        self.damage_head(store, Key(KEY.scope, "c1"))
        self._check_found(word)
        with self._second_instance(store) as other:
            self._erase_scope(other, KEY.scope)
        self._check_gone(word)

    def test_no_text_remains_of_damaged_records_after_an_erasure(self, store: HistoryStore) -> None:
        word = _unique_word()
        keys = [Key(KEY.scope, f"c{at}") for at in range(4)]
        for at, key in enumerate(keys):
            self._store_batches(store, key, word, [1, 2, 30], 0)
            self.damage_record(store, key, at)
        self._check_found(word)
        with self._second_instance(store) as other:
            store.forget(keys[0], before=20)
            self._erase_scope(other, KEY.scope)
        self._check_gone(word)

    def test_no_text_remains_outside_the_index_after_an_erasure(self, store: HistoryStore) -> None:
        word = _unique_word()
        for at in range(4):
            key = Key(KEY.scope, f"c{at}")
            self._store_batches(store, key, word, [2], 0)
            if at in {1, 2}:
                self.lose_index(store, key)
        self._check_found(word)
        with self._second_instance(store) as other:
            self._erase_scope(other, KEY.scope)
        self._check_gone(word)

    def _race_refused_appends(self, store: HistoryStore, key: Key, after: Head | None, bodies: list[str]) -> None:
        """Append four times after one head; at least three are refused."""
        appends = [partial(store.append, key, bodies, after=after, revision=make_revision()) for _ in range(4)]
        outcomes = run_together(*appends, expect=(Conflict,))
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) >= 3  # noqa: PLR2004

    def _erase_scope(self, store: HistoryStore, scope: str) -> None:
        """Erase a scope as `History.erase` does: delete what `scan_keys` yields, then call `remove_leftovers`."""
        for key in list(store.scan_keys(scope)):
            with suppress(Conflict):
                store.delete(key)
        left = store.remove_leftovers(scope)
        assert (tuple(left.left), left.complete) == ((), True), (
            f"remove_leftovers() reports what is left: {left.left[:3]}; expected nothing, and complete=True"
        )
        assert list(store.keys(scope)) == list(store.scan_keys(scope)) == []
        assert list(store.damaged_keys(scope)) == []
