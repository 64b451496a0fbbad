"""Damage on Redis as a user meets it: the listing goes on, the conversation is mended, the erasure is complete."""

from __future__ import annotations

import pytest

from chathistory import History, Key
from chathistory.errors import CorruptRecord
from chathistory.storage.values import Damaged

KEY = Key("default", "long")

DAMAGES = {
    "the head is something else": (lambda client, name: client.lset(name, -1, b"garbage"), 0),
    "the head is gone": (lambda client, name: client.rpop(name), 0),
    "a record is gone": (lambda client, name: client.lrem(name, 1, client.lindex(name, 50)), 1),
    "the head and a record": (lambda client, name: [client.lset(name, at, b"\xff") for at in (-1, 70)], 1),
}


def said(conversation) -> list[str]:
    return [message["content"] for message in conversation.messages()]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_conversation_is_mended_and_keeps_what_was_forgotten_and_gone_back_from(store, valkey_client, name):
    """Positions count: a rewind, and the state that a forget leaves, name them."""
    damage, lost = DAMAGES[name]
    history = History(store)
    chat = history.conversation(KEY.id)
    for number in range(300):
        chat.append({"role": ("user", "assistant")[number % 2], "content": f"message {number}"})
    chat.rewind(to=200)
    chat.forget(before=100)
    for number in range(10):
        chat.append({"role": ("user", "assistant")[number % 2], "content": f"behind {number}"})
    history.conversation("other").append({"role": "user", "content": "sound"})
    before = said(chat)
    damage(valkey_client, store._layout.names(KEY).conversation)
    listed = history.list()
    assert [row.id for row in listed.items] == ["other"]
    assert [each.key for each in listed.damaged if isinstance(each, Damaged)] == [KEY]
    damaged = history.conversation(KEY.id)
    with pytest.raises(CorruptRecord):
        damaged.append({"role": "user", "content": "more"})
    made = damaged.restore(dry_run=False)
    assert (made.start, len(made.lost)) == (100, lost)
    after = said(history.conversation(KEY.id))
    assert [text for text in before if text in after] == after
    assert len(after) == len(before) - lost
    damaged.append({"role": "user", "content": "more"})
    assert said(history.conversation(KEY.id)) == [*after, "more"]
    report = history.erase(scope=KEY.scope)
    assert (report.complete, report.left) == (True, ())
    assert "append-only file" in report.not_reached
