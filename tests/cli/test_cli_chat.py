"""One message, one reply: as an argument, from a pipe, into a pipe."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from cli_terminal import COMMAND, signal_until

from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Failure, Paused

KEY = "sk-not-a-key"


@contextmanager
def served(api: FakeMessagesAPI):
    with api.serve() as url:
        yield {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY}


def test_only_the_reply_goes_to_standard_output(process, run, home):
    done = process("chat", "--fake", "hello there")
    assert done.stdout == "[fake reply, no model] You said: hello there (message 1 of this conversation)\n"
    assert done.returncode == 0
    assert "new conversation " in done.stderr
    assert "from a fake without a model" in done.stderr
    [row] = map(json.loads, run("list", "--json").stdout.splitlines())
    assert f"chathistory chat --conversation {row['id']} --fake" in done.stderr
    assert row["model"] == "fake"
    assert list((home / "da ta?a=b%20#@ü" / "chathistory" / "history").rglob(f"{row['id']}.jsonl"))


def test_another_process_goes_on_from_a_pipe(process, run):
    run("chat", "--fake", "one")
    done = process("chat", "--continue", "--fake", stdin="two\nlines\n")
    assert done.stdout.startswith("[fake reply, no model] You said: two\nlines (message 3")
    assert run("list").stdout.split("\t")[1] == "4"


def test_the_environment_says_where_and_which_model(run, store):
    api = FakeMessagesAPI("hi")
    with served(api) as place:
        more = place | {"CHATHISTORY_STORE": store, "CHATHISTORY_MODEL": "claude-haiku-5-5"}
        assert run("chat", "-c", "a", "--system", "Be brief.", "hello", **more).stdout == "hi\n"
        other = run("chat", "-c", "a", "--model", "claude-opus-5-5", "hello", **more)
    assert other.stdout == "hi\n"
    assert "Note: conversation 'a' continues with a different model.\n" in other.stderr
    bodies = [request.body for request in api.requests]
    assert [body["model"] for body in bodies] == ["claude-haiku-5-5", "claude-opus-5-5"]
    assert run("show", "a", "--store", store).stdout.count("claude  ") == 2


def test_a_conversation_keeps_its_model_and_system_prompt_until_others_are_given(run, store):
    api = FakeMessagesAPI("hi")
    said = [("--system", "Be brief.", "--model", "claude-haiku-5-5"), (), ("--system", "")]
    with served(api) as place:
        done = [run("chat", "-c", "a", *words, "--store", store, "hello", **place) for words in said]
    bodies = [request.body for request in api.requests]
    assert [body["model"] for body in bodies] == ["claude-haiku-5-5"] * 3
    assert [body.get("system") for body in bodies] == ["Be brief.", "Be brief.", None]
    assert ["Note:" in each.stderr for each in done] == [False, False, True]
    assert done[2].stderr.count("with a different system prompt: its earlier thinking is no longer sent") == 1


def test_claude_does_not_get_the_model_name_of_the_fake(run, store):
    run("chat", "-c", "a", "--fake", "--store", store, "hello")
    api = FakeMessagesAPI("hi")
    with served(api) as place:
        run("chat", "-c", "a", "--store", store, "hello", **place)
    assert [request.body["model"] for request in api.requests] == ["claude-sonnet-5-5"]


def test_a_script_gets_the_text_as_it_is(run, store):
    with served(FakeMessagesAPI("a\x1b[1mb\n")) as place:
        assert run("chat", "--store", store, "hello", **place).stdout == "a\x1b[1mb\n"


def test_without_a_key_one_sentence_names_both_ways_on(run):
    done = run("chat", "hello")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "set ANTHROPIC_API_KEY to" in done.stderr
    assert "--fake" in done.stderr
    assert run("list").stdout == ""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Failure(401, message=f"invalid x-api-key {KEY}"), "does not accept the key (401): invalid x-api-key ***"),
        (Failure(429, headers={"x-should-retry": "false"}), "too many requests for this key (429)"),
        (Failure(404), "check --model"),
        (Failure(400, message="no\x1b[2J"), "the API refused the request (400): no␛[2J"),
        (Cut("one two", after=4), "its stream ended too early"),
    ],
    ids=["key", "rate", "model", "request", "cut"],
)
def test_an_error_says_what_is_saved_and_what_to_do(run, store, answer, words):
    with served(FakeMessagesAPI([answer, "better"])) as place:
        done = run("chat", "-c", "a b", "--store", store, "hello", **place)
        lines = done.stderr.splitlines()
        assert done.returncode == 1
        assert words in lines[1]
        assert lines[1].startswith("Error: ")
        assert lines[2:] == [
            "the message is saved in 'a b'",
            f"send the message again with: chathistory chat --conversation 'a b' --store {store} --retry",
        ]
        assert KEY not in done.stderr
        assert run("chat", "-c", "a b", "--store", store, "--retry", **place).stdout == "better\n"


def test_an_unreachable_api_is_reported_in_one_line(run, store):
    with FakeMessagesAPI().serve() as url:
        pass
    place = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY}
    done = run("chat", "-c", "a", "--store", store, "hello", **place)
    assert done.returncode == 1
    assert "Error: cannot reach the API" in done.stderr
    assert "Traceback" not in done.stderr


def begun(env, store):
    command = [COMMAND, "chat", "-c", "a", "--store", store, "hello"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)


def has_ended(process: subprocess.Popen, seconds: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def test_a_reply_that_nobody_reads_is_not_lost(env, store, run):
    slow = Paused("one two three", after=5)
    with served(FakeMessagesAPI([slow])) as place:
        process = begun(env | place, store)
        assert slow.reached.wait(600)
        process.stdout.close()
        slow.gate.set()
        errors = process.stderr.read().decode()
        process.stderr.close()
        process.wait(600)
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert "one two three" in run("show", "a", "--store", store).stdout


def test_ctrl_c_keeps_what_came(env, store, run):
    slow = Paused("one two three", after=5)
    with served(FakeMessagesAPI([slow])) as place:
        process = begun(env | place, store)
        assert slow.reached.wait(600)
        assert process.stdout.read(8) == b"one two "
        signal_until(lambda: process.send_signal(signal.SIGINT), partial(has_ended, process), process.pid)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "the message is saved in 'a'" in errors.decode()
    assert "--retry" in errors.decode()
    assert "one two\n" in (shown := run("show", "a", "--store", store).stdout)
    assert "(interrupted, not sent)" in shown
