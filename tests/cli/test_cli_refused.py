"""What the API refuses, at the command line: said with the way on, shown as refused, left out, found by asking."""

from __future__ import annotations

import json

import anthropic
import pytest
from entry_factory import make_entry

from chathistory import ChatEngine
from chathistory.log.clock import now
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure

MODEL = "claude-sonnet-5-5"
FILE = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
TURN = "messages.2.content.0.text: this was refused"


@pytest.fixture
def api():
    return FakeMessagesAPI(lambda _: "fine")


@pytest.fixture
def served(api):
    with api.serve() as url:
        yield {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-test-0000"}


@pytest.fixture
def talked(open_history, api):
    """A conversation with a file that has expired since."""
    with open_history() as history, api.client() as client:
        ChatEngine(client, history, model=MODEL).send("a", [FILE, {"type": "text", "text": "Read this"}])
    api.gone.add("file_1")


def test_a_refusal_of_an_earlier_message_says_what_to_do(run, served, store, talked, api):
    refused = run("chat", "-c", "a", "--store", store, "And now?", **served)
    assert refused.returncode == 1
    assert "record 1, block 0: a file that the API no longer has" in refused.stderr
    assert f"leave that out with: chathistory leave-out a --store {store}" in refused.stderr
    assert "'a' to repair" not in refused.stderr
    seen = run("doctor", "a", "--store", store)
    assert seen.returncode == 1
    assert "block 0" in seen.stdout
    left = run("leave-out", "a", "--store", store)
    assert left.returncode == 0, left.stderr
    again = run("chat", "-c", "a", "--store", store, "--retry", **served)
    assert again.stdout == "fine\n"
    assert "file_1" not in json.dumps(api.requests[-1].body)
    assert run("doctor", "a", "--store", store).returncode == 0


def test_doctor_repairs_what_was_refused(run, served, store, talked, api):
    run("chat", "-c", "a", "--store", store, "And now?", **served)
    assert run("doctor", "a", "--repair", "--store", store).returncode == 0
    assert run("chat", "-c", "a", "--store", store, "--retry", **served).stdout == "fine\n"


def test_doctor_online_asks_the_api_and_finds_what_it_would_refuse(run, served, store, talked, api):
    sound = run("doctor", "--store", store)
    assert sound.returncode == 0
    checked = run("doctor", "--online", "--store", store, **served)
    assert checked.returncode == 1
    row = checked.stdout.split("\t")
    assert (row[0], row[2], row[3]) == ("a", "1", "repairable")
    assert "block 0: a file that the API no longer has" in row[4]
    assert run("doctor", "--online", "--repair", "--store", store, **served).returncode == 0
    assert run("doctor", "--online", "--store", store, **served).returncode == 0
    assert run("chat", "-c", "a", "--store", store, "And now?", **served).stdout == "fine\n"


@pytest.mark.parametrize("words", [[], ["--repair"]])
def test_doctor_online_leaves_the_choice_to_the_user_if_all_of_it_is_too_long(run, open_history, store, words):
    too_long = Failure(400, message="prompt is too long: 300000 tokens > 200000 maximum")
    refused = []
    api = FakeMessagesAPI("fine", refuse=lambda _: too_long if refused else None)
    with open_history() as history, api.client() as client:
        ChatEngine(client, history, model=MODEL).send("a", "hello")
        before = [entry.kind for entry in history.conversation("a").entries()]
    refused.append(True)
    with api.serve() as url:
        served = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-test-0000"}
        checked = run("doctor", "--online", *words, "--store", store, **served)
    assert checked.returncode == 1
    row = checked.stdout.split("\t")
    assert row[2:4] == ["end", "not repaired"]
    assert "the API refuses it: " in row[4]
    assert "`chathistory trim` makes it shorter" in row[4]
    with open_history() as history:
        assert [entry.kind for entry in history.conversation("a").entries()] == before


def test_doctor_online_does_not_repair_while_a_turn_is_open(run, served, store, talked, open_history):
    opened = make_entry("turn_opened", turn="t", data={"lease_until": now() + 3_600_000_000})
    with open_history() as history:
        history.conversation("a").log.append([opened])
    checked = run("doctor", "--online", "--repair", "--store", store, **served)
    assert checked.returncode == 1
    row = checked.stdout.split("\t")
    assert row[3] == "not repaired"
    assert "has an open turn" in row[4]
    with open_history() as history:
        assert [entry.kind for entry in history.conversation("a").entries()][-1] == "turn_opened"


def test_doctor_online_needs_a_key_and_says_so(run, store, talked):
    checked = run("doctor", "--online", "--store", store)
    assert checked.returncode == 2
    assert "ANTHROPIC_API_KEY" in checked.stderr


def test_a_refused_turn_is_shown_as_such_and_not_retried(run, open_history, store, tmp_path):
    api = FakeMessagesAPI(["hi", Failure(400, message=TURN), "fine"])
    with open_history() as history, api.client() as client:
        engine = ChatEngine(client, history, model=MODEL)
        engine.send("a", "hello")
        with pytest.raises(anthropic.BadRequestError):
            engine.send("a", "the bad one")
    shown = run("show", "a", "--store", store).stdout
    assert "(refused by the API, not sent)\nthe bad one" in shown
    assert "the bad one" not in run("show", "a", "--messages", "--store", store).stdout
    records = [json.loads(line) for line in run("show", "a", "--json", "--store", store).stdout.splitlines()]
    assert [record["kind"] for record in records][-2:] == ["message", "turn_refused"]
    assert run("doctor", "a", "--store", store).returncode == 0
    assert run("export", "a", "--output", str(tmp_path / "a.md"), "--store", store).returncode == 0
    assert "the bad one\n\n*(The API refused" in (tmp_path / "a.md").read_text()
    with api.serve() as url:
        again = run(
            "chat", "-c", "a", "--store", store, "--retry", ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY="sk-test-0000"
        )
    assert again.returncode == 1
    assert "refused turn" in again.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--block", "1"], "--block needs --record"),
        (["--record", "99"], "--record: must be the position of a message"),
        (["--record", "1", "--block", "7"], "--block: must be"),
        ([], "--record: must be given, because the API has refused nothing"),
    ],
)
def test_leave_out_explains_what_it_cannot_do(run, store, talked, words, expected):
    done = run("leave-out", "a", *words, "--store", store)
    assert done.returncode in (1, 2)
    assert expected in done.stderr


def test_what_is_named_is_left_out(run, store, talked, open_history):
    done = run("leave-out", "a", "--record", "1", "--block", "0", "--store", store, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["messages"] == 2
    with open_history() as history:
        assert "file_1" not in str(history.conversation("a").messages())
    assert "left out, not sent" not in run("show", "a", "--store", store).stdout
    run("leave-out", "a", "--record", "1", "--store", store)
    assert "left out, not sent" in run("show", "a", "--store", store).stdout
