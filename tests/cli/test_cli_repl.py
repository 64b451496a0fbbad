"""Talking in a real terminal, with a fake behind a real socket where timing matters."""

from __future__ import annotations

import signal
from contextlib import contextmanager

from chathistory import ChatEngine
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Paused, Reply

KEY = "sk-not-a-key"


@contextmanager
def served(api: FakeMessagesAPI):
    with api.serve() as url:
        yield {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY}


def kinds(shelf, name: str) -> list[str]:
    with shelf() as history:
        return [entry.kind for entry in history.conversation(name).entries()]


def test_a_talk_is_gone_on_with_in_another_process(terminal, run):
    first = terminal("chat", "--fake")
    first.expect("new conversation ", "/help")
    first.say("hello there")
    first.expect("fake", "You said: hello there (message 1 of this conversation)")
    first.say("and again")
    first.expect("You said: and again (message 3 of this conversation)")
    first.say("/quit")
    assert first.end() == 0

    second = terminal("chat", "--continue", "--fake")
    second.expect("hello there", "message 1", "and again", "message 3 of this conversation)")
    assert "no reply" not in second.seen
    second.say("third")
    second.expect("message 5 of this conversation")
    second.expect("you> ")
    second.type("\x04")
    assert second.end() == 0
    assert run("list").stdout.split("\t")[1] == "6"


def test_ctrl_c_in_a_reply_keeps_what_came_and_the_conversation_is_usable_at_once(terminal, shelf, store):
    slow, silent = Paused("one two three", after=5), Paused("never seen", after=0)
    api = FakeMessagesAPI([slow, "four", silent, "second try"])
    with served(api) as place:
        talk = terminal("chat", "-c", "a", "--store", store, **place)
        talk.say("count")
        talk.expect("claude", "one two ")
        assert slow.reached.wait(100)
        talk.press_ctrl_c(until="what came is saved, but not sent again")
        assert kinds(shelf, "a") == ["setup", "message", "reply_interrupted"]
        talk.say("go on")
        talk.expect("four")
        talk.say("still there?")
        assert silent.reached.wait(100)
        talk.press_ctrl_c(until="nothing had come")
        talk.say("/retry")
        talk.expect("second try")
        talk.say("/retry")
        talk.expect("no turn without a reply")
        talk.say("/quit")
        assert talk.end() == 0
    assert [message["role"] for message in api.requests[1].body["messages"]] == ["user", "user"]
    first, second = kinds(shelf, "a")[:5], kinds(shelf, "a")[5:]
    assert first == ["setup", "message", "reply_interrupted", "message", "message"]
    assert second == ["message", "turn_abandoned", "turn_opened", "message"]


def test_a_broken_off_reply_is_redrawn_as_such(terminal, shelf, store):
    with shelf() as history:
        engine = ChatEngine(FakeMessagesAPI("one two three").client(), history, model="claude-sonnet-5-5")
        with engine.stream("a", "count") as stream:
            next(iter(stream))
    talk = terminal("chat", "-c", "a", "--store", store, "--fake")
    talk.expect("count", "claude", "one", "broken off, not sent", "no reply to the last message yet: /retry", "you> ")


def test_ctrl_c_at_the_prompt_ends_it(terminal):
    talk = terminal("chat", "--fake")
    talk.expect("you> ")
    talk.press_ctrl_c(until="\x1b[?2004l")  # readline gives the terminal back
    assert talk.end() == 0
    assert "Traceback" not in talk.seen


def test_a_process_told_to_end_in_a_reply_leaves_the_turn_closed(terminal, shelf, store):
    slow = Paused("one two three", after=5)
    with served(FakeMessagesAPI([slow])) as place:
        talk = terminal("chat", "-c", "a", "--store", store, **place)
        talk.say("count")
        talk.expect("one two ")
        assert slow.reached.wait(100)
        talk.process.send_signal(signal.SIGTERM)
        assert talk.end() == 128 + signal.SIGTERM
    assert kinds(shelf, "a") == ["setup", "message", "reply_interrupted"]


def test_an_error_of_the_api_leaves_the_prompt(terminal, store):
    limit = Failure(429, message=f"slow down, {KEY}", headers={"x-should-retry": "false"})
    with served(FakeMessagesAPI([limit, "fine now"])) as place:
        talk = terminal("chat", "-c", "a", "--store", store, **place)
        talk.say("hello")
        talk.expect("Error: too many requests for this key (429): slow down, ***", "the message is saved", "/retry")
        talk.say("/retry")
        talk.expect("fine now")
        talk.say("/nonsense")
        talk.expect("unknown command /nonsense; /help")
        talk.say("/help")
        talk.expect("/abandon")
        talk.say("/quit")
        assert talk.end() == 0
    assert KEY not in talk.seen


def test_a_turn_of_another_process_can_be_abandoned(terminal, shelf, store):
    slow = Paused("late", after=0)
    with served(FakeMessagesAPI([slow, "fresh"])) as place:
        first = terminal("chat", "-c", "a", "--store", store, **place)
        first.say("hello")
        assert slow.reached.wait(100)
        second = terminal("chat", "-c", "a", "--store", store, **place)
        second.expect("hello", "another process waits for a reply since")
        second.say("me too")
        second.expect("Error: conversation 'a' still waits for a reply", "--abandon")
        second.say("/abandon")
        second.expect("/retry")
        second.say("/retry")
        second.expect("fresh")
        slow.gate.set()
        first.expect("late", "Error: the reply came too late: somebody else continued 'a'; it is saved")
    assert kinds(shelf, "a") == ["setup", "message", "turn_abandoned", "turn_opened", "message", "reply_orphaned"]


def test_what_is_said_and_replied_arrives_as_it_is_and_does_no_harm(terminal, store):
    ends = [Reply(content="well", stop_reason=stop) for stop in ("max_tokens", "refusal")]
    api = FakeMessagesAPI(["got it", "a\x1b]0;owned\x07b \u202e [red]c[/red]", *ends])
    with served(api) as place:
        talk = terminal("chat", "-c", "a", "--store", store, **place)
        talk.expect("\x1b[?2004h", "you> ")  # the terminal is asked to mark what is pasted
        talk.type("\x1b[200~line one\nline two\x1b[201~\r")  # as terminals send what is pasted
        talk.expect("got it")
        talk.say("be evil")
        talk.expect("a␛]0;owned␇b <U+202E> [red]c[/red]")
        talk.say("be long")
        talk.expect("the limit of max_tokens")
        talk.say("be bad")
        talk.expect("declined")
        talk.say("/quit")
        assert talk.end() == 0
    assert api.requests[0].body["messages"][0]["content"] == "line one\nline two"
    assert "\x1b]0;" not in talk.seen


def test_a_refused_message_is_not_offered_to_be_sent_again(terminal):
    refused = Failure(400, message="messages.2.content.0.text: this was refused")
    with served(FakeMessagesAPI(["hi", refused, "fine"])) as place:
        talk = terminal("chat", **place)
        talk.say("hello")
        talk.expect("claude", "hi")
        talk.say("the bad one")
        talk.expect("the API refused the request (400)", "not sent again")
        talk.say("something else")
        assert "no reply to the last message yet" not in talk.seen
        talk.expect("fine")
        talk.say("/quit")
        assert talk.end() == 0
