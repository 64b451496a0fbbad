"""Rewind and forget: what is sent then, and which records remain."""

from __future__ import annotations

import json

import pytest
from api_rules import list_problems
from entry_factory import make_entry
from faulty_stores import CALL, RESULT, THOUGHT, bodies, numbered, reply, said, texts, user

from chathistory import History
from chathistory.errors import InvalidInput
from chathistory.operations.rewind_forget import make_snapshot_entries

# Rewind.


def test_a_rewind_continues_from_its_position_and_keeps_all_records(chat):
    numbered(chat, 6)
    chat.rewind(to=4)
    assert texts(chat.messages()) == ["0", "1", "2", "3"]
    assert chat.state().totals.messages == 4
    chat.append(user("4'"))
    assert texts(chat.messages()) == texts(chat.last_messages(9)) == ["0", "1", "2", "3", "4'"]
    assert texts(chat.last_messages(2)) == ["3", "4'"]
    assert len(list(chat.entries())) == 8
    assert chat.state().totals.messages == 5


@pytest.mark.parametrize("to", [-1, 7, 100, 5, 4])
def test_a_rewind_to_a_position_off_the_path_is_refused(chat, to):
    numbered(chat, 6)
    chat.rewind(to=2)  # it is stored at 6; 3, 4 and 5 are off the path, which ends at 2
    before = len(list(chat.entries()))
    if to == 7:
        to = 8
    with pytest.raises(InvalidInput, match=str(to)):
        chat.rewind(to=to)
    assert len(list(chat.entries())) == before


@pytest.mark.parametrize("to", [0, 1, 6])
def test_a_rewind_to_the_start_and_to_the_end(chat, to):
    numbered(chat, 6)
    chat.rewind(to=to)
    assert chat.state().totals.messages == to == len(chat.messages())
    chat.append(user("on"))
    assert texts(chat.messages())[-1] == "on"


def test_several_rewinds_in_a_row(chat):
    numbered(chat, 6)
    chat.rewind(to=5)
    chat.rewind(to=3)
    chat.append(user("x"))
    at = chat.state().view.path_position
    chat.append(user("y"))
    chat.rewind(to=at + 2)
    assert texts(chat.messages()) == ["0", "1", "2", "x"]
    chat.rewind(to=1)
    chat.append(said("z"))
    assert texts(chat.messages()) == texts(chat.last_messages(9)) == ["0", "z"]
    assert chat.state().totals.messages == 2


def test_a_rewind_keeps_title_and_usage(chat):
    chat.append([user("a"), reply(1, input_tokens=5)])
    chat.annotate(title="t", metadata={"k": [1]})
    chat.rewind(to=0)
    assert (chat.info().title, chat.info().metadata, chat.state().totals.usage) == (
        "t",
        {"k": [1]},
        {"input_tokens": 5},
    )
    assert chat.messages() == []


# Forget.


def test_forgetting_a_part(chat):
    numbered(chat, 10)
    head = chat.forget(before=4)
    assert (head.start, head.end) == (4, 11)
    assert texts(chat.messages()) == texts(chat.last_messages(20)) == ["4", "5", "6", "7", "8", "9"]
    assert chat.state().totals.messages == 6
    chat.append(user("10"))
    assert texts(chat.last_messages(2)) == ["9", "10"]


@pytest.mark.parametrize("before", [10, 11, 1000])
def test_forgetting_everything(chat, before):
    numbered(chat, 10)
    chat.annotate(title="kept", tags=["a"])
    chat.forget(before=before + 1)
    assert chat.messages() == chat.last_messages(5) == []
    assert (chat.info().title, chat.info().tags, chat.state().totals.messages) == ("kept", ("a",), 0)
    chat.append(user("on"))
    assert texts(chat.messages()) == ["on"]


def test_nothing_of_forgotten_messages_remains(store, chat):
    chat.append([user("SECRET first words"), said("SECRET reply"), user("SECRET more"), said("SECRET end")])
    chat.forget(before=4)
    chat.append(user("new"))
    kept = [*bodies(store, chat), store.read(chat.log.key).head.revision.payload]
    assert "SECRET" not in json.dumps(kept)
    [row] = History(store).list().items
    assert row.preview == "new"


def test_the_preview_is_forgotten_with_its_message(store, chat):
    chat.append([user("SECRET"), said("a"), user("b")])
    chat.forget(before=2)
    assert chat.state().totals.preview is None
    assert "SECRET" not in "".join([*bodies(store, chat), store.read(chat.log.key).head.revision.payload])


def test_forgetting_in_a_dry_run_changes_nothing(chat):
    numbered(chat, 6)
    before = chat.info()
    assert chat.forget(before=4, dry_run=True) == before
    assert [entry.position for entry in chat.entries()] == list(range(6))
    chat.append([user("9"), CALL])
    with pytest.raises(InvalidInput, match="waiting for its result"):
        chat.forget(before=4, dry_run=True)


def test_forgetting_below_the_start_does_nothing(chat):
    numbered(chat, 6)
    chat.forget(before=4)
    for before in (-5, 0, 3, 4):
        assert chat.forget(before=before).end == 7
    assert len(list(chat.entries())) == 3


def test_forgetting_several_times(chat):
    numbered(chat, 10)
    for before in (2, 5, 6):
        chat.forget(before=before)
    assert texts(chat.messages()) == ["6", "7", "8", "9"]
    assert chat.state().totals.messages == 4
    chat.rewind(to=8)
    assert texts(chat.messages()) == ["6", "7"]
    chat.append(user("x"))
    chat.forget(before=7)
    assert texts(chat.last_messages(9)) == ["7", "x"]
    assert chat.state().totals.messages == 2


def test_forgetting_messages_off_the_path_changes_no_count(chat):
    numbered(chat, 6)
    chat.rewind(to=0)
    chat.append([user("x"), said("y")])
    chat.forget(before=6)
    assert texts(chat.messages()) == ["x", "y"]
    assert chat.state().totals.messages == 2


def test_thinking_before_a_forget_is_not_sent_and_later_thinking_is(chat):
    thoughtful = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "t"}]}
    chat.append([user("a"), said("b"), user("c"), thoughtful])
    chat.forget(before=2)
    assert chat.messages() == [user("c"), said("t")]
    chat.append([user("d"), thoughtful])
    assert chat.messages() == [user("c"), said("t"), user("d"), thoughtful]
    assert next(entry for entry in chat.entries() if entry.position == 3).message == thoughtful


OPEN_TURNS = {
    "a call awaits its result": [user("b"), CALL],
    "its result awaits the reply": [user("b"), CALL, RESULT],
    "a paused reply awaits the rest": [
        user("b"),
        {"type": "message", "role": "assistant", "stop_reason": "pause_turn"}
        | {"content": [THOUGHT, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}]},
    ],
}


@pytest.mark.parametrize("name", OPEN_TURNS)
def test_forgetting_is_refused_within_an_open_turn(chat, name):
    """The API requires the thinking of an open turn, and forgetting earlier messages would invalidate it."""
    chat.append([user("a"), said("a"), *OPEN_TURNS[name]])
    before = chat.messages()
    with pytest.raises(InvalidInput):
        chat.forget(before=2)
    assert chat.messages() == before
    assert len(list(chat.entries())) == 2 + len(OPEN_TURNS[name])


@pytest.mark.parametrize("before", range(8))
def test_after_a_forget_within_a_tool_turn_the_rest_can_be_sent(chat, before):
    chat.append([user("a"), CALL, RESULT, said("b"), user("c"), said("d")])
    chat.forget(before=before)
    assert list_problems(chat.messages()) == []


def test_a_forget_that_stopped_half_way_can_be_repeated(store, chat):
    numbered(chat, 6)
    head = chat.log.refresh()
    chat.log.append(make_snapshot_entries(chat.log, head, 4))
    assert texts(chat.messages()) == ["4", "5"]
    chat.forget(before=4)
    assert (texts(chat.messages()), chat.state().totals.messages) == (["4", "5"], 2)
    assert store.read(chat.log.key).head.start == 4


def test_the_setup_is_kept_when_its_record_is_forgotten(chat):
    assert chat.setup() is None
    setup = {"model": "m", "system": "Be brief.", "tools": None}
    chat.log.append([make_entry("setup", data=setup | {"fingerprints": {"model": "1"}})])
    numbered(chat, 4)
    chat.forget(before=3)
    assert chat.setup() == setup
    chat.forget(before=100)
    assert chat.setup() == setup
    assert chat.messages() == []
