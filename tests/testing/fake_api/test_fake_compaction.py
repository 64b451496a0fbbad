"""A summary takes the place of messages: on demand with a signature, or at a threshold; the other thinking stays."""

from __future__ import annotations

import asyncio

import anthropic
import pytest
from rule_examples import MODEL, call, reply, result, text, user

from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Paused, Raw, Reply

THINKING = {"type": "thinking", "thinking": "", "signature": ""}
TOOL = {"name": "f", "description": "F", "input_schema": {"type": "object"}}
ON_DEMAND = "compact-2026-09-04"
AT_THRESHOLD = "compact-2026-01-12"
CONTROLS = "thinking-binding-controls-2026-08-01"
MOVED = "bound to a different conversation"
DROP = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
NOTHING = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def reply_with_thinking(body):
    return [THINKING, text(f"Reply {len(body['messages'])}")]


class ThinkingChat:
    """A conversation in which each reply has thinking, sent as the tests please."""

    def __init__(self, replies=reply_with_thinking, *, turns=4, betas=(ON_DEMAND, CONTROLS), **options):
        self.messages = []
        self.setup = {"system": "S", "tools": [TOOL], "model": MODEL, "max_tokens": 99, "betas": list(betas)}
        self.api = FakeMessagesAPI(replies, **options)
        self.client = self.api.client()
        for number in range(turns):
            self.say(f"Turn {number}")

    def ask(self, messages, **more):
        return self.client.beta.messages.create(messages=messages, **self.setup | more)

    def say(self, words, **more):
        self.messages.append(user(words))
        message = self.ask(self.messages, **more)
        self.messages.append(said(message))
        return message

    def compact(self, count=None, **more):
        """Swap the first messages for their summary."""
        summary = self.ask(self.messages[:count], compaction={"type": "summarize"}, **more)
        self.messages = [said(summary), *self.messages[len(self.messages[:count]) :]]
        return summary


def said(message):
    return reply(message.to_dict(mode="json")["content"])


def thoughts(message):
    content = message["content"]
    return [] if isinstance(content, str) else [block for block in content if block["type"] == "thinking"]


def stripped(message):
    return (
        reply([block for block in message["content"] if block["type"] != "thinking"]) if thoughts(message) else message
    )


# --- on demand


def test_a_summary_comes_alone_signed_and_counted_apart():
    chat = ThinkingChat(summary="So far: four turns.")
    counted = chat.client.messages.count_tokens(messages=chat.messages[:-1], model=MODEL, system="S", tools=[TOOL])
    summary = chat.compact()
    (block,) = summary.content
    assert (block.type, block.content, summary.stop_reason) == ("compaction", "So far: four turns.", "compaction")
    assert block.signature
    assert NOTHING.items() <= summary.usage.to_dict().items()
    (made,) = summary.usage.iterations
    assert made.type == "compaction"
    assert made.input_tokens > counted.input_tokens
    assert made.output_tokens > 0


def test_a_conversation_goes_on_from_its_summary_and_costs_less():
    chat = ThinkingChat(summary="So far")
    before = chat.say("More").usage.input_tokens
    chat.compact()
    assert chat.say("And on").usage.input_tokens < before / 2
    chat.say("Further")
    chat.api.assert_extends()


def test_the_kept_messages_keep_their_thinking():
    chat = ThinkingChat()
    chat.compact(4)
    kept = [message for message in chat.messages if thoughts(message)]
    assert len(kept) == 2
    message = chat.say("More", thinking=DROP | {"block_binding": {"prefix_mismatch_behavior": "error"}})
    assert message.input_transformations == []
    chat.api.assert_extends()


def test_compacting_again_keeps_the_thinking_that_is_older_than_both_summaries():
    chat = ThinkingChat(turns=6)
    for count in (4, 3, 3):  # the second and third begin with the summary before
        chat.compact(count)
        chat.say("More")
    assert sum(len(thoughts(message)) for message in chat.messages) >= 3
    assert chat.say("And on").input_transformations == []
    chat.api.assert_extends()


def test_thinking_after_a_summary_is_bound_to_it():
    chat = ThinkingChat()
    before = list(chat.messages)
    chat.compact()
    chat.say("More")
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.ask([*chat.messages[1:], user("The summary left out")])
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.ask([*before, *chat.messages[1:], user("The summarized messages put back")])


def skip(chat):
    del chat.messages[1:3]


def insert(chat):
    chat.messages[1:1] = [user("In between"), reply("Yes")]


def change(chat):
    chat.messages[1]["content"] += "!"


def describe(chat):
    chat.setup["tools"] = [TOOL | {"description": "G"}]


@pytest.mark.parametrize("spoil", [skip, insert, change, describe])
def test_kept_thinking_is_lost_if_what_is_kept_is_not_what_followed(spoil):
    chat = ThinkingChat()
    chat.compact(4)
    spoil(chat)
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.say("More")


def test_another_system_prompt_on_the_request_for_the_summary_loses_it_too():
    chat = ThinkingChat()
    chat.messages[:4] = map(stripped, chat.messages[:4])
    chat.compact(4, system="T")
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.say("More")


def test_a_tool_whose_loading_is_deferred_may_come_and_go():
    chat = ThinkingChat()
    chat.compact(4)
    chat.setup["tools"] = [TOOL, TOOL | {"name": "later", "defer_loading": True}]
    assert chat.say("More").input_transformations == []


def test_a_first_kept_message_of_the_role_of_the_last_summarized_one_would_be_merged():
    chat = ThinkingChat(turns=1)
    chat.messages += [user("One"), user("Two")]
    chat.messages.append(said(chat.ask(chat.messages)))
    chat.compact(3)
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.say("More")


def test_a_system_message_between_a_summary_and_what_is_kept_loses_the_thinking():
    chat = ThinkingChat()
    chat.compact(5)
    (block,) = chat.messages[0]["content"]
    chat.messages[0] = user([block])
    assert chat.say("More").input_transformations == []
    chat.messages.insert(1, {"role": "system", "content": "Be brief"})
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.say("And on")


def test_what_is_kept_may_not_begin_with_a_system_message_that_was_there_before():
    chat = ThinkingChat(turns=1)
    chat.messages += [user("More"), {"role": "system", "content": "Be brief"}]
    chat.messages.append(said(chat.ask(chat.messages)))
    chat.compact(3)
    (block,) = chat.messages[0]["content"]
    chat.messages[0] = user([block])
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.say("And on")


def test_a_model_whose_thinking_is_not_bound_carries_none_over():
    chat = ThinkingChat()
    chat.compact(4, model="claude-opus-4-8")
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.say("More")


def test_dropped_thinking_is_reported_and_not_counted():
    chat = ThinkingChat()
    chat.compact(4)
    change(chat)
    bare = chat.ask([*map(stripped, chat.messages), user("More")])
    message = chat.say("More", thinking=DROP)
    assert [(each.type, each.path, each.reason) for each in message.input_transformations] == [
        ("thinking_dropped", "messages.2.content.0", "prefix_binding_mismatch"),
        ("thinking_dropped", "messages.4.content.0", "prefix_binding_mismatch"),
    ]
    assert message.usage.input_tokens == bare.usage.input_tokens


def test_dropped_thinking_is_not_reported_without_its_beta():
    assert "input_transformations" not in ThinkingChat(betas=[ON_DEMAND]).say("More").to_dict()


def test_a_summary_may_go_before_the_words_of_the_user():
    chat = ThinkingChat(turns=1)
    chat.compact()
    (block,) = chat.messages.pop(0)["content"]
    chat.messages = [user([block, text("One message")])]
    chat.messages.append(said(chat.ask(chat.messages)))
    chat.say("And on")
    chat.api.assert_extends()


def test_a_summary_may_be_sent_alone_and_first_where_the_user_must_be():
    chat = ThinkingChat(strict_first_role=True)
    chat.compact()
    assert chat.ask(chat.messages).stop_reason == "end_turn"


def test_tool_results_are_summarized_with_their_calls():
    chat = ThinkingChat([[call()], "Done", "After"], turns=0)
    chat.say("Do it")
    with pytest.raises(anthropic.types.CompactionIncompleteTurnError):
        chat.compact()
    chat.say([result()])
    chat.compact()
    assert chat.say("And?").content[0].text == "After"


def test_counting_ignores_the_wish_for_a_summary():
    chat = ThinkingChat([[call()]], turns=1)
    chat.messages.append(user([result()]))
    counted = chat.client.beta.messages.count_tokens(
        messages=chat.messages, model=MODEL, betas=[ON_DEMAND], compaction={"type": "summarize"}
    )
    assert counted.input_tokens > 0
    assert "context_management" not in counted.to_dict()


SUMMARIES = {
    "no summary": (Reply(content=[], stop_reason="max_tokens"), "max_tokens", []),
    "no text": (Reply(content=""), "end_turn", []),
    "a refusal": (Reply(content=[], stop_reason="refusal"), "refusal", []),
    "a function": (lambda body: f"{len(body['messages'])} messages", "compaction", ["8 messages"]),
    "no option": (None, "compaction", ["[fake reply, no model] Summary of 8 messages"]),
}


@pytest.mark.parametrize(("summary_option", "stop_reason", "texts"), SUMMARIES.values(), ids=SUMMARIES)
def test_what_replaces_a_summary_can_be_set(summary_option, stop_reason, texts):
    chat = ThinkingChat(summary=summary_option)
    summary = chat.ask(chat.messages, compaction={"type": "summarize"})
    assert (summary.stop_reason, [block.content for block in summary.content]) == (stop_reason, texts)
    assert summary.usage.iterations[0].input_tokens > 0


def test_a_list_of_summaries_is_used_one_by_one_and_failures_are_those_of_the_sdk():
    chat = ThinkingChat(summary=[Failure(529, code="compaction_unavailable"), Raw(), "First"])
    with pytest.raises(anthropic.types.CompactionUnavailableError):
        chat.compact()
    assert isinstance(chat.ask(chat.messages, compaction={"type": "summarize"}), str)
    assert chat.compact().content[0].content == "First"
    with pytest.raises(anthropic.InternalServerError, match="used up"):
        chat.compact()


def test_a_streamed_summary_comes_whole():
    chat = ThinkingChat()
    with chat.client.beta.messages.stream(
        messages=chat.messages, compaction={"type": "summarize"}, **chat.setup
    ) as stream:
        events = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert events.count("content_block_start") == events.count("content_block_stop") == 1
    assert "content_block_delta" not in events
    assert said(streamed) == said(chat.ask(chat.messages, compaction={"type": "summarize"}))
    assert streamed.usage.iterations[0].input_tokens > 0


def test_the_asynchronous_client_and_a_socket_compact_too():
    api = FakeMessagesAPI(reply_with_thinking)

    async def run(client):
        history = [user()]
        body = {"model": MODEL, "max_tokens": 99, "betas": [ON_DEMAND]}
        async with client:
            history.append(said(await client.beta.messages.create(messages=history, **body)))
            summary = await client.beta.messages.create(messages=history, compaction={"type": "summarize"}, **body)
            return await client.beta.messages.create(messages=[said(summary), user("And?")], **body)

    with api.serve() as url:
        over_socket = anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0)
        for client in (api.async_client(), over_socket):
            assert asyncio.run(run(client)).stop_reason == "end_turn"


def test_the_runner_of_the_sdk_compacts_between_two_turns():
    @anthropic.beta_tool
    def f() -> str:
        """Do it."""
        return "done"

    api = FakeMessagesAPI([[call()], "Fine"], summary="So far")
    runner = api.client().beta.messages.tool_runner(
        model=MODEL, max_tokens=99, messages=[user("Do it")], tools=[f], betas=[ON_DEMAND], thread=False
    )
    seen = []
    for message in runner:
        seen.append(message.stop_reason)
        if len(seen) == 1:
            runner.compact_before_next_turn()
    assert seen == ["tool_use", "compaction", "end_turn"]
    assert api.requests[-1].body["messages"][0]["content"][0]["type"] == "compaction"
    api.assert_extends()


def test_a_swap_that_leaves_something_out_is_no_extension():
    chat = ThinkingChat()
    chat.compact(4)
    chat.messages = list(map(stripped, chat.messages))
    del chat.messages[1:3]
    chat.say("More")
    with pytest.raises(AssertionError, match=r"messages\.4"):
        chat.api.assert_extends()


# --- at a threshold


def edit(value=300, **more):
    trigger = {"type": "input_tokens", "value": value}
    return {"edits": [{"type": "compact_20260112", "trigger": trigger, **more}]}


def long_chat(value=300, turns=8, replies=reply_with_thinking, **options):
    """Return a chat that was just compacted at a threshold (thinking adds about 50 tokens per turn)."""
    chat = ThinkingChat(
        replies, turns=0, betas=[AT_THRESHOLD, CONTROLS], smallest_trigger=1, summary="So far", **options
    )
    chat.setup["context_management"] = edit(value)
    for number in range(turns):
        chat.say(f"Turn {number}")
        if chat.messages[-1]["content"][0]["type"] == "compaction":
            return chat
    raise AssertionError


def test_a_reply_begins_with_a_summary_once_the_threshold_is_reached():
    chat = long_chat()
    made = chat.api.requests[-1].reply
    assert [block["type"] for block in made["content"]] == ["compaction", "thinking", "text"]
    assert made["content"][0] == {"type": "compaction", "content": "So far"}
    summary, message = made["usage"]["iterations"]
    assert (summary["type"], message["type"]) == ("compaction", "message")
    assert summary["input_tokens"] >= 300 > message["input_tokens"]
    assert {name: made["usage"][name] for name in NOTHING} == {name: message[name] for name in NOTHING}
    earlier = [each.reply["usage"]["iterations"] for each in chat.api.requests[:-1]]
    assert all(each["input_tokens"] < 300 and each["type"] == "message" for (each,) in earlier)


@pytest.mark.parametrize("keep", [True, False], ids=["all messages kept", "those before the summary dropped"])
def test_what_stands_before_the_summary_no_longer_counts(keep):
    chat = long_chat()
    if not keep:
        chat.messages = chat.messages[-1:]
    message = chat.say("More")
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.usage.input_tokens < 300
    assert message.input_transformations == []
    chat.api.assert_extends()


def test_both_ways_have_the_same_count():
    chat = long_chat()
    setup = {name: value for name, value in chat.setup.items() if name != "max_tokens"}
    counts = [
        chat.client.beta.messages.count_tokens(messages=[*messages, user("More")], **setup)
        for messages in (chat.messages, chat.messages[-1:])
    ]
    assert counts[0].input_tokens == counts[1].input_tokens == counts[1].context_management.original_input_tokens


def test_turns_that_are_put_back_after_the_summary_lose_their_thinking():
    chat = long_chat()
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.ask([*chat.messages[-1:], *chat.messages[:2], user("More")])


def test_it_can_be_compacted_many_times():
    chat = long_chat()
    for number in range(20):
        chat.say(f"More {number}")
    summaries = [
        message for message in chat.messages if message["content"][0] == {"type": "compaction", "content": "So far"}
    ]
    assert len(summaries) > 2
    chat.api.assert_extends()


def test_it_can_pause_after_the_summary():
    chat = ThinkingChat(turns=2, betas=[AT_THRESHOLD], smallest_trigger=1)
    chat.setup["context_management"] = edit(1, pause_after_compaction=True)
    paused = chat.say("More")
    assert (paused.stop_reason, [block.type for block in paused.content]) == ("compaction", ["compaction"])
    assert (paused.usage.input_tokens, [each.type for each in paused.usage.iterations]) == (0, ["compaction"])
    chat.setup["context_management"] = edit(1000)
    assert chat.ask(chat.messages).content[1].text == "Reply 6"


def test_a_summary_that_fails_changes_nothing():
    chat = ThinkingChat(turns=2, betas=[AT_THRESHOLD], smallest_trigger=1, summary=Reply(content=[]))
    chat.setup["context_management"] = edit(1)
    message = chat.say("More")
    assert said(message)["content"][0] == {"type": "compaction", "content": None}
    before, after = message.usage.iterations
    assert before.input_tokens == after.input_tokens
    chat.setup["context_management"] = edit(1000)
    chat.say("And on")
    chat.api.assert_extends()


def test_a_failure_in_place_of_the_summary_is_the_answer():
    chat = ThinkingChat(
        turns=1, betas=[AT_THRESHOLD], smallest_trigger=1, summary=[Failure(529), Paused("So far", after=0)]
    )
    chat.setup["context_management"] = edit(1)
    with pytest.raises(anthropic.APIStatusError) as caught:
        chat.say("More")
    assert caught.value.status_code == 529
    assert chat.ask(chat.messages).content[0].content == "So far"  # a summary is a part of the reply and does not wait


def test_the_stream_of_a_summary_at_a_threshold_has_one_delta_and_keeps_thinking_valid():
    chat = ThinkingChat(turns=2, betas=[AT_THRESHOLD, CONTROLS], smallest_trigger=1)
    chat.setup["context_management"] = edit(1)
    chat.messages.append(user("More"))
    with chat.client.beta.messages.stream(messages=chat.messages, **chat.setup) as stream:
        deltas = [event.delta for event in stream if event.type == "content_block_delta"]
        chat.messages.append(said(stream.get_final_message()))
    assert [delta.content for delta in deltas if delta.type == "compaction_delta"] == [
        "[fake reply, no model] Summary of 5 messages"
    ]
    assert chat.messages[-1]["content"][0]["encrypted_content"] is None  # the SDK adds it to what it streams
    chat.setup["context_management"] = edit(1000)
    assert chat.say("And on").input_transformations == []


def test_the_default_trigger_is_that_of_the_api():
    chat = ThinkingChat(turns=0, betas=[AT_THRESHOLD])
    chat.setup["context_management"] = {"edits": [{"type": "compact_20260112"}]}
    assert [block.type for block in chat.say("x" * 590_000).content] == ["thinking", "text"]
    assert [block.type for block in chat.say("x" * 20_000).content] == ["compaction", "thinking", "text"]
