"""Damage on Redis as a user meets it: the listing continues, the conversation is repaired, the erasure is complete."""

from __future__ import annotations

from functools import partial

import pytest
from damage_checks import check_repaired

from chathistory import Key

KEY = Key("default", "long")

DAMAGES = {
    "the head is something else": (lambda client, name: client.lset(name, -1, b"garbage"), 0),
    "the head is gone": (lambda client, name: client.rpop(name), 0),
    "a record is gone": (lambda client, name: client.lrem(name, 1, client.lindex(name, 50)), 1),
    "the head and a record": (lambda client, name: [client.lset(name, at, b"\xff") for at in (-1, 70)], 1),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_conversation_is_repaired_and_keeps_forgotten_and_rewound_records(store, valkey_client, name):
    damage, lost = DAMAGES[name]
    in_place = partial(damage, valkey_client, store._layout.names(KEY).conversation)
    check_repaired(store, KEY, in_place, lost=lost, not_reached="append-only file")
