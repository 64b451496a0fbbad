"""A history: pages, cursors, deletion, ids."""

from __future__ import annotations

import base64

import pytest
from faulty_stores import DamagedStore, chat_on, numbered, reply, shared_names, texts, user

from chathistory import History, Key, StoreURL, open_store
from chathistory.errors import ConfigError, InvalidInput, StoreClosed

# Listing.


def test_conversations_are_listed_by_newest_activity(store):
    history = History(store)
    for name in ("a", "b", "c", "d", "e"):
        history.conversation(name).append(user(f"hello {name}"))
    history.conversation("b").append(reply(1, input_tokens=3))
    history.conversation("b").annotate(title="B", tags=["x"], metadata={"k": 1})
    page = history.list(limit=2)
    row = page.items[0]
    assert [item.id for item in page.items] == ["b", "e"]
    assert (row.title, row.preview, row.tags, row.metadata) == ("B", "hello b", ("x",), {"k": 1})
    assert (row.messages, row.usage, row.model, row.expires) == (2, {"input_tokens": 3}, "claude-1", None)
    assert row.created <= row.updated
    assert row.created.utcoffset().total_seconds() == 0
    assert "hello" not in repr(row)
    walked = [item.id for item in page.items]
    while page.next:
        page = history.list(limit=2, after=page.next)
        walked += [item.id for item in page.items]
    assert walked == ["b", "e", "d", "c", "a"]
    assert history.list(scope="other").items == []
    assert history.list(scope="other").next is None


@pytest.mark.parametrize(
    "arguments", [{"limit": 0}, {"limit": -1}, {"after": "nonsense"}, {"after": "ü"}, {"after": ""}]
)
def test_an_invalid_page_is_refused(store, arguments):
    chat_on(store).append(user("x"))
    with pytest.raises(InvalidInput):
        History(store).list(**arguments)


def test_a_deeply_nested_cursor_is_refused(store):
    cursor = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    with pytest.raises(InvalidInput):
        History(store).list(after=cursor)


def test_delete_returns_what_was_deleted(store, chat):
    numbered(chat, 5)
    chat.rewind(to=3)
    chat.set_title("x")
    history = History(store)
    deleted = history.delete("c")
    assert (deleted.id, deleted.scope, deleted.messages, deleted.records) == ("c", "default", 3, 7)
    assert history.delete("c") is None
    assert history.conversation("c").messages() == chat.messages() == []
    assert list(store.keys()) == []


def test_a_damaged_conversation_exists():
    with DamagedStore() as store:
        chat_on(store).append(user("x"))
        store.damage_head(Key("default", "c"))
        history = History(store)
        assert history.exists("c")
        assert "c" in history
        assert not history.exists("another")


def test_a_deleted_conversation_can_be_created_again(store, chat):
    numbered(chat, 5)
    chat.set_title("old")
    History(store).delete("c")
    head = chat.append(user("new"))
    assert (head.start, head.end, chat.info().title) == (0, 1, None)


@pytest.mark.parametrize("name", ["", "a" * 256, "a\nb", "a\x00", "\ud800", 5, None])
def test_an_invalid_id_is_refused(store, name):
    for arguments in ({"id": name}, {"id": "x", "scope": name}):
        with pytest.raises(InvalidInput):
            History(store).conversation(**arguments)


def test_scopes_and_ids_do_not_mix(store):
    history = History(store)
    places = [
        ("a", "b"),
        ("b", "a"),
        ("A", "b"),
        ("ä", "b"),
        ("a\u0308", "b"),
        ("../x", "b"),
        ("a" * 255, "b"),
        (".", "b"),
    ]
    for id, scope in places:
        history.conversation(id, scope=scope).append(user(f"{id}/{scope}"))
    for id, scope in places:
        assert texts(history.conversation(id, scope=scope).messages()) == [f"{id}/{scope}"]
    assert sorted(row.id for row in history.list(scope="b").items) == sorted(id for id, scope in places if scope == "b")


def test_options_given_with_a_parsed_url_are_used():
    try:
        store = open_store(StoreURL.parse("memory:"), ttl=5)
    except ConfigError:
        return
    assert store.ttl == 5


def test_closing_the_history_closes_the_store_that_it_opened():
    history = History("memory:")
    chat = history.conversation("c")
    history.close()
    history.close()
    for step in (chat.messages, chat.state, lambda: chat.append(user("x")), history.list, lambda: history.delete("c")):
        with pytest.raises(StoreClosed):
            step()


def test_two_stores_of_one_name_share_their_data():
    with (
        shared_names("test-history"),
        open_store("memory:test-history") as one,
        open_store("memory:test-history") as two,
    ):
        chat_on(one).append(user("x"))
        assert texts(chat_on(two).messages()) == ["x"]
        with open_store("memory:") as private:
            assert chat_on(private).messages() == []
