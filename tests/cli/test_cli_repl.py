"""The prompt in a real terminal, with a fake API on a real socket where timing matters.

The commands run in forked processes (`terminal`), one of them in a new process.
"""

from __future__ import annotations

import signal
from contextlib import closing, contextmanager

from cli_terminal import Terminal, signal_until

from chathistory import ChatEngine
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Paused, Reply

KEY = "sk-not-a-key"


@contextmanager
def served(api: FakeMessagesAPI):
    with api.serve() as url:
        yield {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY}


def kinds(open_history, name: str) -> list[str]:
    with open_history() as history:
        return [entry.kind for entry in history.conversation(name).entries()]


def test_another_process_continues_the_conversation(terminal, run, env, tmp_path):
    first = terminal("chat", "--fake")
    first.expect("new conversation ", "/help")
    first.say("hello there")
    first.expect("fake", "You said: hello there (message 1 of this conversation)")
    first.say("and again")
    first.expect("You said: and again (message 3 of this conversation)")
    first.say("/quit")
    assert first.end() == 0

    with closing(Terminal(("chat", "--continue", "--fake"), env, tmp_path)) as second:
        second.expect("hello there", "message 1", "and again", "message 3 of this conversation)")
        assert "no reply" not in second.seen
        second.say("third")
        second.expect("message 5 of this conversation")
        second.expect("you> ")
        second.type("\x04")
        assert second.end() == 0
    assert run("list").stdout.split("\t")[1] == "6"


def test_ctrl_c_in_a_reply_keeps_what_came_and_the_conversation_is_usable_at_once(terminal, open_history, store):
    slow, silent = Paused("one two three", after=5), Paused("never seen", after=0)
    api = FakeMessagesAPI([slow, "four", silent, "second try"])
    with served(api) as place:
        session = terminal("chat", "-c", "a", "--store", store, **place)
        session.say("count")
        session.expect("claude", "one two ")
        assert slow.reached.wait(600)
        session.press_ctrl_c(until="the partial reply is saved, but never sent to Claude")
        assert kinds(open_history, "a") == ["setup", "message", "reply_interrupted"]
        session.say("go on")
        session.expect("four")
        session.say("still there?")
        assert silent.reached.wait(600)
        session.press_ctrl_c(until="no part of the reply had arrived")
        session.say("/retry")
        session.expect("second try")
        session.say("/retry")
        session.expect("no turn without a reply")
        session.say("/quit")
        assert session.end() == 0
    assert [message["role"] for message in api.requests[1].body["messages"]] == ["user", "user"]
    first, second = kinds(open_history, "a")[:5], kinds(open_history, "a")[5:]
    assert first == ["setup", "message", "reply_interrupted", "message", "message"]
    assert second == ["message", "turn_abandoned", "turn_opened", "message"]


def test_an_interrupted_reply_is_shown_as_interrupted(terminal, open_history, store):
    with open_history() as history:
        engine = ChatEngine(FakeMessagesAPI("one two three").client(), history, model="claude-sonnet-5-5")
        with engine.stream("a", "count") as stream:
            next(iter(stream))
    session = terminal("chat", "-c", "a", "--store", store, "--fake")
    session.expect(
        "count", "claude", "one", "interrupted, not sent", "the last message has no reply yet: /retry", "you> "
    )


def test_ctrl_c_at_the_prompt_ends_it(terminal):
    session = terminal("chat", "--fake")
    session.expect("you> ")
    session.press_ctrl_c(until="\x1b[?2004l")  # readline gives the terminal back
    assert session.end() == 0
    assert "Traceback" not in session.seen


def test_a_signal_that_ends_the_process_during_a_reply_closes_the_turn(terminal, open_history, store):
    slow = Paused("one two three", after=5)
    with served(FakeMessagesAPI([slow])) as place:
        session = terminal("chat", "-c", "a", "--store", store, **place)
        session.say("count")
        session.expect("one two ")
        assert slow.reached.wait(600)
        signal_until(lambda: session.process.send_signal(signal.SIGTERM), session.has_ended, session.process.pid)
        assert session.end() == 128 + signal.SIGTERM
    assert kinds(open_history, "a") == ["setup", "message", "reply_interrupted"]


def test_an_error_of_the_api_leaves_the_prompt(terminal, store):
    limit = Failure(429, message=f"slow down, {KEY}", headers={"x-should-retry": "false"})
    with served(FakeMessagesAPI([limit, "fine now"])) as place:
        session = terminal("chat", "-c", "a", "--store", store, **place)
        session.say("hello")
        session.expect("Error: too many requests for this key (429): slow down, ***", "the message is saved", "/retry")
        session.say("/retry")
        session.expect("fine now")
        session.say("/nonsense")
        session.expect("unknown command /nonsense; /help")
        session.say("/help")
        session.expect("/abandon")
        session.say("/quit")
        assert session.end() == 0
    assert KEY not in session.seen


def test_a_turn_of_another_process_can_be_abandoned(terminal, open_history, store):
    slow = Paused("late", after=0)
    with served(FakeMessagesAPI([slow, "fresh"])) as place:
        first = terminal("chat", "-c", "a", "--store", store, **place)
        first.say("hello")
        assert slow.reached.wait(600)
        second = terminal("chat", "-c", "a", "--store", store, **place)
        second.expect("hello", "another process has been waiting for a reply since")
        second.say("me too")
        second.expect("Error: process ", "is waiting for a reply in conversation 'a'", "--abandon")
        second.say("/abandon")
        second.expect("/retry")
        second.say("/retry")
        second.expect("fresh")
        slow.gate.set()
        first.expect("late", "Error: the reply came too late: somebody else continued conversation 'a'; it is saved")
    assert kinds(open_history, "a") == [
        "setup",
        "message",
        "turn_abandoned",
        "turn_opened",
        "message",
        "reply_orphaned",
    ]


def test_what_is_said_and_replied_arrives_as_it_is_and_does_no_harm(terminal, store):
    ends = [Reply(content="well", stop_reason=stop) for stop in ("max_tokens", "refusal")]
    api = FakeMessagesAPI(["got it", "a\x1b]0;owned\x07b \u202e [red]c[/red]", *ends])
    with served(api) as place:
        session = terminal("chat", "-c", "a", "--store", store, **place)
        session.expect("\x1b[?2004h", "you> ")  # the terminal is asked to mark what is pasted
        session.type("\x1b[200~line one\nline two\x1b[201~\r")  # as terminals send what is pasted
        session.expect("got it")
        session.say("be evil")
        session.expect("a␛]0;owned␇b <U+202E> [red]c[/red]")
        session.say("be long")
        session.expect("the limit of max_tokens")
        session.say("be bad")
        session.expect("declined")
        session.say("/quit")
        assert session.end() == 0
    assert api.requests[0].body["messages"][0]["content"] == "line one\nline two"
    assert "\x1b]0;" not in session.seen


def test_a_refused_message_is_not_offered_to_be_sent_again(terminal):
    refused = Failure(400, message="messages.2.content.0.text: this was refused")
    with served(FakeMessagesAPI(["hi", refused, "fine"])) as place:
        session = terminal("chat", **place)
        session.say("hello")
        session.expect("claude", "hi")
        session.say("the bad one")
        session.expect("the API refused the request (400)", "not sent again")
        session.say("something else")
        assert "no reply to the last message yet" not in session.seen
        session.expect("fine")
        session.say("/quit")
        assert session.end() == 0
