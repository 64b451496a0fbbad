"""Guarantee 9 below the interface: what is forgotten, deleted or erased can be found nowhere in the storage.

The hook `remains` reads the storage. Each test looks first whether it finds the text while that is there: a hook that
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
from chathistory.testing.contract.base import Contract
from chathistory.testing.contract.queries import bodies_of, contents, records_of
from chathistory.testing.contract.samples import KEY, created, grown, revision
from chathistory.testing.contract.threads import together

__all__ = ["Remains"]

_SIZES = {"short": 0, "long": 20_000, "very long": 400_000}
_BATCHES = {"one by one": [1] * 8, "pairs": [2] * 4, "one batch": [8], "mixed": [3, 1, 4]}


def _word() -> str:
    """Return a word that nobody has stored before."""
    return f"word{uuid.uuid4().hex}"


def _size(store: HistoryStore, size: int) -> int:
    limits = [limit for limit in (store.traits.largest_record, store.traits.largest_batch) if limit is not None]
    return min([size, *(limit // 16 for limit in limits)])


def _said(word: str, count: int, size: int) -> list[str]:
    return [f'{{"text": "{word} {at} {"x" * size}"}}' for at in range(count)]


class Remains(Contract, guarantee=9):
    """On return nothing of the text can be read, by whatever way."""

    def _found(self, *words: str) -> None:
        for word in words:
            assert self.remains(word), "remains() does not find text that is stored; what it says proves nothing"

    def _gone(self, *words: str) -> None:
        for word in words:
            places = self.remains(word)
            assert not places, f"text that was removed can still be read, in {list(places)[:3]}"

    def _stored(self, store: HistoryStore, key: Key, word: str, sizes: list[int], size: int) -> Head:
        """Store one word per batch: `word` and the number of the batch."""
        head = None
        for at, count in enumerate(sizes):
            given = revision(payload=f"info of {word}batch{at}end")
            head = store.append(
                key, _said(f"{word}batch{at}end", count, _size(store, size)), after=head, revision=given
            )
        assert head is not None
        return head

    @pytest.mark.parametrize("size", _SIZES.values(), ids=_SIZES)
    @pytest.mark.parametrize("sizes", _BATCHES.values(), ids=_BATCHES)
    def test_nothing_that_was_deleted_remains(self, store: HistoryStore, sizes: list[int], size: int) -> None:
        word = _word()
        head = self._stored(store, KEY, word, sizes, size)
        self._found(word)
        assert store.delete(KEY, version=head.revision.version) is True
        self._gone(word)

    @pytest.mark.parametrize("size", _SIZES.values(), ids=_SIZES)
    @pytest.mark.parametrize("before", [1, 3, 8])
    def test_nothing_that_was_forgotten_remains(self, store: HistoryStore, before: int, size: int) -> None:
        word = _word()
        head = None
        for at in range(8):
            head = store.append(
                KEY, _said(f"{word}line{at}end", 1, _size(store, size)), after=head, revision=revision()
            )
        self._found(*(f"{word}line{at}end" for at in range(8)))
        store.forget(KEY, before=before)
        self._gone(*(f"{word}line{at}end" for at in range(before)))
        assert len(bodies_of(store, KEY)) == 8 - before
        self._found(*(f"{word}line{at}end" for at in range(before, 8)))

    def test_nothing_of_a_batch_that_was_forgotten_in_part_remains(self, store: HistoryStore) -> None:
        word = _word()
        store.append(KEY, [f"{word}line{at}end" for at in range(300)], after=None, revision=revision())
        for before in (1, 2, 150, 299, 300):
            store.forget(KEY, before=before)
            self._gone(f"{word}line0end", f"{word}line{before - 1}end", f"{word}line{before // 2}end")
            if before < 300:  # noqa: PLR2004
                self._found(f"{word}line{before}end", f"{word}line299end")

    def test_nothing_remains_of_a_conversation_that_was_forgotten_and_deleted(self, store: HistoryStore) -> None:
        word = _word()
        head = self._stored(store, KEY, word, [2, 2, 2], 0)
        self._found(word)
        store.forget(KEY, before=3)
        grown(store, head, 2)
        store.forget(KEY, before=7)
        self._gone(f"{word}batch0end 0", f"{word}batch2end 1")
        store.delete(KEY)
        self._gone(word)

    def test_nothing_remains_of_the_conversation_before_one_of_the_same_name(self, store: HistoryStore) -> None:
        words = [_word() for _ in range(3)]
        for word in words:
            store.delete(KEY)
            self._stored(store, KEY, word, [3, 1], 100)
        self._gone(*words[:-1])
        self._found(words[-1])
        store.delete(KEY)
        self._gone(*words)

    def test_nothing_remains_after_closing_and_opening_again(self, store: HistoryStore) -> None:
        word = _word()
        self._stored(store, KEY, word, [2, 1], 0)
        self._found(word)
        with self._fresh(store) as other:
            assert len(records_of(other, KEY)) == 3  # noqa: PLR2004
            assert other.delete(KEY) is True
        self._gone(word)

    def test_nothing_remains_of_refused_appends_and_damaged_ones_after_an_erasure(self, store: HistoryStore) -> None:
        word, bystander = _word(), Key("bystander", "c")
        created(store, bystander, 3)
        kept = contents(store)
        for at, size in enumerate(_SIZES.values()):
            key = Key(KEY.scope, f"sound {at}")
            head = self._stored(store, key, word, [2, 3], size)
            for after in (None, head, Head(key, 0, 2, revision())):
                self._raced(store, key, after, _said(word, 3, _size(store, size)))
        self._stored(store, Key(KEY.scope, "forgotten"), word, [4], 0)
        store.forget(Key(KEY.scope, "forgotten"), before=9)
        self._stored(store, Key(KEY.scope, "deleted"), word, [4], 0)
        store.delete(Key(KEY.scope, "deleted"))
        self._found(word)
        with self._fresh(store) as other:
            self._erased(other, KEY.scope)
            self._gone(word)
            assert contents(other) == kept, "the erasure of one scope reached another one"

    def test_nothing_remains_of_a_damaged_head_after_an_erasure(self, store: HistoryStore) -> None:
        word = _word()
        for at in range(3):
            self._stored(store, Key(KEY.scope, f"c{at}"), word, [1, 300], 0)
        self.damage_head(store, Key(KEY.scope, "c1"))
        self._found(word)
        with self._fresh(store) as other:
            self._erased(other, KEY.scope)
        self._gone(word)

    def test_nothing_remains_of_damaged_records_after_an_erasure(self, store: HistoryStore) -> None:
        word = _word()
        keys = [Key(KEY.scope, f"c{at}") for at in range(4)]
        for at, key in enumerate(keys):
            self._stored(store, key, word, [1, 2, 30], 0)
            self.damage_record(store, key, at)
        self._found(word)
        with self._fresh(store) as other:
            store.forget(keys[0], before=20)
            self._erased(other, KEY.scope)
        self._gone(word)

    def test_nothing_remains_of_what_the_index_has_lost_after_an_erasure(self, store: HistoryStore) -> None:
        word = _word()
        for at in range(4):
            key = Key(KEY.scope, f"c{at}")
            self._stored(store, key, word, [2], 0)
            if at in {1, 2}:
                self.lose_index(store, key)
        self._found(word)
        with self._fresh(store) as other:
            self._erased(other, KEY.scope)
        self._gone(word)

    def _raced(self, store: HistoryStore, key: Key, after: Head | None, bodies: list[str]) -> None:
        """Append four times after one head: three at least are refused."""
        appends = [partial(store.append, key, bodies, after=after, revision=revision()) for _ in range(4)]
        outcomes = together(*appends, expect=(Conflict,))
        assert sum(isinstance(outcome, Conflict) for outcome in outcomes) >= 3  # noqa: PLR2004

    def _erased(self, store: HistoryStore, scope: str) -> None:
        """Erase a scope as `History.erase` does: all that `scan_keys` finds, and then what is left over."""
        for key in list(store.scan_keys(scope)):
            with suppress(Conflict):
                store.delete(key)
        left = store.remove_leftovers(scope)
        assert (tuple(left.left), left.complete) == ((), True), f"remove_leftovers has left {left.left[:3]}"
        assert list(store.keys(scope)) == list(store.scan_keys(scope)) == []
        assert list(store.damaged_keys(scope)) == []
