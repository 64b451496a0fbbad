"""Leaving out what the API refused last: from a call without arguments, and by a repair."""

from __future__ import annotations

import pytest
from api_rules import list_problems
from entry_factory import make_entry
from faulty_stores import CALL, RESULT, chat_on, numbered, said, user

from chathistory.errors import InvalidInput, TurnInProgress
from chathistory.log.clock import now
from chathistory.log.omissions import ContentLocation, Refusal

OPEN_THINKING = "thinking of the open turn that is not as the API gave it"


def refuse(chat, *locations, problem="an image is too large", certain=True):
    """Store that the API refused content of earlier turns, as the engine does."""
    refusal = Refusal(
        "earlier", problem, locations=tuple(ContentLocation(*each) for each in locations), certain=certain
    )
    chat.log.append([make_entry("turn_abandoned", turn="t", data={"refusal": refusal.to_dict()})])


def call(id, *, text=True):
    """Return a reply with text and a tool call."""
    blocks = [{"type": "tool_use", "id": id, "name": "f", "input": {}}]
    return {"role": "assistant", "content": [{"type": "text", "text": f"call {id}"}, *blocks] if text else blocks}


def result(id):
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "ok"}]}


def test_what_the_api_refused_is_left_out_without_naming_it(chat):
    numbered(chat, 4)
    refuse(chat, (2, 0))
    chat.leave_out()
    assert chat.messages() == [user("0"), said("1"), said("3")]
    with pytest.raises(InvalidInput, match="the API has refused nothing of this conversation since the last reply"):
        chat.leave_out()


def test_what_may_have_been_refused_has_to_be_named(chat):
    numbered(chat, 4)
    refuse(chat, (0, None), (2, 0), certain=False)
    before = chat.messages()
    with pytest.raises(InvalidInput, match=r"the API refused one of: position=0; position=2 block=0; `engine.check"):
        chat.leave_out()
    assert chat.messages() == before
    assert chat.repair() == (), "it is not certain what a repair would leave out"
    chat.leave_out(2)
    assert chat.messages() == [user("0"), said("1"), said("3")]


def test_an_open_turn_whose_thinking_was_changed_is_left_out_up_to_its_question(chat):
    chat.append([user("a"), said("b"), user("c"), CALL, RESULT])
    refuse(chat, (3, 0), problem=OPEN_THINKING)
    chat.leave_out()
    assert chat.messages() == [user("a"), said("b"), user("c")]
    assert list_problems(chat.messages()) == []
    chat.append(said("d"))
    assert chat.messages()[-1] == said("d")


def test_calls_that_a_question_left_without_results_are_left_out_with_an_open_turn(chat):
    chat.append([user("a"), call("x"), user("c"), CALL, RESULT])
    refuse(chat, (3, 0), problem=OPEN_THINKING)
    chat.leave_out()
    assert chat.messages() == [user("a"), said("call x"), user("c")]
    assert list_problems(chat.messages()) == []


def test_of_an_open_turn_messages_that_are_left_out_already_are_not_left_out_again(chat):
    chat.append([user("a"), CALL, RESULT, call("y"), result("y")])
    chat.leave_out(4)
    refuse(chat, (1, 0), problem=OPEN_THINKING)
    chat.leave_out()
    [*_, entry] = chat.entries()
    assert [each.position for each in entry.event.locations] == [1, 2, 3]
    assert chat.messages() == [user("a")]


def test_an_open_turn_without_a_question_is_left_out_completely(chat):
    chat.append([CALL, RESULT, user("a")])
    chat.leave_out(2)
    refuse(chat, (0, 0), problem=OPEN_THINKING)
    chat.leave_out()
    [*_, entry] = chat.entries()
    assert [each.position for each in entry.event.locations] == [0, 1]


@pytest.mark.parametrize("force", [False, True])
def test_a_repair_leaves_out_what_the_api_refused_during_an_open_turn_only_if_forced(store, chat, force):
    numbered(chat, 4)
    refuse(chat, (2, 0))
    chat.log.append([make_entry("message", message=user("?"), turn="u", data={"lease_until": now() + 10**9})])
    if not force:
        with pytest.raises(TurnInProgress):
            chat.repair(dry_run=False)
        return
    [found] = chat.repair(dry_run=False, force=True)
    assert (found.position, found.description) == (
        2,
        "left out: the API refused block 0 when it was sent last: an image is too large",
    )
    assert chat_on(store).messages() == [user("0"), said("1"), said("3"), user("?")]
    assert chat_on(store).repair() == ()
