"""The rules of the view, one by one, with reports that quote nothing."""

from __future__ import annotations

import copy
import json

import pytest
from api_rules import is_complete, list_fake_api_refusals, list_problems
from entry_factory import make_entry
from faulty_stores import chat_on, said, user
from view_cases import DOCUMENT, HI, HO, RULES, THOUGHT, A, S, U, call, found, result, search, text

from chathistory import MessageView, open_store
from chathistory.errors import InvalidInput
from chathistory.log.state import ViewState
from chathistory.view import build_view
from chathistory.view.clean_message import clean_items
from chathistory.view.item import Item, Notes
from chathistory.view.leave_out import leave_out_refused
from chathistory.view.tool_references import drop_undefined_references


def make_entries(messages):
    return [
        make_entry(
            "message",
            message={name: message[name] for name in ("role", "content")},
            data={"response": {"stop_reason": message["stop"]}} if "stop" in message else {},
            position=position,
            surrogates=True,
        )
        for position, message in enumerate(copy.deepcopy(messages))
    ]


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    stored, sent, kept, repaired = RULES[name]
    view = build_view(make_entries(stored))
    assert list_problems(view.messages) == []
    if view.messages and name not in ("mixed turn", "text None of the SDK", "before a fallback"):
        refusals = list_fake_api_refusals(view.messages)
        assert [rule for rule in refusals if "field" not in rule and "block" not in rule] == []
    if sent is None:
        return
    assert view.messages == sent
    assert list(view.report.kept) == kept
    assert {repair.position for repair in view.report.repairs} == set(repaired)
    assert sorted({*kept, *view.report.dropped} - {-1}) == list(range(len(stored)))
    assert set(kept).isdisjoint(view.report.dropped)


@pytest.mark.parametrize("name", RULES)
def test_reports_quote_nothing_and_the_entries_stay_unchanged(name):
    stored = json.loads(json.dumps(RULES[name][0]).replace('"x"', '"SECRET"'))
    entries, before = make_entries(stored), make_entries(stored)
    view = build_view(entries)
    assert build_view(entries) == view
    assert [(e.message, e.data) for e in entries] == [(e.message, e.data) for e in before]
    assert "SECRET" not in repr(view)
    assert "SECRET" not in " ".join(repair.description for repair in view.report.repairs)


def test_an_empty_log_is_an_empty_view():
    assert build_view([]) == MessageView()


def test_fields_of_other_programs_are_not_sent():
    given = {"role": "user", "content": "a", "name": "Bob"}
    view = build_view([make_entry("message", message=given, position=0)])
    assert view.messages == [user("a")]
    assert [(each.position, each.description) for each in view.report.adjusted] == [
        (0, "fields other than role and content are left out")
    ]


def test_blocks_of_text_before_a_fallback_are_sent():
    fallback = {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}}
    content = [{"type": "text", "text": "b"}, fallback, {"type": "text", "text": "c"}]
    notes = Notes()
    [item] = clean_items([Item(1, {"role": "assistant", "content": content}, received=True)], notes)
    assert item.message["content"] == content
    assert notes.repairs == []


def test_a_cache_marker_in_a_block_of_an_unknown_type_is_not_sent():
    given = {"type": "hologram", "data": 1, "text": None, "cache_control": {"type": "ephemeral"}}
    notes = Notes()
    [item] = clean_items([Item(1, {"role": "assistant", "content": [given]}, received=True)], notes)
    assert item.message["content"] == [{"type": "hologram", "data": 1}]
    assert [each.description for each in notes.adjusted] == [
        "fields that the API does not accept are left out of a block"
    ]


def test_a_refused_reply_without_a_question_is_left_out_with_all_before_it():
    notes, call_item = Notes(), Item(0, {"role": "assistant", "content": [call("x")]})
    refused = Item(1, said("no"), stop_reason="refusal")
    assert leave_out_refused([call_item, refused], notes) == []
    assert [each.position for each in notes.repairs] == [1]


def test_references_stay_if_only_the_server_knows_the_tools_that_were_added():
    reference = {"type": "tool_reference", "tool_name": "f"}
    messages = [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": [reference]}]},
        {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "mcp_toolset"}}]},
    ]
    assert drop_undefined_references(messages, frozenset()) is messages
    assert drop_undefined_references(messages[:1], frozenset()) != messages[:1]


@pytest.mark.parametrize("known", [True, False])
def test_tools_that_a_search_found_and_the_request_does_not_define_are_left_out(known):
    references = [{"type": "tool_reference", "tool_name": name} for name in "fg"]
    found = {"type": "tool_search_tool_search_result", "tool_references": references}
    block = {"type": "tool_search_tool_result", "tool_use_id": "s", "content": found}
    messages = [said("a"), {"role": "assistant", "content": [block]}]
    kept = drop_undefined_references(messages, frozenset("fg") if known else frozenset("f"))
    assert (kept is messages) == known
    assert kept[1]["content"][0]["content"]["tool_references"] == references[: 2 if known else 1]
    assert len(references) == 2


def test_thinking_below_a_position_is_left_out():
    stored = [
        HI,
        A(THOUGHT, text()),
        HI,
        A(THOUGHT),
        A({"type": "redacted_thinking", "data": "d"}, text("y")),
        HI,
        A(THOUGHT, text("z")),
    ]
    view = build_view(make_entries(stored), state=ViewState(thinking_valid_from=6))
    assert view.messages == [HI, A(text()), HI, A(text("y")), HI, A(THOUGHT, text("z"))]
    assert view.report.dropped == (3,)
    assert {repair.position for repair in view.report.repairs} == {3}  # nothing of it was left
    assert view.report.thinking_stripped == 3


ODD_BLOCKS = {
    "text of a number": {"type": "text", "text": 5},
    "text of a list": {"type": "text", "text": ["a"]},
    "call without id": {"type": "tool_use", "name": "f", "input": {}},
    "call with a list as id": {"type": "tool_use", "id": [], "name": "f", "input": {}},
    "result without id": {"type": "tool_result", "content": "x"},
    "result with a list as id": {"type": "tool_result", "tool_use_id": [], "content": "x"},
    "server's call without id": {"type": "server_tool_use", "name": "web_search", "input": {}},
    "server's result with a dict as id": {"type": "web_search_tool_result", "tool_use_id": {}, "content": []},
    "result with texts as content": {"type": "tool_result", "tool_use_id": "a", "content": ["x"]},
    "result with a block without type": {"type": "tool_result", "tool_use_id": "a", "content": [{"text": "x"}]},
}


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("name", ODD_BLOCKS)
def test_an_invalid_block_is_refused_or_the_conversation_can_still_be_sent(name, role):
    """A stored block on which the view fails would make the conversation unusable permanently."""
    with open_store("memory:") as store:
        chat = chat_on(store)
        chat.append(user("hi"))
        try:
            chat.append([{"role": role, "content": [copy.deepcopy(ODD_BLOCKS[name])]}, said("ho"), user("on")])
        except InvalidInput:
            assert len(list(chat.entries())) == 1
            return
        assert chat.messages()[-1] == user("on")
        assert chat.state().totals.messages == 4


def test_both_checks_find_each_breach_of_a_rule():
    """The checks themselves work: both find each breach of a rule."""
    wrong = [
        [HO],
        [S, HI],
        [HI, A()],
        [user(" ")],
        [HI, A(call("a")), HI],
        [HI, A(call("a")), U(text(), result("a"))],
        [HI, A(call("a"))],
        [HI, U(result("a"))],
        [HI, A(call("a")), U(result("a"), result("a"))],
        [HI, HO, S],
        [HI, S, HI],
        [HI, A(found("s"))],
        [HI, A(DOCUMENT)],
    ]
    for messages in wrong:
        assert list_problems(messages) != []
        if messages != [HI, A()]:
            assert list_fake_api_refusals(messages) != []
    for messages in ([HI], [HI, HO, HI], [HI, A(call("a")), U(result("a"), text())], [HI, S, HO]):
        assert list_problems(messages) == []
        assert list_fake_api_refusals(messages) == []
    assert list_problems([HI, A(search("s")), HI]) != []
    assert not is_complete([HI, A(call("a"))])
