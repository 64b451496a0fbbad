"""Guarantee 8, contained: `foo` never reaches `foobar`, and no id or scope reaches another place of the storage."""

from __future__ import annotations

import pytest

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import (
    check_absent,
    check_bodies,
    check_everything,
    list_heads,
    read_bodies,
    read_everything,
    read_head,
)
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines, make_revision
from chathistory.testing.contract.tricky_names import LOOKALIKES, NAMES, NEIGHBOURS

__all__ = ["NameIsolation"]

_IDS = [Key(KEY.scope, name) for name in NAMES]
_SCOPES = [Key(name, KEY.id) for name in NAMES]
_PAIRS = [(Key("s", one), Key("s", other)) for one, other in NEIGHBOURS]
_PAIRS += [(Key(one, "i"), Key(other, "i")) for one, other in NEIGHBOURS]


def _bodies_for(key: Key) -> list[str]:
    return [f"scope {key.scope}", f"id {key.id}"]


def _check_names_distinct(store: HistoryStore, keys: list[Key]) -> None:
    """Create all keys, delete every second one, and check each of them before and after."""
    heads = {
        key: store.append(key, _bodies_for(key), after=None, revision=make_revision(payload=key.id)) for key in keys
    }
    for key, head in heads.items():
        assert read_head(store, key) == head, f"read() of {key} does not return its own head"
        check_bodies(store, key, _bodies_for(key))
    assert sorted(store.keys()) == sorted(keys)
    for key in keys[::2]:
        assert store.delete(key) is True, f"delete() of {key} did not return True"
    assert sorted(store.keys()) == sorted(keys[1::2])
    for key in keys[::2]:
        assert store.read(key) is None, f"{key} was deleted, but read() returns another conversation"
    for key in keys[1::2]:
        assert read_head(store, key) == heads[key], f"{key} was not deleted, but is absent or changed"
        check_bodies(store, key, _bodies_for(key))


class NameIsolation(ContractTest, guarantee=8):
    """Every name is a name of its own, to the character."""

    def test_every_id_is_a_conversation_of_its_own(self, store: HistoryStore) -> None:
        _check_names_distinct(store, _IDS)

    def test_every_scope_is_a_scope_of_its_own(self, store: HistoryStore) -> None:
        _check_names_distinct(store, _SCOPES)

    def test_scope_and_id_are_not_joined_ambiguously(self, store: HistoryStore) -> None:
        _check_names_distinct(store, [Key(scope, name) for scope, name in LOOKALIKES])

    def test_listings_return_every_id_unchanged(self, store: HistoryStore) -> None:
        heads = [create_conversation(store, key) for key in _IDS]
        assert sorted(list_heads(store, KEY.scope), key=lambda head: head.key) == sorted(
            heads, key=lambda head: head.key
        )
        walked = [head.key for head in list_heads(store, KEY.scope, limit=7)]
        assert sorted(walked) == sorted(_IDS)
        assert sorted(store.keys(KEY.scope)) == sorted(_IDS)

    def test_a_listing_shows_its_own_scope_only(self, store: HistoryStore) -> None:
        heads = {key: create_conversation(store, key) for key in _SCOPES}
        for key, head in heads.items():
            assert list_heads(store, key.scope) == [head], f"heads({key.scope!r}) must list its own conversation only"
            assert list(store.keys(key.scope)) == [key], f"keys({key.scope!r}) must yield its own conversation only"

    @pytest.mark.parametrize(("one", "other"), _PAIRS, ids=str)
    def test_a_call_never_reaches_a_similar_name(self, store: HistoryStore, one: Key, other: Key) -> None:
        create_conversation(store, other, 3)
        before = read_everything(store)
        check_absent(store, one)
        assert store.forget(one, before=2) is None, "forget() must return None: there is no such conversation"
        assert store.delete(one) is False, "delete() must return False: there is no such conversation"
        check_everything(store, before)
        head = append_lines(store, create_conversation(store, one, 3))
        store.forget(one, before=2)
        assert read_bodies(store, other) == make_lines(3), (
            "forget() removed records of a conversation with a similar name"
        )
        assert store.delete(one, version=head.revision.version) is True, (
            "delete() must return True: the conversation existed"
        )
        assert read_everything(store) == before, "delete() changed a conversation with a similar name"
