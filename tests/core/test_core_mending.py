"""Records that cannot be read: told with their position, never skipped in silence, and led around when asked."""

from __future__ import annotations

import pytest
from core_faults import CALL, RESULT, THOUGHT, numbered, reply, said, texts, user
from core_rules import problems

from chathistory import Entry, History
from chathistory.errors import CorruptRecord, TurnInProgress, UnsupportedRecord
from chathistory.log.clock import now
from chathistory.log.entry import encode
from chathistory.trimming import LastTurns


@pytest.fixture
def hurt(store, chat):
    """A function that damages records of the conversation, or makes a later version of them."""

    def hurt(*positions: int, version: int | None = None) -> None:
        held = store._room.scopes[chat.scope][chat.id].bodies
        for position in positions:
            line = held[position]
            held[position] = encode(Entry("message", message=user("x"), version=version)) if version else f"{line} "

    return hurt


def test_damage_is_an_error_until_it_is_mended(chat, hurt):
    numbered(chat, 6)
    hurt(2)
    for look in (chat.messages, lambda: chat.tail(9), lambda: list(chat.records())):
        with pytest.raises(CorruptRecord) as caught:
            look()
        assert caught.value.position == 2
    [found] = chat.repair()
    assert (found.position, found.what) == (2, "left out: the record is damaged, its checksum does not fit")
    with pytest.raises(CorruptRecord):
        chat.messages()
    chat.repair(write=True)
    assert texts(chat.messages()) == texts(chat.tail(9)) == ["0", "1", "3", "4", "5"]
    assert texts(chat.tail(2)) == ["4", "5"]
    assert chat.summary.messages == 5
    assert chat.repair() == ()
    chat.append(user("on"))
    assert texts(chat.messages())[-1] == "on"
    with pytest.raises(CorruptRecord):
        list(chat.records())  # the log still says what was lost


@pytest.mark.parametrize("positions", [(0,), (5,), (0, 1, 2), (1, 3, 5), (0, 1, 2, 3, 4, 5)])
def test_any_records_may_be_damaged(chat, hurt, positions):
    numbered(chat, 6)
    hurt(*positions)
    chat.repair(write=True)
    left = [str(number) for number in range(6) if number not in positions]
    while left and int(left[0]) % 2:
        left.pop(0)  # a conversation begins with the user
    assert texts(chat.messages()) == left
    assert problems(chat.messages()) == []
    assert chat.repair() == ()


def test_half_of_a_tool_round_is_completed(chat, hurt):
    chat.append([user("a"), CALL, RESULT, said("b")])
    hurt(2)
    assert len(chat.repair(write=True)) == 2
    assert [block["type"] for block in chat.messages()[-1]["content"]] == ["tool_result"]
    assert problems(chat.messages()) == []


def test_thinking_behind_damage_is_not_sent(chat, hurt):
    thought = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "so"}]}
    chat.append([user("a"), said("b"), user("c"), thought])
    hurt(1)
    chat.repair(write=True)
    assert chat.messages()[-1] == said("so")
    assert chat.view().report.thinking_stripped == 1


def test_a_record_of_a_later_version_is_led_around_only_when_asked(chat, hurt):
    numbered(chat, 4)
    hurt(1, version=2)
    with pytest.raises(UnsupportedRecord):
        chat.messages()
    [found] = chat.repair()
    assert (found.position, found.what) == (1, "left out: a later version of chathistory wrote it")
    chat.repair(write=True)
    assert texts(chat.messages()) == ["0", "2", "3"]
    assert len(list(chat.records())) == 5


def test_a_lost_rewind_brings_back_what_it_left_out(chat, hurt):
    numbered(chat, 4)
    chat.rewind(to=2)
    hurt(4)
    [found] = chat.repair(write=True)
    assert found.position == 4
    assert texts(chat.messages()) == ["0", "1", "2", "3"]


def test_a_lost_cut_is_a_cut_all_the_same(chat, hurt):
    numbered(chat, 8)
    chat.trim(LastTurns(2, 2))
    chat.append([user("on"), said("so")])
    hurt(8)
    assert [repair.position for repair in chat.repair(write=True)] == [8]
    assert texts(chat.messages()) == ["4", "5", "6", "7", "on", "so"]
    assert chat.summary.messages == 10


def test_damage_before_what_is_sent_is_nobodys_trouble(chat, hurt):
    numbered(chat, 8)
    chat.trim(LastTurns(2, 2))
    hurt(1)
    assert chat.repair() == ()
    assert texts(chat.messages()) == ["4", "5", "6", "7"]
    elsewhere = History(chat.journal.store).conversation(chat.id)
    elsewhere.append(user("on"))
    assert texts(elsewhere.messages())[-1] == "on"


def test_what_was_paid_is_counted_once(chat, hurt):
    chat.append([user("a"), reply(1, output_tokens=3), user("c"), reply(2, output_tokens=4)])
    before = chat.usage()
    hurt(0)
    chat.repair(write=True)
    spent = chat.summary.usage
    assert sum(turn.tokens.output for turn in before.turns) == before.total.output == spent["output_tokens"]


def test_nothing_is_mended_while_a_turn_is_open(chat, hurt):
    numbered(chat, 4)
    opened = Entry("message", message=user("?"), turn="t", data={"until": now() + 10**9})
    chat.journal.append([opened])
    hurt(1)
    with pytest.raises(TurnInProgress):
        chat.repair(write=True)
    assert len(chat.repair()) == 1
