"""Everything that is accepted can be sent: messages of other programs are adjusted, or refused with their field."""

from __future__ import annotations

import base64
import gc
import io
import json
import re
from dataclasses import replace

import pytest
from anthropic import beta_tool
from anthropic.types import Message, TextBlock, ToolUseBlock
from ask_fake_api import CALL_1, PNG, find_refusal, judge, results, said, user
from entry_factory import make_entry

from chathistory import AsyncChatEngine, ChatEngine, Entry, History, open_store
from chathistory.engine.request import TextReplacedWarning
from chathistory.errors import InvalidInput
from chathistory.log.entry import make_message_entry
from chathistory.log.events import MessageAdded
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Reply
from chathistory.trimming import LastTurns
from chathistory.view import build_view

MODEL = "claude-sonnet-5-5"
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("look", "count")]
MARK = {"type": "ephemeral"}


@pytest.fixture
def store():
    with open_store("memory:") as store:
        yield store


@pytest.fixture
def chat(store):
    return History(store).conversation("c")


def call(id="toolu_1", given=None, **more):
    return {"type": "tool_use", "id": id, "name": "look", "input": {} if given is None else given, **more}


def result(id="toolu_1", **more):
    return {"type": "tool_result", "tool_use_id": id, **more}


def adjusted(chat):
    return [repair.description for repair in chat.view().report.adjusted]


# Keys of messages.


def test_other_keys_than_role_and_content_are_stored_and_never_sent(chat):
    more = {"id": "msg_1", "timestamp": 1.5, "name": "ada", "meta": {"a": [None]}}
    chat.append([{"role": "user", "content": "Hi"} | more, {"content": "Ho", "role": "assistant", "id": None}])
    first, second = chat.entries()
    assert first.message == user("Hi")
    assert (first.data["unsent_fields"], second.data["unsent_fields"]) == (more, {"id": None})
    assert chat.messages() == [user("Hi"), {"content": "Ho", "role": "assistant"}]
    assert judge(chat) == []
    assert chat.repair() == ()


def test_a_response_without_its_type_is_a_response(chat):
    usage = {"input_tokens": 3, "output_tokens": 4}
    saved = {"role": "assistant", "content": [{"type": "text", "text": "Ho"}], "model": MODEL, "usage": usage}
    chat.append([user("Hi"), saved | {"stop_reason": "end_turn"}])
    assert chat.state().totals.usage == usage
    assert chat.messages()[1] == {"role": "assistant", "content": saved["content"]}


@pytest.mark.parametrize("name", ["tool_calls", "function_call"])
def test_a_field_in_which_another_api_has_tool_calls_is_refused(chat, name):
    message = {
        "role": "assistant",
        "content": "",
        name: [{"id": "call_1", "function": {"name": "f", "arguments": "{}"}}],
    }
    with pytest.raises(InvalidInput, match=rf"message\.{name}"):
        chat.append(message)
    chat.append([user("Hi"), message | {name: None}, user("on")])
    assert judge(chat) == []


# Keys, nulls and types within blocks.

ADJUSTED = {
    "index of a stream": (said({"type": "text", "text": "x", "index": 0}), said({"type": "text", "text": "x"})),
    "extra in a source": (
        user(
            [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG, "detail": "low"}}]
        ),
        user([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]),
    ),
    "extra in a caller": (
        said(call(caller={"type": "direct", "index": 1})),
        said(call(caller={"type": "direct"})),
    ),
    "marker in a document": (
        user(
            [
                {
                    "type": "document",
                    "source": {"type": "content", "content": [{"type": "text", "text": "x", "cache_control": MARK}]},
                }
            ]
        ),
        user([{"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}}]),
    ),
    "null that must not be": (said(call(caller=None, toolset_name=None)), said(call())),
    "input as JSON": (said(call(given='{"a": [1, "b"]}')), said(call(given={"a": [1, "b"]}))),
    "input as empty text": (said(call(given="")), said(call())),
    "input None": (said(call() | {"input": None}), said(call())),
    "input missing": (said({"type": "tool_use", "id": "toolu_1", "name": "look"}), said(call())),
}


@pytest.mark.parametrize("name", ADJUSTED)
def test_a_message_that_can_be_adjusted_is_stored_unchanged_and_adjusted_and_reported_when_sent(chat, name):
    given, sent = ADJUSTED[name]
    chat.append([user("Hi"), given] if given["role"] == "assistant" else [given])
    stored = [entry.message for entry in chat.entries()]
    assert stored[-1] == given
    assert sent in chat.messages()
    assert adjusted(chat)
    assert not [repair for repair in chat.view().report.repairs if repair.position >= 0]
    assert judge(chat) == []


def cited(**more):
    location = {"type": "char_location", "cited_text": "x", "document_index": 0, "document_title": None}
    return {"type": "text", "text": "x", "citations": [location | {"start_char_index": 0, "end_char_index": 1} | more]}


def test_citations_are_sent_back_unchanged_without_fields_of_other_programs(chat):
    chat.append([user("Hi"), said(cited(file_id=None)), user("Hi"), said(cited(page=3))])
    assert chat.messages()[1] == said(cited(file_id=None))
    assert chat.messages()[3] == said(cited())
    assert judge(chat) == []


def test_markers_within_results_of_servers_are_left_out(chat):
    page = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}
    fetch = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_fetch", "input": {}}
    content = {"type": "web_fetch_result", "url": "u", "content": page | {"cache_control": MARK}}
    fetched = {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_1", "content": content}
    listed = {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "f", "server_name": "s", "input": {}}
    text = {"type": "text", "text": "x", "cache_control": MARK}
    got = {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "content": [text], "is_error": False}
    chat.append([user("Hi"), said(fetch, fetched, listed, got)])
    assert "cache_control" not in json.dumps(chat.messages())
    assert "cache_control" in json.dumps([entry.message for entry in chat.entries()])


REFUSED = {
    "content None": ({"role": "assistant", "content": None}, "message.content"),
    "image_url": (user([{"type": "image_url", "image_url": {"url": "u"}}]), "message.content[0].type"),
    "reasoning": (said({"type": "reasoning", "reasoning": "x"}), "message.content[0].type"),
    "output_text": (
        {"role": "assistant", "content": [{"type": "output_text", "text": "x", "annotations": []}]},
        "message.content[0].type",
    ),
    "unknown type in a user message": (user([{"type": "video"}]), "message.content[0].type"),
    "within a result": (user([result(content=[{"type": "input_text", "text": "x"}])]), "message.content[0].content[0]"),
    "MCP image": (user([{"type": "image", "data": PNG, "mimeType": "image/png"}]), "message.content[0].source"),
    "call in a user message": (user([call()]), "message.content[0]"),
    "result in an assistant message": (said(result(content="x")), "message.content[0]"),
    "input that is not JSON": (said(call(given='{"a": ')), "message.content[0].input"),
    "input as a list": (said(call(given=[1])), "message.content[0].input"),
    "input of infinities": (said(call(given='{"a": 1e999}')), "message.content[0].input"),
    "no name": (said(call() | {"name": ""}), "message.content[0].name"),
    "result as a number": (user([result(content=5)]), "message.content[0].content"),
    "jpg": (
        user([{"type": "image", "source": {"type": "base64", "media_type": "image/jpg", "data": PNG}}]),
        "message.content[0].source.media_type",
    ),
    "data URL": (
        user(
            [
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": f"data:image/png;base64,{PNG}"},
                }
            ]
        ),
        "message.content[0].source.data",
    ),
    "no source": (user([{"type": "document", "source": {"type": "path", "path": "x"}}]), "message.content[0].source"),
    "is_error as text": (user([result(is_error="no")]), "message.content[0].is_error"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_message_that_cannot_be_adjusted_is_refused_with_its_field(chat, name):
    message, field = REFUSED[name]
    with pytest.raises(InvalidInput) as caught:
        chat.append([user("Hi"), message])
    assert str(caught.value).startswith(field)
    assert chat.state() is None


# Replies are paid for, so they are stored unchanged.

ENVELOPE = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "stop_reason": "end_turn",
            "usage": {"input_tokens": 1, "output_tokens": 1}}  # fmt: skip


def reply(*blocks, **more):
    return ENVELOPE | {"content": list(blocks)} | more


def test_unknown_parts_of_a_reply_are_sent_back_unchanged(chat):
    new = {"type": "hologram", "frames": [None, 1], "depth": None}
    text = {"type": "text", "text": "x", "citations": None, "tone": "warm"}
    chat.append([user("Hi"), reply(new, text), user("Hi"), Message.construct(**reply(new, text))])
    assert chat.messages()[1]["content"] == chat.messages()[3]["content"] == [new, text]
    assert chat.view().report.repairs == chat.view().report.adjusted == ()


def test_a_known_field_of_a_reply_with_an_unknown_value_is_sent_back_unchanged(chat):
    """The API may be newer than the table of its types."""
    new = [
        call(caller={"type": "hologram"}),
        {"type": "thinking", "thinking": "so", "signature": ["a", "b"]},
    ]
    chat.append([user("Hi"), reply(*new, stop_reason="tool_use")])
    assert chat.messages()[1]["content"] == new
    assert chat.view().report.adjusted == ()


def test_thinking_without_its_text_is_sent_with_empty_text(chat):
    whole = {"type": "thinking", "signature": "EqQ="}
    text = {"type": "text", "text": "ok"}
    chat.append([user("Hi"), said(whole, text), user("Hi"), said(whole | {"thinking": None}, text)])
    assert [message["content"][0] for message in chat.messages()[1::2]] == [whole | {"thinking": ""}] * 2
    assert adjusted(chat) == [
        "thinking.thinking is missing, and sent as empty text",
        "thinking.thinking is null, and sent as empty text",
    ]
    assert judge(chat) == []


def test_additions_of_other_programs_to_a_reply_are_not_sent_back(chat):
    dumped = {"type": "text", "text": "x", "citations": None, "parsed_output": None, "index": 0, "extras": {"a": 1}}
    foreign = {"type": "reasoning", "summary": []}
    chat.append([user("Hi"), reply(dumped, foreign, call(caller=None, toolset_name=None), stop_reason="tool_use")])
    assert chat.messages()[1]["content"] == [{"type": "text", "text": "x", "citations": None}, call()]
    assert [repair.position for repair in chat.view().report.repairs] == [1, -1]
    assert judge(chat) == []


def test_a_dict_that_only_has_the_type_of_a_reply_is_accepted_and_sends_nothing_unknown(chat):
    half = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "hologram"}, {"type": "text", "text": "x", "a": 1}],
    }
    chat.append([user("Hi"), half])
    assert chat.messages()[1]["content"] == [{"type": "text", "text": "x"}]
    assert judge(chat) == []


def test_objects_of_the_sdk_in_a_dict_count_as_received(chat):
    block = TextBlock.construct(type="hologram", depth=3)
    chat.append(
        [
            user("Hi"),
            {"role": "assistant", "content": [block, ToolUseBlock(type="tool_use", id="a", name="f", input={})]},
        ]
    )
    assert chat.messages()[1]["content"][0] == {"type": "hologram", "depth": 3}
    chat.append({"role": "assistant", "content": [block, {"type": "hologram", "made": "by hand"}]})
    assert len(chat.messages()) == 3


SECRET = "my password is hunter2"


def test_a_key_that_may_be_private_text_is_not_quoted(chat):
    image = {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}}
    chat.append(user([image | {SECRET: 1, "mood": 2}]))
    assert adjusted(chat) == ["image.(a field) is not a field of the API", "image.mood is not a field of the API"]
    wrong = call(given={SECRET: {"size": float("nan")}})
    with pytest.raises(InvalidInput, match=r"content\[0\]\.input\.\(a field\)\.size: NaN"):
        chat.append(said(wrong))
    with pytest.raises(InvalidInput, match=r"content\[0\]\.input\.\(a field\)\.size: NaN"):
        chat.append(said(ToolUseBlock.construct(**wrong)))
    with pytest.raises(InvalidInput) as caught:
        chat.append(said(call(given={"x" * 41: {"n" * 40: b""}})))
    assert str(caught.value).startswith(f"message.content[0].input.(a field).{'n' * 40}: ")


def test_input_of_a_reply_that_is_not_json_is_sent_as_text_in_an_object(chat):
    chat.append([user("Hi"), reply(call(given='{"a": "half'), stop_reason="max_tokens")])
    assert chat.messages()[1]["content"] == [call(given={"INVALID_JSON": '{"a": "half'})]
    assert chat.view().report.repairs[0].position == 1
    assert judge(chat) == []


@pytest.mark.parametrize("levels", [190, 191, 500, 960, 5000])
def test_input_as_json_text_may_be_as_deep_as_input_as_an_object(chat, levels):
    given = '{"a":' * levels + "1" + "}" * levels
    chat.append([user("Hi"), reply(call(given=given), stop_reason="tool_use")])
    sent = chat.messages()[1]["content"][0]["input"]
    assert ("INVALID_JSON" in sent) == (levels > 190)
    assert judge(chat) == []
    if levels > 190:
        with pytest.raises(InvalidInput, match=r"content\[0\].input: must be an object"):
            chat.append({"role": "assistant", "content": [call(given=given)]})


def test_names_of_tools_that_the_api_refuses_are_cut_or_named(chat):
    chat.append(
        [user("Hi"), reply(call() | {"name": "x" * 300}, call("toolu_2") | {"name": ""}, stop_reason="tool_use")]
    )
    assert [block["name"] for block in chat.messages()[1]["content"]] == ["x" * 200, "unknown_tool"]
    assert judge(chat) == []


# Results of tools.


@pytest.mark.parametrize("value", [None, "", [], "done"])
def test_a_turn_continues_after_a_tool_that_returns_nothing(store, value):
    api = FakeMessagesAPI([Reply(content=[call()]), "Fine.", "Fine."])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=TOOLS)
    reply_with_call = engine.send("c", "Look.")
    assert engine.submit("c", reply_with_call, {"toolu_1": value}).text == "Fine."
    assert engine.send("c", "And?").text == "Fine."


def test_is_error_null_is_left_out(chat):
    chat.append([user("Hi"), said(call()), user([result(content="x", is_error=None)])])
    assert chat.messages()[2] == user([result(content="x")])
    assert judge(chat) == []


def test_a_result_names_the_toolset_of_its_call(chat):
    chat.append([user("Hi"), said(call(toolset_name="t")), user([result(content="x")])])
    assert chat.messages()[2] == user([result(content="x", toolset_name="t")])
    assert judge(chat) == []


# Ids of tool calls.

BAD_IDS = ["functions.look:0", "call_1|fc_2", "", "ü", "a b", "x" * 65, "toolu_p3_0", "call_<1>\n"]


@pytest.mark.parametrize("id", BAD_IDS)
def test_an_id_that_the_api_refuses_is_replaced_when_sent_and_the_caller_keeps_using_it(store, id):
    api = FakeMessagesAPI([Reply(content=[call(id)]), Reply(content=[call(id)]), "Done."])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=TOOLS)
    first = engine.send("c", "Look.")
    assert [block["id"] for block in first.tool_calls] == [id]
    second = engine.submit("c", first, {id: "one"})
    assert engine.submit("c", second, {id: "two"}).text == "Done."
    sent = api.requests[-1].body["messages"]
    assert [block["content"] for block in results(sent)] == ["one", "two"]
    assert all(request.rule is None for request in api.requests)
    api.assert_extends()
    assert id not in {
        block["id"] for message in sent for block in message["content"] if isinstance(block, dict) and "id" in block
    }


def test_an_id_that_comes_again_in_every_reply_leaves_nothing_out(store):
    api = FakeMessagesAPI([*(Reply(content=[call("call_1", {"n": n}), call("call_2")]) for n in range(3)), "Done."])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=TOOLS)
    said_last = engine.send("c", "Look.")
    for n in range(3):
        said_last = engine.submit("c", said_last, {"call_1": f"one {n}", "call_2": f"two {n}"})
    assert said_last.text == "Done."
    assert [block["content"] for block in results(api.requests[-1].body["messages"])] == [
        f"{which} {n}" for n in range(3) for which in ("one", "two")
    ]
    api.assert_extends()
    report = History(store).conversation("c").view().report
    assert report.repairs == ()
    assert len({repair.position for repair in report.adjusted}) == 4  # two rounds came with ids that were taken


def test_the_same_id_twice_in_one_reply(chat):
    chat.append(
        [
            user("Hi"),
            said(call("call_1"), call("call_1")),
            user([result("call_1", content="a"), result("call_1", content="b")]),
        ]
    )
    calls, answers = chat.messages()[1]["content"], chat.messages()[2]["content"]
    assert [block["id"] for block in calls] == [block["tool_use_id"] for block in answers] == ["call_1", "toolu_p1_1"]
    assert [block["content"] for block in answers] == ["a", "b"]
    assert judge(chat) == []


def tool_turns(chat, count, id="call_1"):
    for number in range(count):
        chat.append(
            [
                user(f"{number}"),
                said(call(id, {"n": number})),
                user([result(id, content=f"r{number}")]),
                said({"type": "text", "text": "ok"}),
            ]
        )


def ids_by_input(chat):
    return {block["input"]["n"]: block["id"] for message in chat.messages() for block in message["content"]
            if isinstance(block, dict) and block["type"] == "tool_use"}  # fmt: skip


def test_a_call_keeps_its_replaced_id_through_cuts_forks_copies_rewinds_forgetting_and_repair(store, chat):
    tool_turns(chat, 5)
    before = ids_by_input(chat)
    assert len(set(before.values())) == 5
    assert before[0] == "call_1"

    def check_ids(conversation):
        found = ids_by_input(conversation)
        assert found.items() <= before.items()
        assert judge(conversation) == []
        return set(found)

    fork = chat.fork("fork", at=12)
    assert check_ids(fork) == {0, 1, 2}
    chat.trim(LastTurns(3, 3))
    assert check_ids(chat) == {2, 3, 4}
    chat.trim(LastTurns(2, 2))
    assert check_ids(chat) == {3, 4}
    assert check_ids(chat.fork("after", at=None)) == {3, 4}
    with open_store("memory:") as other:
        History(store).copy_to(other)
        assert check_ids(History(other).conversation("c")) == {3, 4}
    chat.rewind(to=8)
    assert check_ids(chat) == {0, 1}
    fork.forget(before=4)
    assert check_ids(fork) == {1, 2}
    fork.fork("third", at=None)
    fork.append([user("x"), said(call("call_1", {"n": 9})), user("typed on")])
    before[9] = ids_by_input(fork)[9]
    assert before[9] not in {*before.values()} - {before[9]}
    assert fork.repair(dry_run=False)
    assert check_ids(fork) == {1, 2, 9}
    assert fork.repair() == ()


def test_a_repair_keeps_the_ids_of_the_caller(chat):
    chat.append(
        [
            user("Hi"),
            user(""),
            said(call("a.b"), call("a.b")),
            user([result("a.b", content="1"), result("a.b", content="2")]),
        ]
    )
    chat.append([user("on"), said(call("a.b"))])
    sent = chat.messages()[:-1]
    assert chat.repair(dry_run=False)
    assert chat.messages()[:-1] == sent
    chat.append(user([result("a.b", content="3")]))
    assert [block["content"] for block in results(chat.messages())][:2] == ["1", "2"]
    repaired = [block for entry in chat.entries() if entry.data.get("sent_ids") for block in entry.message["content"]]
    assert {block.get("id") or block.get("tool_use_id") for block in repaired if block["type"] != "text"} == {"a.b"}
    assert judge(chat) == []


def test_a_result_belongs_to_the_last_call_of_its_id(chat):
    chat.append(
        [
            user("Hi"),
            said(call("call_1")),
            user("typed on"),
            said(call("call_1")),
            user([result("call_1", content="late")]),
        ]
    )
    messages = chat.messages()
    assert messages[4]["content"][0] == result(messages[3]["content"][0]["id"], content="late")
    assert judge(chat) == []


def test_ids_of_the_servers_tools(chat):
    search = {"type": "server_tool_use", "id": "call.9", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "call.9", "content": []}
    chat.append([user("Hi"), said(search, found, search, found, {"type": "text", "text": "x"})])
    blocks = chat.messages()[1]["content"]
    assert [block.get("id") or block.get("tool_use_id") for block in blocks[:4]] == ["srvtoolu_p1_0"] * 2 + [
        "srvtoolu_p1_2"
    ] * 2
    assert judge(chat) == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_tool_runner_of_the_sdk_works_with_repeated_ids(store, asynchronous):
    @beta_tool
    def look(n: int) -> str:
        """Look."""
        return f"saw {n}"

    api = FakeMessagesAPI(
        [Reply(content=[call(id, {"n": n})]) for n, id in enumerate(["call_1", "call_1", "a.b", "call_1"])] + ["Done."]
    )
    if asynchronous:
        import asyncio

        from anthropic import beta_async_tool

        async def run():
            async def look_async(n: int) -> str:
                return f"saw {n}"

            tool = beta_async_tool(look_async, name="look", description="Look.")
            async with AsyncChatEngine(api.async_client(), store, model=MODEL) as engine:
                return await engine.run_tools("c", "Look.", tools=[tool])

        assert asyncio.run(run()).text == "Done."
    else:
        assert ChatEngine(api.client(), store, model=MODEL).run_tools("c", "Look.", tools=[look]).text == "Done."
    assert all(request.rule is None for request in api.requests)
    api.assert_extends()
    chat = History(store).conversation("c")
    stored = [
        block
        for entry in chat.entries()
        if entry.kind == "message"
        for block in entry.message["content"]
        if isinstance(block, dict)
    ]
    assert [block["id"] for block in stored if block["type"] == "tool_use"] == ["call_1", "call_1", "a.b", "call_1"]
    assert [block["tool_use_id"] for block in stored if block["type"] == "tool_result"] == [
        "call_1",
        "call_1",
        "a.b",
        "call_1",
    ]
    assert chat.messages()[:-1] == api.requests[-1].body["messages"]


# Fields of system messages.


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"clear_at": "bogus"}, "clear_at: must be next_user_message or never"),
        ({"clear_at": 5}, "clear_at: must be next_user_message or never"),
        ({"output_config": "high"}, "output_config: must be an object"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort: must be low or medium or high or xhigh or max"),
    ],
)
def test_a_wrong_field_of_a_system_message_is_refused_by_name(chat, fields, words):
    with pytest.raises(InvalidInput, match=re.escape(f"message.{words}")):
        chat.append([user("Hi"), {"role": "system", "content": "x"} | fields])


def test_fields_of_a_system_message_are_adjusted(store, chat):
    system = {"role": "system", "content": "x"}
    chat.append([user("Hi"), system | {"clear_at": None, "output_config": None}])
    chat.append(system | {"output_config": {"effort": "low", "x": 1}})
    assert chat.messages()[1:] == [system, system | {"output_config": {"effort": "low"}}]
    assert adjusted(chat) == [
        "system.clear_at is null",
        "system.output_config is null",
        "system.output_config.x is not a field of the API",
    ]


def test_wrong_fields_of_a_system_message_that_an_earlier_version_stored_are_not_sent():
    fields = {"clear_at": 5, "output_config": {"effort": "huge"}}
    entries = [
        replace(make_message_entry(user("Hi")), position=0),
        make_entry("message", message={"role": "system", "content": "x", **fields}, position=1),
    ]
    found = build_view(entries)
    assert found.messages[1] == {"role": "system", "content": "x", "output_config": {}}
    assert [repair.description for repair in found.report.repairs] == [
        "left out: clear_at must be next_user_message or never",
        "left out: output_config.effort must be low or medium or high or xhigh or max",
    ]


@pytest.mark.parametrize("betas", [None, ["mid-conversation-output-config-2027-01-01"]])
def test_the_engine_sends_the_betas_of_a_system_messages_fields(store, chat, betas):
    chat.append(
        [user("Hi"), {"role": "system", "content": "x", "clear_at": "never", "output_config": {"effort": "low"}}]
    )
    api = FakeMessagesAPI()
    options = {"betas": betas} if betas else {}
    ChatEngine(api.client(), store, model=MODEL, options=options).send("c", "Well?")
    sent = api.requests[-1].headers["anthropic-beta"].split(",")
    assert sorted(sent) == sorted(
        [
            "mid-conversation-system-clear-at-2026-08-21",
            *(betas or ["mid-conversation-output-config-2026-07-01"]),
        ]
    )


# The request around the messages.


def marked(count):
    return [{"type": "text", "text": f"part {number}", "cache_control": MARK} for number in range(count)]


@pytest.mark.parametrize("count", range(5))
def test_the_engine_sets_no_cache_marker_if_the_caller_has_set_four(store, count):
    api = FakeMessagesAPI()
    tools = [TOOLS[0] | {"cache_control": MARK}] if count else []
    engine = ChatEngine(
        api.client(), store, model=MODEL, system=marked(count - 1) if count > 1 else "x", tools=tools or None
    )
    engine.send("c", "Hi")
    assert ("cache_control" in api.requests[-1].body) == (count < 4)
    engine.send("c", "Hi again")


def references(*names):
    return user([result(content=[{"type": "tool_reference", "tool_name": name} for name in names])])


def test_a_reference_to_a_tool_that_is_not_defined_is_left_out_and_reported(store, chat):
    chat.append([user("Find."), said(call()), references("look", "gone")])
    assert len(chat.messages()[2]["content"][0]["content"]) == 2  # the tools of the request are not known
    built = chat.view(tools=TOOLS)
    assert built.messages[2] == references("look")
    assert [repair.position for repair in built.report.repairs] == [2]
    assert chat.messages(tools=["other"])[2] == user([result()])
    assert chat.messages(tools=[{"type": "mcp_toolset", "mcp_server_name": "s"}]) == chat.messages()
    api = FakeMessagesAPI()
    ChatEngine(api.client(), store, model=MODEL, tools=TOOLS).resume("c")
    assert api.requests[-1].body["messages"][2] == references("look")


def test_a_lone_surrogate_in_the_setup_is_replaced_with_a_warning(store):
    tool = {"name": "look", "description": "half \ud800", "input_schema": {"type": "object"}}
    api = FakeMessagesAPI([Reply(content=[call(given={"n": 1})]), "Done.", "Done."])
    with pytest.warns(TextReplacedWarning) as warned:
        engine = ChatEngine(
            api.client(),
            store,
            model=MODEL,
            system="a \udc00",
            tools=[tool],
            options={"metadata": {"user_id": "\ud800"}},
        )
    assert {str(each.message).partition(":")[0] for each in warned} == {"system", "tools", "options"}
    first = engine.send("c", "Hi")
    assert api.requests[-1].body["system"] == "a \ufffd"
    assert api.requests[-1].body["tools"][0]["description"] == "half \ufffd"
    engine.submit("c", first, {"toolu_1": "x \ud800"})
    assert engine.count_tokens("c", "half \udfff") > 0

    @beta_tool(description="half \ud800")
    def look(n: int) -> str:
        return str(n)

    with pytest.warns(TextReplacedWarning):
        engine.run_tools("d", "Hi", tools=[look])
    assert api.requests[-1].body["tools"][0]["description"] == "half \ufffd"


# Files.


def attached(data, kind="image", media_type="image/png"):
    return user([{"type": kind, "source": {"data": data, "type": "base64", "media_type": media_type}}])


def test_paths_and_open_files_are_read_and_encoded(chat, tmp_path):
    path = tmp_path / "pixel.png"
    path.write_bytes(base64.b64decode(PNG))

    class Named:
        def __fspath__(self):
            return str(path)

    with path.open("rb") as file:
        for data in (path, Named(), file, io.BytesIO(base64.b64decode(PNG))):
            chat.append(attached(data))
    assert chat.messages() == [attached(PNG)] * 4
    chat.append(attached(path, "document", "application/pdf"))
    assert judge(chat) == []


def test_a_file_that_cannot_be_read_is_refused_with_its_field(chat, tmp_path):
    empty, closed = tmp_path / "empty", io.BytesIO(b"x")
    empty.touch()
    closed.close()
    for data in (tmp_path / "none", tmp_path, io.StringIO("text"), empty, closed, b"bytes"):
        with pytest.raises(InvalidInput) as caught:
            chat.append(attached(data))
        assert str(caught.value).startswith("message.content[0].source.data: ")
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InvalidInput, match=r"message\.content\[0\]\.text"):
        chat.append(user([{"type": "text", "text": tmp_path}]))


def test_a_file_for_asyncio_is_refused_without_a_warning(chat):
    """Its `read` returns a coroutine, of which Python would warn that it was never awaited."""

    class AsyncFile:
        async def read(self):
            return b"x"

    with pytest.raises(InvalidInput, match=r"must be opened for reading bytes"):
        chat.append(attached(AsyncFile()))
    gc.collect()


def test_a_file_is_sent_by_an_engine(store, tmp_path):
    path = tmp_path / "pixel.png"
    path.write_bytes(base64.b64decode(PNG))
    api = FakeMessagesAPI()
    ChatEngine(api.client(), store, model=MODEL).send("c", attached(path)["content"])
    assert api.requests[-1].body["messages"] == [attached(PNG)]


# Forks.


def test_a_fork_at_an_open_call_without_its_thinking_is_refused(store):
    thought = {"type": "thinking", "thinking": "", "signature": ""}
    api = FakeMessagesAPI(["Hello.", Reply(content=[thought, call()]), "Done."])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=TOOLS)
    engine.send("c", "Hi")
    reply_with_call = engine.send("c", "Look.")
    engine.submit("c", reply_with_call, {"toolu_1": "x"})
    chat = History(store).conversation("c")
    chat.state()
    chat.forget(before=3)
    with pytest.raises(InvalidInput, match="cannot fork at position 5, within a tool turn"):
        chat.fork("open", at=reply_with_call.position + 1)
    assert History(store).conversation("open").state() is None
    for at in (reply_with_call.position, None):
        fork = chat.fork(f"at {at}", at=at)
        assert judge(fork) == []


# Entries of an earlier version or of another program.


def test_any_content_of_an_old_log_can_be_sent():

    odd = [
        user(
            [
                {"type": "image_url", "image_url": "u"},
                call(),
                {"type": "text", "text": 5},
                {"type": "text", "text": "x"},
            ]
        ),
        said(
            {"type": "reasoning"}, {"type": "hologram"}, call("a.b", '{"a": 1}', index=0), {"type": "redacted_thinking"}
        ),
        user([result("a.b", content=None, is_error=None)]),
        said(
            {"type": "compaction", "content": ""},
            call("a.b") | {"name": ""},
            {"type": "text", "text": "x", "citations": 5},
        ),
    ]
    built = build_view([Entry(MessageAdded(message), position=position) for position, message in enumerate(odd)])
    assert find_refusal([*built.messages, user("And now?")]) == []
    assert len(built.messages) == 4  # the last call is left out because its name is empty


def test_repair_does_not_report_a_field_that_only_has_another_form(chat):
    chat.append(
        [user("Hi") | {"id": 1}, CALL_1, user([result("call_1", content="x")]), said({"type": "text", "text": "ok"})]
    )
    chat.append(
        [
            user("Hi"),
            CALL_1,
            user([result("call_1", content="x", is_error=None)]),
            said({"type": "text", "text": "x", "index": 0}),
        ]
    )
    assert len(chat.view().report.adjusted) >= 4
    assert chat.repair() == ()
    assert chat.view().report.repairs == ()
