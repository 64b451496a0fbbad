"""Conversations with every kind of content, and what the tests compare of a store."""

from __future__ import annotations

from message_kinds import KINDS

from chathistory import History, HistoryStore, Key

SCOPES = ("default", "Ada/ü", "x" * 200)


def user(text):
    return {"role": "user", "content": text}


def said(text, **usage):
    return {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "model": "claude-sonnet-5-5",
        "content": [{"type": "thinking", "thinking": "", "signature": "EqQ="}, {"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": usage or {"input_tokens": 3, "output_tokens": 2},
    }


def fill_store(store: HistoryStore, count: int) -> None:
    """Store so many conversations in several scopes: every block type, titles, rewinds, forks, forgotten beginnings."""
    history = History(store)
    for number in range(count):
        chat = history.conversation(f"chat {number} \U0001f600", scope=SCOPES[number % 3])
        kinds = [KINDS[(number + step) % len(KINDS)] for step in range(3)]
        chat.append([kind.given() for kind in kinds] + [user("so?"), said(f"reply {number}")])
        if number % 3 == 0:
            chat.annotate(title=f"Title {number}", tags=["a", "ü"], metadata={"k.$": [number, None, -0.0]})
        if number % 4 == 0:
            chat.rewind(to=2)
            chat.append([user("again"), said("better")])
        if number % 5 == 0:
            chat.forget(before=2)
        if number % 10 == 0:
            chat.fork(f"fork {number}", scope="forks")


def whole(store: HistoryStore) -> dict[Key, tuple]:
    """Return all that a store holds: the head with its revision, and every record, by key."""
    found = {}
    for key in list(store.keys()):
        part = store.read(key)
        records = list(part.records)
        while records and records[-1].position + 1 < part.head.end:
            records += store.read(key, start=records[-1].position + 1).records
        found[key] = (part.head, tuple(records))
    return found


def order(store: HistoryStore, scope: str, limit: int = 20) -> list[str]:
    """Return the ids of a scope in the order of its listing."""
    ids, after = [], None
    while True:
        page = History(store).list(scope=scope, limit=limit, after=after)
        ids += [row.id for row in page.items]
        after = page.next
        if after is None:
            return ids
