"""Thinking is bound to what it was thought after: what may be changed afterwards, and what may not."""

from __future__ import annotations

import anthropic
import pytest
from rule_examples import MODEL, call, found, reply, result, search, text, user

from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Reply

THINKING = {"type": "thinking", "thinking": "", "signature": ""}
TOOL = {"name": "f", "description": "F", "input_schema": {"type": "object"}}
DROP = {"thinking": {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}}
BETA = ["thinking-binding-controls-2026-08-01"]
MOVED = "bound to a different conversation"


class ThinkingChat:
    """A conversation in which each reply has thinking; `messages` may be edited between two turns."""

    def __init__(self, **setup):
        self.messages = []
        self.setup = {"system": "S", "tools": [TOOL], "model": MODEL, "max_tokens": 99} | setup
        self.api = FakeMessagesAPI(lambda body: [THINKING, text(f"Reply {len(body['messages'])}")])
        self.client = self.api.client()

    def say(self, words, **more):
        self.messages.append(user(words))
        message = self.client.beta.messages.create(messages=self.messages, **self.setup | more)
        self.messages.append(reply(message.to_dict(mode="json")["content"]))
        return message


@pytest.fixture
def chat():
    chat = ThinkingChat()
    for number in range(3):
        chat.say(f"Turn {number}")
    with chat.client:
        yield chat


def strip(message):
    message["content"] = [block for block in message["content"] if block["type"] != "thinking"]


def test_a_conversation_that_only_grows_goes_on(chat):
    chat.say("More")
    chat.api.assert_extends()


VALID = {
    "markers moved": lambda chat: chat.messages[2]["content"] == "Turn 1" and chat.messages.__setitem__(
        2, user([text("Turn 1", cache_control={"type": "ephemeral"})])),
    "thinking removed from the start": lambda chat: strip(chat.messages[1]),
    "more of it removed from the start": lambda chat: [strip(chat.messages[at]) for at in (1, 3)],
    "thinking removed from the end": lambda chat: strip(chat.messages[5]),
    "all thinking removed": lambda chat: [strip(chat.messages[at]) for at in (1, 3, 5)],
    "a cut, all thinking removed": lambda chat: [strip(chat.messages[at]) for at in (1, 3, 5)] and chat.messages.pop(0),
    "other limits": lambda chat: chat.setup.update(max_tokens=7, metadata={"user_id": "u"}),
    "keys in another order": lambda chat: chat.setup.update(tools=[dict(reversed(TOOL.items()))]),
    "the system prompt as a block": lambda chat: chat.setup.update(system=[text("S")]),
    "text put into an omitted block": lambda chat: chat.messages[1]["content"][0].update(thinking="Hm"),
}  # fmt: skip
INVALID = {
    "a word changed": lambda chat: chat.messages[0].update(content="Turn zero"),
    "the reply changed": lambda chat: chat.messages[1]["content"][1].update(text="Else"),
    "a cut": lambda chat: chat.messages.__delitem__(slice(2)),
    "a turn taken out": lambda chat: chat.messages.__delitem__(slice(2, 4)),
    "thinking taken from the middle": lambda chat: strip(chat.messages[3]),
    "another system prompt": lambda chat: chat.setup.update(system="T"),
    "no system prompt": lambda chat: chat.setup.pop("system"),
    "a tool added": lambda chat: chat.setup.update(tools=[TOOL, TOOL | {"name": "g"}]),
    "a tool with another description": lambda chat: chat.setup.update(tools=[TOOL | {"description": "G"}]),
    "text added to an earlier turn": lambda chat: chat.messages.insert(1, user("And")),
}


@pytest.mark.parametrize("change", VALID.values(), ids=VALID)
def test_what_may_be_changed(chat, change):
    change(chat)
    assert chat.say("More").stop_reason == "end_turn"


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID)
def test_what_may_not_be_changed(chat, change):
    change(chat)
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.say("More")
    shared = {name: value for name, value in chat.setup.items() if name not in ("max_tokens", "metadata")}
    with pytest.raises(anthropic.BadRequestError, match=MOVED):
        chat.client.messages.count_tokens(messages=chat.messages, **shared)


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID)
def test_what_was_changed_can_be_dropped_by_choice_and_is_reported(chat, change):
    assert chat.say("Before", **DROP, betas=BETA).input_transformations == []
    change(chat)
    message = chat.say("More", **DROP, betas=BETA)
    transformations = message.to_dict(mode="json")["input_transformations"]
    assert {(each["type"], each["reason"]) for each in transformations} == {
        ("thinking_dropped", "prefix_binding_mismatch")
    }
    for each in transformations:
        number, place = each["path"].removeprefix("messages.").split(".content.")
        assert chat.messages[int(number)]["content"][int(place)]["type"] == "thinking"
    again = chat.say("And on", **DROP, betas=BETA).to_dict(mode="json")["input_transformations"]
    assert again == transformations  # the reply made after the drop is sound, the rest stays dropped


def test_thinking_that_directly_follows_what_is_dropped_is_dropped_with_it():
    replies = [[THINKING, text("One")], [THINKING, THINKING, text("Two"), THINKING, text("Three")], "then"]
    ask = {"model": MODEL, "max_tokens": 9, "betas": BETA, **DROP}
    messages = []
    with FakeMessagesAPI(replies).client() as client:
        for words in ("A", "B"):
            messages.append(user(words))
            content = client.beta.messages.create(**ask, messages=messages).to_dict(mode="json")["content"]
            messages.append(reply(content))
        messages[3]["content"].pop(0)  # the next block lacks its predecessor, and so does the one after it
        transformations = client.beta.messages.create(**ask, messages=[*messages, user("C")]).input_transformations
    assert [each.path for each in transformations] == ["messages.3.content.0", "messages.3.content.2"]


def test_thinking_that_was_removed_and_restored_is_refused(chat):
    removed = chat.messages[5]["content"][0]
    strip(chat.messages[5])
    chat.say("Without it")
    chat.messages[5]["content"].insert(0, removed)
    with pytest.raises(anthropic.BadRequestError, match=r"messages\.7\.content\.0.*" + MOVED):
        chat.say("With it")


def test_thinking_of_another_model_is_ignored_and_good_again_on_return(chat):
    other = chat.say("Elsewhere", model="claude-opus-5-5", **DROP, betas=BETA).to_dict(mode="json")
    assert [each["reason"] for each in other["input_transformations"]] == ["model_binding_mismatch"] * 3
    chat.say("Back")
    chat.say("Elsewhere again", model="claude-opus-5-5")


def test_a_fork_with_the_same_beginning_keeps_its_thinking(chat):
    fork = ThinkingChat()  # a fake of its own, as after a restart
    with fork.client:
        fork.messages = chat.messages[:4]
        fork.say("Another way")


def test_text_alone_and_a_turn_in_two_messages_are_the_same_conversation(chat):
    chat.messages[0] = user([text("Turn 0")])
    chat.messages[1:2] = [reply([block]) for block in chat.messages[1]["content"]]
    chat.say("More")


def test_checks_can_be_left_out_for_histories_of_claude_itself():
    history = [user(), reply([THINKING | {"signature": "EqQBCgIYAhIM"}, text("Hello")]), user()]
    ask = {"model": MODEL, "max_tokens": 9, "messages": history}
    with (
        FakeMessagesAPI().client() as client,
        pytest.raises(anthropic.BadRequestError, match=r"Invalid `signature` in"),
    ):
        client.messages.create(**ask)
    with FakeMessagesAPI(check_thinking=False).client() as client:
        assert client.messages.create(**ask).content


def test_signatures_are_made_where_there_is_none_and_streamed_alike():
    reply_ = [{"type": "thinking", "thinking": "Hm"}, {"type": "redacted_thinking"}, text("Hello")]
    ask = {"model": MODEL, "max_tokens": 9, "messages": [user()]}
    with FakeMessagesAPI(reply_).client() as client:
        whole = client.messages.create(**ask).content
        with client.messages.stream(**ask) as stream:
            assert [block.to_dict() for block in stream.get_final_message().content] == [
                block.to_dict() for block in whole
            ]
        assert len(whole[0].signature) > 40
        assert len(whole[1].data) > 40
        assert client.messages.create(**ask | {"messages": [user(), reply(whole), user()]}).content
        moved = [user("Else"), reply(whole[1:]), user()]
        with pytest.raises(
            anthropic.BadRequestError, match=r"messages\.1\.content\.0: Invalid `signature` in `redacted_thinking`"
        ):
            client.messages.create(**ask | {"messages": moved})


def test_a_tool_round_keeps_its_thinking_and_a_finished_one_need_not():
    script = [
        [THINKING, text("Let me see"), THINKING, call("toolu_1")],
        [THINKING, call("toolu_2")],
        [THINKING, text("Done")],
        "then",
    ]
    api = FakeMessagesAPI(script)
    ask = {"model": MODEL, "max_tokens": 9, "tools": [TOOL]}
    messages = [user()]
    with api.client() as client:
        for name in ("toolu_1", "toolu_2"):
            content = client.messages.create(**ask, messages=messages).to_dict(mode="json")["content"]
            messages += [reply(content), user([result(name)])]
        lacking = [*messages[:-2], reply(messages[-2]["content"][1:]), messages[-1]]
        with pytest.raises(anthropic.BadRequestError, match=r"messages\.3\.content\.0: .*cannot be modified"):
            client.messages.create(**ask, messages=lacking)
        messages.append(reply(client.messages.create(**ask, messages=messages).to_dict(mode="json")["content"]))
        for message in messages[1::2]:
            strip(message)
        assert client.messages.create(**ask, messages=[*messages, user()]).content[0].text == "then"


def test_a_paused_turn_goes_on_and_its_parts_are_one_turn():
    paused = Reply(content=[THINKING, search()], stop_reason="pause_turn")
    api = FakeMessagesAPI([paused, [found(), THINKING, text("Found")], "then"])
    ask = {"model": MODEL, "max_tokens": 9}
    with api.client() as client:
        first = client.messages.create(**ask, messages=[user()])
        assert first.stop_reason == "pause_turn"
        second = client.messages.create(**ask, messages=[user(), reply(first.content)])
        parts = [user(), reply(first.content), reply(second.content), user("Thanks")]
        joined = [user(), reply([*first.content, *second.content]), user("Thanks")]
        assert client.messages.create(**ask, messages=parts).content[0].text == "then"
        api_two = FakeMessagesAPI("joined")
        with api_two.client() as other:
            assert other.messages.create(**ask, messages=joined).content[0].text == "joined"
    api.assert_extends()
