"""Context editing: the server clears old tool results and thinking from its copy, and the client's is left alone."""

from __future__ import annotations

import pytest
from rule_examples import MODEL, call, reply, result, search, text, user

from chathistory.testing import FakeMessagesAPI

BETAS = ["context-management-2025-06-27", "thinking-binding-controls-2026-08-01"]
THINKING = {"type": "thinking", "thinking": "Hm", "signature": ""}
LONG = "x" * 400


def tools(**more):
    return {"type": "clear_tool_uses_20250919", "trigger": {"type": "input_tokens", "value": 0}, **more}


def thoughts(**more):
    return {"type": "clear_thinking_20251015", **more}


def turns(count):
    return {"keep": {"type": "thinking_turns", "value": count}}


def uses(count):
    return {"type": "tool_uses", "value": count}


def worked(rounds, api, model=MODEL):
    """The messages of a conversation with so many tool calls, in which each reply has thinking."""
    client = api.client()
    messages = [user("Do it")]
    for number in range(rounds):
        message = client.messages.create(model=model, max_tokens=99, messages=messages)
        messages.append(reply(message.to_dict(mode="json")["content"]))
        messages.append(user([result(f"toolu_{number}", content=LONG)]))
    return messages


def reply_with_tool_call(options):
    number = len(options["messages"]) // 2
    named = {"name": "odd" if number % 2 else "even", "input": {"long": LONG}}
    return [THINKING, call(f"toolu_{number}") | named]


@pytest.fixture
def api():
    return FakeMessagesAPI(reply_with_tool_call)


def ask(api, messages, *edits, model=MODEL, **more):
    options = {"model": model, "max_tokens": 99, "messages": messages, "betas": BETAS, **more}
    return api.client().beta.messages.create(context_management={"edits": list(edits)}, **options)


def count(api, messages, *edits, model=MODEL):
    options = {"model": model, "messages": messages, "betas": BETAS}
    return api.client().beta.messages.count_tokens(context_management={"edits": list(edits)}, **options)


def applied(message):
    return message.to_dict()["context_management"]["applied_edits"]


def test_the_oldest_results_are_cleared_and_three_are_kept(api):
    messages = worked(5, api)
    plain, edited = ask(api, messages), ask(api, messages, tools())
    (report,) = applied(edited)
    assert (report["type"], report["cleared_tool_uses"]) == ("clear_tool_uses_20250919", 2)
    assert plain.usage.input_tokens - edited.usage.input_tokens == report["cleared_input_tokens"] > 2 * 400 / 4 - 40
    assert applied(plain) == []


def test_what_is_cleared_is_counted_before_and_after(api):
    messages = worked(5, api)
    (report,) = applied(ask(api, messages, tools()))
    counted = count(api, messages, tools())
    before = counted.context_management.original_input_tokens
    assert before - counted.input_tokens == report["cleared_input_tokens"]
    assert before == count(api, messages).input_tokens


CLEARED = {
    "keep one": (tools(keep=uses(1)), 4),
    "keep none": (tools(keep=uses(0)), 5),
    "keep all": (tools(keep=uses(9)), 0),
    "the trigger is not passed": (tools(trigger=uses(5)), 0),
    "the trigger is passed": (tools(trigger=uses(4)), 2),
    "too few tokens": (tools(trigger={"type": "input_tokens", "value": 90_000}), 0),
    "the default trigger": ({"type": "clear_tool_uses_20250919"}, 0),
    "some are spared": (tools(exclude_tools=["odd"], keep=uses(0)), 3),
    "too little to clear": (tools(clear_at_least={"type": "input_tokens", "value": 500}), 0),
    "enough to clear": (tools(clear_at_least={"type": "input_tokens", "value": 100}), 2),
}


@pytest.mark.parametrize(("edit", "cleared"), CLEARED.values(), ids=CLEARED)
def test_what_is_cleared_follows_the_edit(api, edit, cleared):
    reports = applied(ask(api, worked(5, api), edit))
    assert sum(report["cleared_tool_uses"] for report in reports) == cleared


def test_what_the_tools_were_called_with_is_cleared_where_wanted(api):
    messages = worked(5, api)
    sizes = [
        count(api, messages, tools(keep=uses(0), clear_tool_inputs=inputs)).input_tokens
        for inputs in (False, ["odd"], ["even"], True)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


def test_a_result_that_is_shorter_than_its_placeholder_stays(api):
    messages = [user(), reply([call()]), user([result(content="1")])]
    assert applied(ask(api, messages, tools(keep=uses(0)))) == []


def test_results_of_the_servers_own_tools_stay(api):
    hit = {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": LONG}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [hit]}
    messages = [user(), reply([search(), found, text()]), user()]
    assert applied(ask(api, messages, tools(keep=uses(0)))) == []


def test_old_thinking_is_cleared_and_the_rest_stays_valid(api):
    messages = worked(5, api)
    message = ask(api, messages, thoughts(**turns(2)))
    (report,) = applied(message)
    assert (report["type"], report["cleared_thinking_turns"]) == ("clear_thinking_20251015", 3)
    assert ask(api, messages).usage.input_tokens - message.usage.input_tokens == report["cleared_input_tokens"] > 0
    assert message.input_transformations == []
    after = [*messages, reply(message.to_dict(mode="json")["content"]), user([result("toolu_5")])]
    assert ask(api, after, thoughts(**turns(1))).input_transformations == []
    api.assert_extends()


KEPT = [
    (thoughts(), "claude-sonnet-5-5", 0),
    (thoughts(), "claude-haiku-5-5", 2),
    (thoughts(), "claude-haiku-4-5", 2),
    (thoughts(keep="all"), "claude-haiku-5-5", 0),
    (thoughts(keep={"type": "all"}), "claude-haiku-5-5", 0),
    (thoughts(**turns(1)), "claude-sonnet-5-5", 2),
    (thoughts(**turns(3)), "claude-sonnet-5-5", 0),
]


@pytest.mark.parametrize(("edit", "model", "cleared"), KEPT)
def test_how_much_thinking_is_kept_depends_on_the_model_where_nothing_is_said(edit, model, cleared):
    api = FakeMessagesAPI(reply_with_tool_call)
    reports = applied(ask(api, worked(3, api, model), edit, model=model))
    assert sum(report["cleared_thinking_turns"] for report in reports) == cleared


def test_edits_go_one_after_the_other_and_a_summary_sees_what_they_left(api):
    api = FakeMessagesAPI(reply_with_tool_call, smallest_trigger=1)
    messages = worked(5, api)
    left = count(api, messages, thoughts(**turns(1)), tools()).input_tokens
    full = count(api, messages).input_tokens
    betas = [*BETAS, "compact-2026-01-12"]
    for value, summary in ((left + 1, False), (left, True)):
        compact = {"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": value}}
        message = ask(api, messages, thoughts(**turns(1)), tools(), compact, betas=betas)
        assert [report["type"] for report in applied(message)] == [
            "clear_thinking_20251015",
            "clear_tool_uses_20250919",
        ]
        assert (message.content[0].type == "compaction") is summary
    assert left < full


def test_a_tool_result_is_not_cleared_below_a_trigger_that_clearing_thinking_has_reached(api):
    messages = worked(5, api)
    (report,) = applied(ask(api, messages, thoughts(**turns(1))))
    total = count(api, messages).input_tokens
    trigger = {"type": "input_tokens", "value": total - report["cleared_input_tokens"]}
    assert len(applied(ask(api, messages, thoughts(**turns(1)), tools(trigger=trigger)))) == 1
    trigger["value"] -= 1
    assert len(applied(ask(api, messages, thoughts(**turns(1)), tools(trigger=trigger)))) == 2


def test_clearing_costs_the_cache_from_there_on(api):
    messages = worked(5, api)
    marked = {"cache_control": {"type": "ephemeral"}}
    ask(api, messages, **marked)
    warm = ask(api, messages, **marked).usage
    cleared = ask(api, messages, tools(), **marked).usage
    assert warm.cache_read_input_tokens == count(api, messages).input_tokens
    assert cleared.cache_read_input_tokens < warm.cache_read_input_tokens


def test_a_stream_tells_of_the_edits_in_its_last_delta(api):
    messages = worked(5, api)
    with api.client().beta.messages.stream(
        model=MODEL, max_tokens=99, messages=messages, betas=BETAS, context_management={"edits": [tools()]}
    ) as stream:
        events = list(stream)
        final = stream.get_final_message()
    (delta,) = [event for event in events if event.type == "message_delta"]
    assert delta.context_management.applied_edits[0].cleared_tool_uses == 2
    assert final.context_management.applied_edits == delta.context_management.applied_edits


def test_edits_that_were_not_requested_are_not_reported(api):
    assert (
        "context_management"
        not in api.client().beta.messages.create(model=MODEL, max_tokens=99, messages=[user()], betas=BETAS).to_dict()
    )


def test_thinking_that_is_not_checked_is_not_dropped():
    api = FakeMessagesAPI("x", check_thinking=False)
    foreign = reply([{"type": "thinking", "thinking": "Hm", "signature": "of Claude itself"}, text()])
    short = ask(api, [user(), reply([text()]), user()]).usage.input_tokens
    assert ask(api, [user(), foreign, user()]).usage.input_tokens > short
