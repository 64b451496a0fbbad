"""`fork`, `rewind`, `export`, `import`, `copy`, `retain`, `erase`, and the filters of `list`."""

from __future__ import annotations

import gzip
import json

import pytest
from chathistory_file import FileStore

from chathistory import Entry, History, open_store
from chathistory.cli import transfer
from chathistory.log.clock import now
from chathistory.storage.sweep import Swept

SAID = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def reply(model):
    usage = {"input_tokens": 1000, "output_tokens": 234}
    return {"type": "message", "role": "assistant", "model": model, "content": "x", "usage": usage, "id": "m"}


@pytest.fixture
def filled(shelf, store):
    """Five conversations in `default`, two in `ada`."""
    with shelf() as history:
        for number in range(5):
            chat = history.conversation(f"c{number}")
            chat.append([*SAID, {"role": "user", "content": f"more {number}"}, reply(f"m{number % 2}")])
            if number % 2 == 0:
                chat.annotate(title=f"Title {number}", tags=["even", "x"][: 1 + number // 2], metadata={"n": number})
        for name in ("a", "b\x9b2J"[:1] + "\u202eb"):
            history.conversation(name, scope="ada").append(SAID)
    return store


def ids(done):
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "due"),
    [
        (["--tag", "even"], ["c4", "c2", "c0"]),
        (["--tag", "even", "--tag", "x"], ["c4", "c2"]),
        (["--title", "TITLE 2"], ["c2"]),
        (["--meta", "n=4"], ["c4"]),
        (["--meta", "n=four"], []),
        (["--model", "m1"], ["c3", "c1"]),
        (["--since", "1h"], ["c4", "c3", "c2", "c1", "c0"]),
        (["--until", "1h"], []),
        (["--since", "2020-01-01", "--until", "2021-01-01T00:00+02:00"], []),
    ],
    ids=" ".join,
)
def test_a_list_of_what_is_asked_for(run, filled, words, due):
    done = run("list", "--store", filled, *words)
    assert (done.returncode, ids(done)) == (0, due)
    assert ("that are asked for" in done.stderr) == (due == [])


def test_pages_go_on_with_what_was_asked_for(run, filled, monkeypatch):
    monkeypatch.setattr("chathistory.operations.listing.SCANNED", 1)
    seen, words = [], ["list", "--store", filled, "--tag", "even", "--limit", "2"]
    while words:
        done = run(*words)
        seen.append(ids(done))
        words = done.stderr.split()[2:]
        assert not words or words[:5] == ["list", "--limit", "2", "--tag", "even"]
    assert seen == [["c4", "c2"], ["c0"]]


def test_a_list_as_json_has_tokens_and_origins(run, filled):
    run("fork", "c1", "f", "--store", filled)
    rows = [json.loads(line) for line in run("list", "--json", "--store", filled).stdout.splitlines()]
    assert rows[0]["origin"] == {"scope": "default", "id": "c1", "position": 4}
    assert (rows[0]["tokens"], rows[0]["records"], rows[1]["origin"]) == (1234, 5, None)


def test_a_table_has_tokens(terminal, filled):
    screen = terminal("list", "--store", filled)
    assert screen.end() == 0
    assert "TOKENS" in screen.seen
    assert "1,234" in screen.seen


def test_show_tells_the_position_to_fork_and_rewind_at(run, filled):
    shown = run("show", "c1", "--store", filled).stdout
    assert "#0\nhi" in shown
    assert "#2\nmore 1" in shown
    forked = run("fork", "c1", "f", "--at", "2", "--store", filled)
    assert forked.stdout == "forked c1 into f: 2 messages\n"
    rewound = run("rewind", "c1", "--to", "2", "--store", filled)
    assert rewound.stdout == "rewound c1 to position 2: 2 messages\n"
    assert (
        run("show", "c1", "--store", filled, "--messages").stdout
        == run("show", "f", "--store", filled, "--messages").stdout
    )


def test_fork_and_rewind_as_json(run, filled):
    told = json.loads(run("fork", "c1", "f", "--into", "ada", "--json", "--store", filled).stdout)
    origin = {"scope": "default", "id": "c1", "position": 4}
    assert told == {"id": "f", "scope": "ada", "start": 0, "end": 5, "messages": 4, "origin": origin}
    told = json.loads(run("rewind", "c1", "--to", "2", "--json", "--store", filled).stdout)
    assert told == {"id": "c1", "scope": "default", "start": 0, "end": 5, "messages": 2, "origin": None}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["fork", "c9", "f"], 1, "there is no conversation c9"),
        (["fork", "c1", "c2"], 1, "was changed by another writer"),
        (["fork", "c1", "f", "--at", "99"], 1, "position 99 is none to fork at; there are 1 to 4"),
        (["rewind", "c1"], 2, "--to"),
        (["rewind", "c1", "--to", "99"], 1, "position 99 is none"),
        (["list", "--since", "tomorrow"], 2, "--since takes a time"),
        (["list", "--meta", "x"], 2, "NAME=VALUE"),
        (["import", "no-such-file"], 1, "No such file"),
        (["copy"], 2, "--to"),
        (["copy", "--to", "nowhere"], 1, "a store URL begins with its scheme"),
        (["retain", "--ttl", "soon"], 2, "must be a duration, such as 90s"),
        (["retain", "--count", "-1"], 2, "--count"),
        (["erase", "ada"], 2, "--yes"),
        (["erase"], 2, "Missing argument"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_a_sentence(run, filled, words, code, told):
    done = run(*words, *([] if words[0] == "erase" and len(words) < 2 else ["--store", filled]))
    assert told in done.stderr
    assert (done.returncode, done.stdout) == (code, "")


def test_out_and_in_again(run, filled, tmp_path):
    done = run("export", "-o", "all.jsonl.gz", "--store", filled)
    assert (done.returncode, done.stdout) == (0, "exported: 7 conversations, 27 records\n")
    assert gzip.decompress((tmp_path / "all.jsonl.gz").read_bytes()).endswith(b'"conversations":7,"records":27}\n')
    done = run("import", "all.jsonl.gz", "--store", "file:./new")
    assert (done.returncode, done.stdout) == (0, "imported: 7 whole, 27 records\n")
    done = run("import", "all.jsonl.gz", "--json", "--store", "file:./new")
    assert json.loads(done.stdout) == {
        "copied": 0,
        "continued": 0,
        "same": 7,
        "records": 0,
        "later": 0,
        "not_done": [],
        "all_found": True,
    }
    for scope in ("default", "ada"):
        old, new = (run("list", "--json", "--scope", scope, "--store", url).stdout for url in (filled, "file:./new"))
        assert old == new != ""


def test_pipes(run, filled):
    done = run("export", "--scope", "ada", "--json", "--store", filled)
    assert json.loads(done.stderr) == {
        "conversations": 2,
        "records": 4,
        "later": 0,
        "not_done": [],
        "all_found": True,
    }
    back = run("import", "-", "--scope", "eve", "--store", "file:./new", stdin=done.stdout)
    assert back.stdout == "imported: 2 whole, 4 records\n"
    assert len(ids(run("list", "--scope", "eve", "--store", "file:./new"))) == 2
    assert ids(run("list", "--scope", "ada", "--store", "file:./new")) == []


def test_markdown_is_for_people(run, filled, tmp_path):
    run("export", "c2", "-o", "c2.md", "--store", filled)
    text = (tmp_path / "c2.md").read_text()
    assert text.startswith("# Title 2\n\nConversation c2, scope default; 4 messages;")
    assert run("export", "c2", "--markdown", "--store", filled).stdout == text


def test_a_file_is_not_replaced_unasked(run, filled, tmp_path):
    (tmp_path / "x").write_text("mine")
    done = run("export", "-o", "x", "--store", filled)
    assert (done.returncode, (tmp_path / "x").read_text()) == (2, "mine")
    assert "--force" in done.stderr
    assert run("export", "-o", "x", "--force", "--store", filled).returncode == 0
    assert (tmp_path / "x").read_text() != "mine"
    assert [path.name for path in tmp_path.glob(".*.part")] == []


def test_an_export_does_not_go_to_a_terminal(terminal, filled):
    screen = terminal("export", "--store", filled)
    assert screen.end() == 2
    assert "--output FILE" in screen.seen


def test_what_is_named_and_not_there_is_told(run, filled, tmp_path):
    done = run("export", "c1", "c9", "-o", "x", "--store", filled)
    assert done.returncode == transfer.PARTLY == 3
    assert done.stdout == "exported: 1 conversations, 4 records\n"
    assert "not exported: c9 in scope default: there is no conversation 'c9'" in done.stderr
    assert run("export", "c9", "-o", "x.md", "--store", filled).returncode == 3
    done = run("copy", "c9", "--to", "file:./new", "--store", filled)
    assert (done.returncode, done.stdout) == (3, "copied: nothing, there are no conversations\n")


def test_a_list_of_messages_comes_in(run, tmp_path, store):
    (tmp_path / "messages.json").write_text(json.dumps(SAID))
    assert run("import", "messages.json", "--store", store).returncode == 1
    done = run("import", "messages.json", "--id", "mine", "--store", store)
    assert (done.returncode, done.stdout) == (0, "imported: 1 whole, 2 records\n")
    shown = run("show", "mine", "--messages", "--store", store).stdout
    assert [json.loads(line) for line in shown.splitlines()] == SAID
    for more in ([], ["--replace"]):
        done = run("import", "messages.json", "--id", "mine", *more, "--store", store)
        assert (done.returncode, done.stdout) == (0, "imported: 1 there already\n")
    (tmp_path / "others.json").write_text(json.dumps(SAID[:1] * 3))
    done = run("import", "others.json", "--id", "mine", "--store", store)
    assert done.returncode == 3
    assert "something else is there under this name" in done.stderr


def test_copy_and_bring_up_to_date(run, filled, shelf):
    done = run("copy", "--to", "file:./new", "--store", filled)
    assert (done.returncode, done.stdout) == (0, "copied: 7 whole, 27 records\n")
    with shelf() as history:
        history.conversation("c1").append(SAID)
    done = run("copy", "--to", "file:./new", "--store", filled)
    assert done.stdout == "copied: 1 continued, 6 there already, 2 records\n"
    done = run("copy", "c1", "c2", "--to", "file:./two", "--no-verify", "--threads", "1", "--store", filled)
    assert done.stdout.startswith("copied: 2 whole")
    assert ids(run("list", "--store", "file:./two")) == ["c1", "c2"]


def test_what_is_different_stays_unless_it_is_to_be_replaced(run, filled, tmp_path):
    with open_store(f"file:{tmp_path}/new") as store:
        for number in range(30):
            History(store).conversation(f"c{number}").append(SAID)
    done = run("copy", "--to", "file:./new", "--store", filled)
    assert done.returncode == 3
    assert done.stderr.count("--replace") == 5
    done = run("copy", "--to", f"{filled}", "--store", "file:./new")
    assert done.returncode == 3
    done = run("copy", "--replace", "--to", "file:./new", "--store", filled)
    assert (done.returncode, done.stdout) == (0, "copied: 5 whole, 27 there already, 23 records\n")


def test_many_troubles_are_cut_short(run, filled, tmp_path):
    for url in ("one", "two"):
        with open_store(f"file:{tmp_path}/{url}") as store:
            for number in range(25):
                History(store).conversation(f"c{number}").append(SAID)
    done = run("copy", "--to", "file:./one", "--store", "file:./two")
    assert "5 more; --json tells all" in done.stderr
    done = run("copy", "--to", "file:./one", "--store", "file:./two", "--json")
    assert len(json.loads(done.stdout)["not_done"]) == 25


def test_a_bar_is_drawn_where_there_is_a_terminal(terminal, filled):
    screen = terminal("copy", "--to", "file:./new", "--store", filled)
    assert screen.end() == 0
    assert "copying" in screen.seen
    assert "/7" in screen.seen
    assert "copied: 7 whole" in screen.seen
    assert "\x1b[" not in screen.seen.partition("copied: 7 whole")[2]


def test_retain_shows_first(run, filled):
    words = ("retain", "--count", "2", "--store", filled)
    done = run(*words)
    assert [line.split("\t")[:3] for line in done.stdout.splitlines()] == [
        [f"c{n}", "too many", "4"] for n in (2, 1, 0)
    ]
    assert done.stderr == "would remove 3 conversations, kept 2; --yes does it\n"
    assert len(ids(run("list", "--store", filled))) == 5
    done = run(*words, "--yes", "--json")
    told = json.loads(done.stdout)
    assert (told["kept"], told["dry_run"], [row["reason"] for row in told["removed"]]) == (2, False, ["count"] * 3)
    assert ids(run("list", "--store", filled)) == ["c4", "c3"]
    assert run(*words).stderr == "would remove 0 conversations, kept 2\n"


def test_retain_in_a_terminal(terminal, filled, run):
    screen = terminal("retain", "--count", "4", "--ttl", "1d", "--age", "2w", "--store", filled)
    assert screen.end() == 0
    for words in ("WHY", "c0", "too many", "just now", "would remove 1 conversations, kept 4; --yes does it"):
        assert words in screen.seen
    screen = terminal("retain", "--ttl", "1d", "--store", filled)
    assert screen.end() == 0
    assert "WHY" not in screen.seen


@pytest.fixture
def hurt(filled, shelf):
    """The store with one conversation whose head cannot be read."""
    with shelf() as history:
        head = history.conversation("c0").log.refresh()
        revision = type(head.revision)("v" * 8, now(), None, "nonsense")
        history.store.append(head.key, ["{}"], after=head, revision=revision)
    return filled


@pytest.mark.parametrize("more", [[], ["--full-scan"]])
def test_what_is_damaged_is_kept_and_told_by_retain(run, hurt, more):
    done = run("retain", "--count", "0", "--yes", *more, "--store", hurt)
    assert done.returncode == 3
    assert "removed 4 conversations, kept 0" in done.stderr
    assert "1 kept: damaged (c0); look at them with: chathistory doctor" in done.stderr
    told = json.loads(run("retain", "--count", "0", "--json", *more, "--store", hurt).stdout)
    assert [(each["id"], each["scope"], each["where"]) for each in told["damaged"]] == [("c0", "default", "c0")]
    assert told["complete"]


def test_what_is_damaged_is_a_row_of_the_list(run, terminal, hurt):
    done = run("list", "--store", hurt)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert len(rows) == 5
    reason = "the head of conversation 'c0' is damaged: its payload is not a summary"
    assert rows[-1] == ["c0", "damaged", "", "", "", reason]
    assert "1 shown as damaged" in done.stderr
    [told] = [
        row
        for line in run("list", "--json", "--store", hurt).stdout.splitlines()
        if "damaged" in (row := json.loads(line))
    ]
    assert told == {"id": "c0", "scope": "default", "damaged": reason, "where": "c0"}
    assert "damaged" in run("list", "--tag", "x", "--store", hurt).stdout
    screen = terminal("list", "--store", hurt)
    assert screen.end() == 0
    assert "damaged" in screen.seen


def test_a_talk_goes_on_with_what_can_be_read(run, hurt):
    done = run("chat", "--continue", "--fake", "hello", "--store", hurt)
    assert done.returncode == 0
    assert "1 passed over: damaged" in done.stderr
    assert "conversation c4 in" in done.stderr


def test_what_is_damaged_is_deleted_and_erased(run, hurt):
    assert run("delete", "c0", "--yes", "--store", hurt).stdout == "deleted c0: damaged\n"
    assert run("list", "--store", hurt).stdout.count("\n") == 4


def test_what_is_damaged_is_erased(run, hurt):
    told = json.loads(run("erase", "default", "--yes", "--json", "--store", hurt).stdout)
    assert (len(told["removed"]), told["complete"], told["left"]) == (5, True, [])
    assert run("list", "--store", hurt).stdout == ""


def test_erase_asks_and_reports(terminal, run, filled):
    screen = terminal("erase", "ada", "--store", filled)
    screen.expect("Erase all 2 conversations of scope ada for good? [y/N]")
    screen.type("n\r")
    assert screen.end() != 0
    assert len(ids(run("list", "--scope", "ada", "--store", filled))) == 2
    screen = terminal("erase", "ada", "--store", filled)
    screen.expect("[y/N]")
    screen.type("y\r")
    screen.expect("erased scope ada: 2 conversations, 4 messages, 4 records")
    assert screen.end() == 0
    assert ids(run("list", "--scope", "ada", "--store", filled)) == []
    assert len(ids(run("list", "--store", filled))) == 5


def test_erase_for_programs(run, filled):
    done = run("erase", "ada", "--yes", "--store", filled)
    assert sorted(line.split("\t")[1:] for line in done.stdout.splitlines()) == [["2", "2"], ["2", "2"]]
    told = json.loads(run("erase", "default", "--yes", "--json", "--store", filled).stdout)
    assert (told["scope"], told["messages"], told["records"], len(told["removed"]), told["left"]) == (
        "default", 20, 23, 5, []
    )  # fmt: skip
    assert json.loads(run("erase", "default", "--yes", "--json", "--store", filled).stdout)["removed"] == []


def test_what_comes_back_while_a_scope_is_erased_is_told(run, filled, monkeypatch):
    from chathistory_file import FileStore  # noqa: PLC0415

    delete = FileStore.delete

    def deleted(self, key, *, version=None):
        gone = delete(self, key, version=version)
        if key.id == "a":
            History(self).conversation("a", scope="ada").log.append([Entry("annotation")])
        return gone

    monkeypatch.setattr(FileStore, "delete", deleted)
    done = run("erase", "ada", "--yes", "--store", filled)
    assert done.returncode == 3
    assert "still there: ada/a.jsonl\n1 pieces are still there, or were begun meanwhile; erase again" in done.stderr


def test_delete_and_backends_as_json(run, filled):
    done = run("delete", "c0", "--yes", "--json", "--store", filled)
    told = json.loads(done.stdout)
    assert told.pop("updated").endswith("+00:00")
    assert told == {"id": "c0", "scope": "default", "messages": 4, "records": 5, "reason": None}
    rows = [json.loads(line) for line in run("backends", "--json").stdout.splitlines()]
    assert {"scheme": "file", "distribution": "chathistory", "problem": None} in rows


def test_a_fork_that_lives_no_longer_than_the_command_is_told(run, filled):
    done = run("fork", "c1", "f", "--store", f"{filled}?ttl=0.000001")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no conversation f" in done.stderr


def test_a_sweep_is_for_backends_that_need_one(run, filled, monkeypatch):
    done = run("sweep", "--store", filled)
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is nothing to sweep in file:" in done.stderr
    monkeypatch.setattr(FileStore, "sweep", lambda _: Swept(expired=3), raising=False)
    assert run("sweep", "--store", filled).stdout == "expired: 3, damaged: 0\n"
    assert json.loads(run("sweep", "--json", "--store", filled).stdout) == {"expired": 3, "damaged": 0}


@pytest.mark.parametrize("command", ["fork", "rewind", "export", "import", "copy", "retain", "erase", "sweep"])
def test_help_has_an_example(run, command):
    done = run(command, "--help")
    assert f"  chathistory {command}" in done.stdout.partition("Example")[2] or command == "rewind"
