"""What must be true of a store with a damaged conversation, for every backend with tests that damage its raw data.

Each check is about one conversation, `key`, which may be damaged in any way. The store also has sound conversations of
three records: `others` in the same scope, and `far` in another one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest

from chathistory import Conversation, Head, History, HistoryStore, Key
from chathistory.errors import ChatHistoryError, CorruptRecord, UnsupportedRecord
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.values import Damaged, Record
from chathistory.testing.contract.every_method import check_no_message_text
from chathistory.testing.contract.samples import append_lines, create_conversation, make_lines, make_revision


def spread(every: Sequence[Any], step: int) -> list[Any]:
    """Return all kinds of damage as parameters; one in `step` runs every day, the others in `make stress`."""
    return [pytest.param(each, marks=[pytest.mark.stress] if at % step else []) for at, each in enumerate(every)]


def outcome(call: Callable[[], Any]) -> Any:
    """Return the result of a call, or its error, which must be one of ours and quote nothing."""
    try:
        return call()
    except ChatHistoryError as error:
        check_no_message_text(error)
        return error


def list_all_pages(store: HistoryStore, scope: str, limit: int) -> tuple[list[Head], dict[str, Damaged]]:
    """Read a listing to its end; return the heads, and the damaged conversations by `where`."""
    heads: list[Head] = []
    damaged: dict[str, Damaged] = {}
    cursor = None
    for _ in range(100):
        page = store.heads(scope, after=cursor, limit=limit)
        assert len(page.items) <= limit
        heads += page.items
        damaged |= {each.where: each for each in page.damaged}
        cursor = page.next
        if cursor is None:
            return heads, damaged
    pytest.fail("the listing does not end")


class Walks(NamedTuple):
    """What the walks over a store found: the listing for each page size, and `scan_keys`."""

    listings: list[tuple[set[Key], dict[str, Damaged]]]
    found: set[Key]


def check_walks(
    store: HistoryStore, key: Key, *, others: Collection[Key], listed: Collection[Key], far: Key, is_there: bool
) -> Walks:
    """Check that damage hides no other conversation; `listed`: the others that the index still has."""
    listings = []
    for limit in (1, 2, 100):
        heads, damaged = list_all_pages(store, key.scope, limit)
        keys = [head.key for head in heads]
        assert len(keys) == len(set(keys))
        assert set(listed) <= set(keys)
        assert all(isinstance(each.error, CorruptRecord | UnsupportedRecord) for each in damaged.values())
        assert all(each.where.isprintable() for each in damaged.values())
        listings.append((set(keys), damaged))
    assert set(listed) <= set(store.keys(key.scope))
    assert set(listed) <= set(store.keys())
    assert [head.key for head in store.heads(far.scope).items] == [far]
    found = list(store.scan_keys())
    assert len(found) == len(set(found))
    assert {*others, far} | ({key} if is_there else set()) <= set(found)
    assert {each for each in found if each.scope != key.scope} == {far}
    assert sorted(store.scan_keys(key.scope)) == sorted(each for each in found if each != far)
    for each in (*store.damaged_keys(), *store.damaged_keys(key.scope)):
        assert each.key is None
        assert each.where.isprintable()
        check_no_message_text(each.error)
    for each in (*others, far):
        assert read_bodies(store, each) == make_lines(3)
    return Walks(listings, set(found))


def read_bodies(store: HistoryStore, key: Key, start: int = 0, stop: int | None = None) -> list[str]:
    """Return the bodies of a whole range."""
    records: list[Record] = []
    while (run := store.read(key, start=start + len(records), stop=stop)) and run.records:
        records += run.records
    return [record.body for record in records]


def check_recovery(store: HistoryStore, key: Key, *, most: int) -> tuple[FoundRecords, dict[int, str]] | None:
    """Check that each sound record is found at its position, and that a new head makes it readable.

    Args:
        store: The store.
        key: The conversation.
        most: The largest position that may be found.

    Returns:
        What was found, and the sound records by position, if there was something to restore; it is restored.
    """
    recovery = store.get_recovery()
    assert recovery is not None
    found = outcome(partial(recovery.find_records, key))
    if found is None:
        return None
    assert not isinstance(found, ChatHistoryError), repr(found)
    assert 0 <= found.start <= found.end <= most
    assert found.token.isascii()
    assert found.token.isprintable()
    stop = min(found.end, found.start + 1000)
    sound = {record.position: record.body for record in recovery.read_found(found, start=found.start, stop=stop)}
    assert list(sound) == sorted(sound)
    if found.problem is None or not sound:
        return None
    head = Head(key, found.start, found.end, make_revision(payload="new"))
    assert recovery.restore_head(found, head) == head
    run = store.read(key, stop=0)
    assert run is not None
    assert run.head == head
    for position in range(found.start, stop):
        run = outcome(partial(store.read, key, start=position, stop=position + 1))
        if position in sound:
            assert [record.body for record in run.records] == [sound[position]]
        else:
            assert isinstance(run, CorruptRecord)
            assert run.position == position
    again = recovery.find_records(key)
    assert again is not None
    assert (again.start, again.problem) == (found.start, None)
    assert outcome(partial(recovery.restore_head, found, head)).head == head, "the head is not the one that was found"
    return found, sound


def call_by_name(store: HistoryStore, key: Key, head: Head) -> list[Any]:
    """Return the results of calls that name the conversation: each works, or raises an error of ours."""
    calls: tuple[Callable[[], Any], ...] = (
        partial(store.read, key),
        partial(store.read, key, start=-2),
        partial(store.read, key, start=-200),
        partial(store.read, key, start=3),
        partial(store.read, key, stop=0),
        partial(append_lines, store, head),
        partial(append_lines, store, head, 50),
        partial(create_conversation, store, key),
        partial(store.forget, key, before=2),
        partial(store.forget, key, before=17),
        partial(store.delete, key, version="other"),
    )
    return [outcome(call) for call in calls]


def check_erase(
    store: HistoryStore, scope: str, far: Key, *, may_be_gone: Callable[[Key], bool] = lambda _: False
) -> None:
    """Do what erase does: delete each conversation that a walk finds, then remove leftovers."""
    for key in list(store.scan_keys(scope)):
        is_excused = may_be_gone(key)
        assert store.delete(key) is True or is_excused
    report = store.remove_leftovers(scope)
    strays = {each.where for each in store.damaged_keys(scope)}
    assert set(report.left) <= strays, "only what does not show its scope may be left"
    assert report.complete is (not report.left)
    assert read_bodies(store, far) == make_lines(3)


def check_others_readable(
    store: HistoryStore, key: Key, size: int, damage: Callable[[int], Callable[[], object]], *, grows: bool
) -> None:
    """Check that damage of a record leaves all others readable, in a conversation stored in batches of `size`.

    Args:
        store: The store.
        key: The conversation, which is created here.
        size: The number of records in a batch.
        damage: Damages the record at a position; returns a function that undoes it.
        grows: Whether to append after each damage.
    """
    head = create_conversation(store, key, count=size)
    while head.end < 600:
        head = append_lines(store, head, size)
    for at in (0, 1, 299, 300, head.end - 1):
        undo = damage(at)
        for start, stop in ((at, None), (at, at + 1)):
            with pytest.raises(CorruptRecord) as caught:
                store.read(key, start=start, stop=stop)
            assert caught.value.position == at
        for start, stop in ((0, at), (at + 1, head.end)):
            assert read_bodies(store, key, start, stop) == make_lines(stop - start, first=start)
        head = append_lines(store, head) if grows else head
        undo()


def check_not_overwritten(
    store: HistoryStore,
    head: Head,
    *,
    damage: Callable[[], Callable[[], object]],
    remove: Callable[[], object],
) -> None:
    """Check that a found head is not restored over the head of another writer, nor after a delete.

    Args:
        store: The store.
        head: The head of a sound conversation.
        damage: Damages the stored head; returns a function that undoes it.
        remove: Removes the conversation.
    """
    recovery = store.get_recovery()
    assert recovery is not None
    undo = damage()
    found = recovery.find_records(head.key)
    assert found is not None
    undo()
    old, head = head, append_lines(store, head)
    new = Head(head.key, 0, old.end, make_revision())
    assert outcome(partial(recovery.restore_head, found, new)).head == head
    assert len(read_bodies(store, head.key)) == head.end
    remove()
    assert outcome(partial(recovery.restore_head, found, new)).head is None
    assert recovery.find_records(head.key) is None


def said(conversation: Conversation) -> list[Any]:
    """Return the contents of the messages."""
    return [message["content"] for message in conversation.messages()]


def check_repaired(
    store: HistoryStore, key: Key, damage: Callable[[], object], *, lost: int, not_reached: str, more: str = ""
) -> None:
    """Check that a damaged conversation is restored, keeps its forgets and rewinds, and can be erased completely.

    Positions matter: a rewind, and the snapshot of a forget, refer to them.

    Args:
        store: The store, empty.
        key: The conversation, of more than 300 messages, which is created here.
        damage: Damages its head, and perhaps some records.
        lost: How many records it damages.
        not_reached: A place that the report of the erasure names.
        more: The end of each of the 300 messages.
    """
    history = History(store, scope=key.scope)
    chat = history.conversation(key.id)
    for number in range(300):
        chat.append({"role": ("user", "assistant")[number % 2], "content": f"message {number}{more}"})
    chat.rewind(to=200)
    chat.forget(before=100)
    for number in range(10):
        chat.append({"role": ("user", "assistant")[number % 2], "content": f"behind {number}"})
    history.conversation("other").append({"role": "user", "content": "sound"})
    before = said(chat)
    damage()
    listed = history.list()
    assert [row.id for row in listed.items] == ["other"]
    assert [each.key for each in listed.damaged if isinstance(each, Damaged)] == [key]
    damaged = history.conversation(key.id)
    with pytest.raises(CorruptRecord):
        damaged.append({"role": "user", "content": "more"})
    made = damaged.restore(dry_run=False)
    assert made is not None
    assert (made.start, len(made.lost)) == (100, lost)
    after = said(history.conversation(key.id))
    assert [text for text in before if text in after] == after
    assert len(after) == len(before) - lost
    damaged.append({"role": "user", "content": "more"})
    assert said(history.conversation(key.id)) == [*after, "more"]
    report = history.erase(scope=key.scope)
    assert (report.complete, report.left) == (True, ())
    assert not_reached in report.not_reached
