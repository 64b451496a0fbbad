"""Damage on MongoDB as a user meets it: the listing continues, the conversation is repaired, the erasure complete."""

from __future__ import annotations

import io

import pytest
from bson import Int64
from damage_checks import check_repaired, said
from mongodb_damage import HEADS, SEGMENTS

from chathistory import History, Key
from chathistory.errors import CorruptRecord
from chathistory.storage.abilities import LONGEST_GAP

KEY = Key("default", "long")
ONLY = {"_id": {"s": KEY.scope, "i": KEY.id}}

DAMAGES = {
    "the end is a text": (lambda database: database[HEADS].update_one(ONLY, {"$set": {"end": "x", "info": 5}}), 0),
    "many fields are gone": (
        lambda database: database[HEADS].update_one(
            ONLY, {"$unset": dict.fromkeys(("from", "start", "version", "runs", "born"), 1)}
        ),
        0,
    ),
    "a body as well": (lambda database: database[HEADS].update_one(ONLY, {"$set": {"end": 1.5, "tail.3": 7}}), 1),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_conversation_is_repaired_and_keeps_forgotten_and_rewound_records(store, database, name):
    damage, lost = DAMAGES[name]

    def do():
        assert database[SEGMENTS].count_documents({}) > 0
        damage(database)

    check_repaired(store, KEY, do, lost=lost, not_reached="oplog", more=f" {'.' * 300}")


@pytest.mark.parametrize("count", [2, 300])
@pytest.mark.parametrize("far", [2_000, 10**12])
def test_a_head_with_positions_far_from_its_records_ends_no_walk(store, database, count, far):
    history = History(store)
    chat = history.conversation(KEY.id)
    for number in range(count):
        chat.append({"role": ("user", "assistant")[number % 2], "content": f"message {number} {'.' * 300}"})
    history.conversation("other").append({"role": "user", "content": "sound"})
    before = said(chat)
    assert bool(database[SEGMENTS].count_documents({})) == (count > 2)
    database[HEADS].update_one(ONLY, {"$inc": {"from": Int64(far), "end": Int64(far)}})
    damaged = history.conversation(KEY.id)
    report = history.check()
    assert (report.checked, [each.key for each in report.found]) == (2, [KEY])
    [found] = report.found
    salvaged = history.export_to(io.BytesIO(), salvage=True, all_scopes=True)
    assert (salvaged.conversations, salvaged.failed) == (2, {})
    if far > LONGEST_GAP:  # no record can have been lost: the positions are wrong
        assert (found.state, found.findings) == ("restorable", ())
        with pytest.raises(CorruptRecord, match="far from the positions of its records"):
            damaged.messages()
        assert salvaged.salvaged == {}
        assert damaged.restore(dry_run=False).end == count
        assert said(history.conversation(KEY.id)) == before
    else:
        assert (found.state, len(found.findings)) == ("repairable", far)
        assert salvaged.salvaged == {KEY: far}
        damaged.repair(dry_run=False)
        assert said(history.conversation(KEY.id)) == before
    assert history.check().found == () or far <= LONGEST_GAP
