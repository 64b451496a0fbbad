"""`trim`, `usage` and `doctor`: limit what is sent, count its tokens, repair what is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chathistory_file import FileStore
from entry_factory import make_entry

from chathistory import ChatEngine, Conversation, History, open_store
from chathistory.cli.errors import ExitCode
from chathistory.errors import StoreRejected, StoreUnavailable
from chathistory.log.clock import now
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Reply

MODEL = "claude-sonnet-5-5"
CALL = [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}]
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]


def add_turns(history, name, turns, reply="fine", **more):
    engine = ChatEngine(FakeMessagesAPI(reply).client(), history, model=MODEL, **more)
    for number in range(turns):
        engine.send(name, f"turn {number} " + "word " * 100)


@pytest.fixture
def filled(open_history, store):
    """A long conversation, a short one, and one in another scope."""
    with open_history() as history:
        add_turns(history, "long", 10)
        add_turns(history, "short", 2)
        history.conversation("theirs", scope="ada").append({"role": "user", "content": "hello"})
    return store


TWO = ["--trigger-turns", "2", "--keep-turns", "1"]


def rows(done):
    return [line.split("\t") for line in done.stdout.splitlines()]


def kinds(open_history, name):
    with open_history() as history:
        return [entry.kind for entry in history.conversation(name).entries()]


# trim


def test_trim_shows_the_cut_in_a_dry_run_and_makes_it_without(run, open_history, filled):
    words = ["trim", "long", "--trigger-turns", "5", "--keep-turns", "3", "--store", filled]
    shown = run(*words, "--dry-run")
    [(id, turns, messages, before, after, position)] = rows(shown)
    assert (id, turns, messages, position) == ("long", "7", "14", "15")
    assert 2000 > int(before) > 2 * int(after) > 500
    assert shown.returncode == 0
    assert "7 turns (14 messages) would not be sent again" in shown.stderr
    assert f"{int(before):,} tokens before, {int(after):,} after\n" in shown.stderr
    assert "cut" not in kinds(open_history, "long")
    done = run(*words)
    assert rows(done) == rows(shown)
    assert "7 turns (14 messages) will not be sent again" in done.stderr
    with open_history() as history:
        assert len(history.conversation("long").messages()) == 6
        assert history.conversation("long").state().totals.messages == 20
    again = run(*words)
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing to trim in long" in again.stderr


@pytest.mark.parametrize(
    ("marks", "left"),
    [
        (["--trigger-tokens", "1000", "--keep-tokens", "500"], 3),
        (["--trigger-age", "0s", "--keep-age", "0s"], 1),
        (["--trigger-turns", "8", "--keep-turns", "8", "--trigger-tokens", "1_000", "--keep-tokens", "500"], 3),
        (["--trigger-age", "7d", "--keep-age", "12h"], 10),
    ],
)
def test_trim_by_each_measure(run, open_history, filled, marks, left):
    assert run("trim", "long", *marks, "--store", filled).returncode == 0
    with open_history() as history:
        assert len(history.conversation("long").messages()) == 2 * left


def test_trim_by_what_is_configured(run, filled):
    words = ["trim", "long", "--dry-run", "--store", filled]
    configured = {"CHATHISTORY_TRIMMING_TRIGGER_TURNS": "5", "CHATHISTORY_TRIMMING_KEEP_TURNS": "3"}
    assert rows(run(*words, **configured))[0][1] == "7"
    flags = ["--trigger-turns", "5", "--keep-turns", "4"]
    assert rows(run(*words, *flags, **configured))[0][1] == "6"
    assert "must be set together" in run(*words, *flags[2:], **configured).stderr  # flags replace what is configured


@pytest.mark.parametrize("which", ["long", "--all"])
def test_trim_leaves_a_configured_compaction_to_the_api(run, open_history, filled, which):
    marks = {"CHATHISTORY_TRIMMING_TRIGGER_TURNS": "5", "CHATHISTORY_TRIMMING_KEEP_TURNS": "3"}
    configured = marks | {"CHATHISTORY_TRIMMING_COMPACTION": "true"}
    done = run("trim", which, "--store", filled, **configured)
    assert (done.returncode, done.stdout) == (0, "")
    assert "the API summarizes when the next message is sent" in done.stderr
    assert "cut" not in kinds(open_history, "long")
    done = run("trim", which, "--store", filled, "--trigger-turns", "5", "--keep-turns", "3", **configured)
    assert rows(done)[0][:2] == ["long", "7"]


def test_trim_all_goes_on_where_one_cannot_be_cut(run, open_history, filled):
    with open_history() as history:
        add_turns(history, "busy", 3)
        history.conversation("busy").log.append(
            [make_entry("turn_opened", turn="t", data={"lease_until": now() + 3_600_000_000})]
        )
    done = run("trim", "--all", "--trigger-turns", "2", "--keep-turns", "1", "--json", "--store", filled)
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["id"], each["turns"], each["dry_run"]) for each in printed] == [("long", 9, False)]
    assert done.returncode == 3
    assert "not trimmed: busy: conversation 'busy' has an open turn" in done.stderr
    alone = run("trim", "busy", "--trigger-turns", "2", "--keep-turns", "1", "--store", filled)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "is waiting for a reply" in alone.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["long"], "give a pair of limits, such as --trigger-tokens"),
        (TWO, "give the ID of a conversation, or --all"),
        (["long", "--all", *TWO], "give the ID of a conversation, or --all"),
        (["long", "--trigger-turns", "2"], "trigger_turns and keep_turns must be set together"),
        (["long", "--trigger-turns", "1", "--keep-turns", "2"], "keep_turns must not be more than trigger_turns"),
        (["long", "--trigger-age", "soon", "--keep-age", "later"], "'--trigger-age': must be a duration"),
        (["lung", *TWO], "did you mean long?"),
    ],
)
def test_trim_says_what_is_missing(run, filled, words, expected):
    done = run("trim", *words, "--store", filled)
    assert done.returncode == (1 if "lung" in words else 2)
    assert expected in done.stderr


def test_trim_in_a_terminal_is_a_table(terminal, filled):
    screen = terminal("trim", "long", *TWO, "--dry-run", "--store", filled)
    assert screen.end() == 0
    for words in ("MESSAGES", "TOKENS BEFORE", "AFTER", "FROM", "would not be sent again"):
        assert words in screen.seen


@pytest.mark.parametrize("words", [["trim", "--all", *TWO], ["doctor"], ["usage", "long"]], ids=" ".join)
def test_an_unavailable_store_ends_the_command(run, filled, monkeypatch, words):
    def raise_unavailable(*_, **__):
        raise StoreUnavailable("nobody answers")

    for method in ("trim", "usage"):
        monkeypatch.setattr(Conversation, method, raise_unavailable)
    monkeypatch.setattr("chathistory.operations.check_conversations.repair", raise_unavailable)
    done = run(*words, "--store", filled)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: nobody answers")


# usage


def test_usage_tells_turns_models_and_the_sum(run, open_history, store):
    with open_history() as history:
        counts = {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 3,
            "cache_creation_input_tokens": 2,
        }
        add_turns(history, "u", 2, Reply(content="x", usage=counts))
        add_turns(history, "u", 1, Reply(content="x", usage=counts, model="claude-haiku-5-5"))
    found = rows(run("usage", "u", "--store", store))
    assert [(row[0], row[1], row[3], *row[4:]) for row in found] == [
        ("turn", "2", MODEL, "10", "5", "3", "2"),
        ("turn", "4", MODEL, "10", "5", "3", "2"),
        ("turn", "6", "claude-haiku-5-5", "10", "5", "3", "2"),
        ("model", "", MODEL, "20", "10", "6", "4"),
        ("model", "", "claude-haiku-5-5", "10", "5", "3", "2"),
        ("total", "", "", "30", "15", "9", "6"),
    ]
    assert all(row[2].endswith("+00:00") for row in found[:3])
    printed = json.loads(run("usage", "u", "--json", "--store", store).stdout)
    assert printed["total"] == {"input": 30, "output": 15, "cache_read": 9, "cache_written": 6}
    assert printed["models"]["claude-haiku-5-5"]["output"] == 5
    assert [turn["position"] for turn in printed["turns"]] == [2, 4, 6]


def test_usage_in_a_terminal_is_a_table(terminal, filled):
    screen = terminal("usage", "short", "--store", filled)
    assert screen.end() == 0
    for words in ("TURN", "CACHE READ", "CACHE WRITTEN", MODEL, "total"):
        assert words in screen.seen


# doctor


def file_of(store, words):
    """Return the file of the conversation in which these words are."""
    [path] = [path for path in Path(store.removeprefix("file:")).rglob("*.jsonl") if words in path.read_bytes()]
    return path


def damage(store, words):
    """Change one byte of the record in which these words are first."""
    path = file_of(store, words)
    whole = path.read_bytes()
    at = whole.index(words)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_doctor_prints_nothing_for_sound_conversations(run, filled):
    done = run("doctor", "--store", filled)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "2 conversations examined: 2 sound\n")
    assert run("doctor", "--scope", "ada", "--store", filled).stderr == "1 conversation examined: 1 sound\n"
    assert run("doctor", "--all-scopes", "--store", filled).stderr == "3 conversations examined: 3 sound\n"
    absent = run("doctor", "lung", "--store", filled)
    assert (absent.returncode, absent.stdout) == (1, "")
    assert "there is no conversation lung" in absent.stderr


@pytest.mark.parametrize("named", [True, False])
def test_doctor_skips_a_damaged_record(run, filled, named):
    damage(filled, b"turn 4 ")
    words = ["doctor", *(["long"] if named else []), "--store", filled]
    refused = run("show", "long", "--store", filled)
    assert refused.returncode == 1
    assert "record 9 of conversation 'long' is damaged" in refused.stderr
    assert "`chathistory doctor` shows what is damaged" in refused.stderr
    shown = run(*words)
    assert (shown.returncode, [row[:4] for row in rows(shown)]) == (1, [["long", "default", "9", "repairable"]])
    assert "left out: the record is damaged" in shown.stdout
    assert "1 repairable (with --repair)" in shown.stderr
    assert run("show", "long", "--store", filled).returncode == 1, "doctor changes nothing without --repair"
    before = run("usage", "long", "--store", filled)
    assert [row[0] for row in rows(before)] == ["total"]
    assert "record 9 of conversation 'long' is damaged" in before.stderr
    repaired = run(*words, "--repair")
    assert (repaired.returncode, [row[2:4] for row in rows(repaired)]) == (0, [["9", "repaired"]])
    assert repaired.stderr.startswith("long: record 9: left out: the record is damaged")
    again = run(*words)
    assert (again.returncode, [row[2:4] for row in rows(again)]) == (0, [["9", "left out"]])
    readable = run("show", "long", "--store", filled)
    assert readable.returncode == 0
    assert [f"turn {number}" in readable.stdout for number in (3, 4, 5)] == [True, False, True]
    assert run("chat", "--fake", "-c", "long", "and on", "--store", filled).returncode == 0
    spent = run("usage", "long", "--store", filled)
    assert {row[0] for row in rows(spent)} == {"turn", "model", "total"}
    assert int(rows(spent)[-1][5]) > 0
    assert spent.stderr == "record 9 is damaged: its tokens count only in the total\n"


def test_show_prints_what_can_be_read_of_a_damaged_conversation(run, open_history, store):
    texts = ["first", "second", "third"]
    with open_history() as history:
        history.conversation("a").append([{"role": "user", "content": text} for text in texts])
        history.conversation("a").annotate(title="a record without a message")
    damage(store, b"second")
    words = ("show", "a", "--damaged", "--store", store)
    shown = run(*words)
    assert shown.returncode == 0
    assert [text in shown.stdout for text in texts] == [True, False, True]
    assert "#1  left out: the record is damaged" in shown.stdout
    printed = [json.loads(line) for line in run(*words, "--json").stdout.splitlines()]
    assert [line.get("kind") for line in printed] == ["message", None, "message", "annotation"]
    assert printed[1]["position"] == 1
    assert "the record is damaged" in printed[1]["damaged"]


def test_doctor_says_if_it_may_have_missed_some(run, filled, monkeypatch):
    def refuse(store, scope=None):
        raise StoreRejected("the account may not")

    monkeypatch.setattr(FileStore, "scan_keys", refuse)
    done = run("doctor", "--store", filled)
    assert done.returncode == ExitCode.PARTLY
    assert "some conversations may have been missed: this account may not search the whole storage" in done.stderr


@pytest.mark.parametrize("online", [False, True])
def test_doctor_ends_when_the_store_cannot_be_reached(run, open_history, filled, monkeypatch, online):
    def fail(*_, **__):
        raise StoreUnavailable("the line went dead", outcome="unknown")

    damage(filled, b"turn 4 ")
    if online:
        monkeypatch.setattr(ChatEngine, "check", fail)
    else:
        monkeypatch.setattr("chathistory.cli.doctor.repair_diagnosed", fail)
    words = ["--online"] if online else ["--repair"]
    done = run("doctor", *words, "--store", filled, ANTHROPIC_API_KEY="sk-test-0000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("Error: the line went dead")


def test_doctor_skips_what_a_later_version_wrote(run, open_history, filled):
    with open_history() as history:
        later = history.conversation("short")
        later.log.append([make_entry("hologram", version=3)])
        later.append({"role": "user", "content": "after it"})
    assert "update chathistory" in run("show", "short", "--store", filled).stderr
    found = rows(run("doctor", "short", "--store", filled))
    what = "left out: a later version of chathistory wrote it"
    assert [row[2:] for row in found] == [["5", "repairable", what, "add --repair to repair it"]]
    assert run("doctor", "short", "--repair", "--store", filled).returncode == 0
    assert "after it" in run("show", "short", "--store", filled).stdout
    assert run("chat", "--fake", "-c", "short", "and on", "--store", filled).returncode == 0


def test_doctor_restores_a_damaged_head(run, filled):
    """The last line of a conversation's file has what its head says: one byte of it hides all that was said."""
    path = file_of(filled, b"turn 9 ")
    broken = path.read_bytes()[:-3] + b"xx\n"
    path.write_bytes(broken)
    listed = run("list", "--store", filled)
    assert (listed.returncode, listed.stdout.count("\n")) == (0, 2)
    assert "long\tdamaged" in listed.stdout
    for words in (["doctor"], ["doctor", "long"]):
        done = run(*words, "--store", filled)
        assert done.returncode == 1
        found = rows(done)
        assert {tuple(row[:2]) for row in found} == {("long", "default")}
        assert {row[3] for row in found} == {"repairable"}
        assert "the head of conversation 'long' is damaged" in found[-1][4]
        assert found[-1][5] == "add --repair to repair it"
        assert path.read_bytes() == broken
    shown = run("show", "long", "--damaged", "--store", filled)
    assert shown.returncode == 0
    assert [f"turn {number} " in shown.stdout for number in range(10)] == [True] * 10
    repaired = run("doctor", "--repair", "--store", filled)
    assert repaired.returncode == 0
    assert repaired.stderr.startswith("long: the head of conversation 'long' is damaged")
    assert run("doctor", "--store", filled).returncode == 0
    after = run("show", "long", "--store", filled).stdout
    assert [f"turn {number} " in after for number in range(10)] == [True] * 10
    assert run("chat", "--fake", "-c", "long", "and on", "--store", filled).returncode == 0


def test_what_is_stored_next_to_the_records_is_reported(run, filled):
    path = file_of(filled, b"turn 9 ")
    with path.open("ab") as file:
        file.write(b'{"torn": "by a crash')
    for words in (["list"], ["doctor"]):
        done = run(*words, "--store", filled)
        assert done.returncode == 0
        assert "20 bytes after the last append" in done.stdout + done.stderr
    with open_store(filled) as store:
        printed = History(store).check()
    assert [(each.key.id, each.state, len(each.notes)) for each in printed.found] == [("long", "sound", 1)]


def test_an_unreadable_conversation_is_reported_with_the_next_step(run, filled):
    path = file_of(filled, b"turn 9 ")
    path.write_bytes(b"nothing of it is left\n" * 40)
    done = run("doctor", "--repair", "--store", filled)
    assert done.returncode == 1
    assert [row[3] for row in rows(done)] == ["not repaired"]
    assert "restore it from a copy, or remove it" in done.stdout


def test_doctor_changes_a_conversation_that_waits_for_a_tool_only_by_its_id(run, open_history, store):
    with open_history() as history:
        add_turns(history, "waits", 1, CALL, tools=TOOLS)
    every = run("doctor", "--repair", "--store", store)
    assert (every.returncode, [row[2:4] for row in rows(every)]) == (0, [["end", "waiting"]])
    assert kinds(open_history, "waits") == ["setup", "message", "message"]
    named = run("doctor", "waits", "--store", store, "--json")
    printed = json.loads(named.stdout)
    finding = {"position": -1, "description": "tool results put in order, 1 of 1 added as errors"}
    assert named.returncode == 1
    assert printed == {
        "id": "waits",
        "scope": "default",
        "where": "waits",
        "state": "repairable",
        "error": None,
        "findings": [finding],
        "notes": [],
        "next": "add --repair to repair it",
    }
    assert run("doctor", "waits", "--repair", "--store", store).returncode == 0
    assert kinds(open_history, "waits")[-1] == "message"
    assert run("doctor", "--store", store).stdout == ""


def test_doctor_does_not_repair_while_a_turn_is_open(run, open_history, filled):
    damage(filled, b"turn 4 ")
    with open_history() as history:
        history.conversation("long").log.append(
            [make_entry("turn_opened", turn="t", data={"lease_until": now() + 3_600_000_000})]
        )
    done = run("doctor", "--repair", "--store", filled)
    assert (done.returncode, [row[3] for row in rows(done)]) == (1, ["not repaired", "not repaired"])
    assert "has an open turn" in done.stdout
    assert "add --force to repair it even while a turn is open" in done.stdout
    assert kinds_from(open_history, "long", 10)[-1] == "turn_opened"
    forced = run("doctor", "--repair", "--force", "--store", filled)
    assert (forced.returncode, [row[3] for row in rows(forced)]) == (0, ["repaired"])
    assert kinds_from(open_history, "long", 10)[-1] == "repair"


def kinds_from(open_history, name, start):
    with open_history() as history:
        return [entry.kind for entry in history.conversation(name).entries(start)]


def test_doctor_in_a_terminal_is_a_table(terminal, filled):
    damage(filled, b"turn 4 ")
    screen = terminal("doctor", "--all-scopes", "--store", filled)
    assert screen.end() == 1
    for words in ("RECORD", "STATE", "SCOPE", "repairable", "3 conversations examined: 2 sound, 1 repairable"):
        assert words in screen.seen


@pytest.mark.parametrize("command", ["trim", "usage", "doctor"])
def test_help_has_an_example(run, command):
    assert f"  chathistory {command}" in run(command, "--help").stdout.partition("Example")[2]


def test_what_is_stored_next_to_a_conversation_is_reported(run, filled):
    """Bytes that may be an unfinished append, and quarantined bytes: always reported."""
    path = file_of(filled, b"turn 9 ")
    with path.open("ab") as file:
        file.write(b'[99,"torn')
    for command in ("list", "doctor"):
        done = run(command, "--store", filled)
        assert done.returncode == 0
        assert f"note: default/{path.name}: 9 bytes after the last append" in done.stderr
    assert run("chat", "--fake", "-c", "long", "and on", "--store", filled).returncode == 0
    for command in ("list", "doctor"):
        assert "long.aside: 9 bytes that were set aside" in run(command, "--store", filled).stderr
