"""`fork`, `rewind`, `annotate`, `export`, `import`, `copy`, `delete`, `prune`, and the filters of `list`."""

from __future__ import annotations

import gzip
import json
import shlex
from dataclasses import replace

import pytest
from chathistory_file import FileStore
from cli_terminal import COMMAND, Terminal
from entry_factory import make_entry

from chathistory import History, Leftovers, open_store
from chathistory.cli.errors import ExitCode
from chathistory.log.clock import now
from chathistory.storage.abilities import SweepReport

SAID = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def reply(model):
    usage = {"input_tokens": 1000, "output_tokens": 234}
    return {"type": "message", "role": "assistant", "model": model, "content": "x", "usage": usage, "id": "m"}


@pytest.fixture
def filled(open_history, store):
    """Five conversations in `default`, two in `ada`."""
    with open_history() as history:
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
def test_filters_select_conversations(run, filled, words, due):
    done = run("list", "--store", filled, *words)
    assert (done.returncode, ids(done)) == (0, due)
    assert ("matches the filters" in done.stderr) == (due == [])


def test_the_next_page_keeps_the_filters(run, filled, monkeypatch):
    monkeypatch.setattr("chathistory.operations.listing.SCAN_LIMIT", 1)
    seen, words = [], ["list", "--store", filled, "--tag", "even", "--limit", "2"]
    while words:
        done = run(*words)
        seen.append(ids(done))
        words = done.stderr.split()[2:]
        assert not words or words[:5] == ["list", "--limit", "2", "--tag", "even"]
    assert seen == [["c4", "c2"], ["c0"]]


def test_the_next_page_keeps_every_kind_of_filter(run, open_history, store):
    with open_history() as history:
        for name in ("a", "b"):
            chat = history.conversation(name)
            chat.append([SAID[0], reply("m 1")])
            chat.annotate(title="the title", tags=["a b", "c"], metadata={"n": 4, "who": "4"})
            chat.log.append([make_entry("turn_opened", turn="t", data={"lease_until": 1})])
    words = [*("--title", "the title"), *("--tag", "a b", "--tag", "c"), *("--meta", "n=4", "--meta", 'who="4"')]
    words += ["--model", "m 1", "--since", "2026-01-02T03:04:05+00:00", "--open"]
    first = run("list", "--limit", "1", *words, "--store", store)
    assert ids(first) == ["b"]
    again = shlex.split(first.stderr.removeprefix("more: chathistory "))
    assert sorted(again[3 : again.index("--after")]) == sorted(words)
    second = run(*again)
    assert (ids(second), second.stderr) == (["a"], "")


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
    printed = json.loads(run("fork", "c1", "f", "--into", "ada", "--json", "--store", filled).stdout)
    origin = {"scope": "default", "id": "c1", "position": 4}
    assert printed == {"id": "f", "scope": "ada", "start": 0, "end": 5, "messages": 4, "origin": origin}
    printed = json.loads(run("rewind", "c1", "--to", "2", "--json", "--store", filled).stdout)
    assert printed == {"id": "c1", "scope": "default", "start": 0, "end": 5, "messages": 2, "origin": None}


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["fork", "c9", "f"], 1, "there is no conversation c9"),
        (["fork", "c1", "c2"], 1, "conversation 'c2' in scope 'default' exists already"),
        (["fork", "c1", "f", "--at", "99"], 1, "cannot fork at position 99: choose one from 1 to 4"),
        (["rewind", "c1"], 2, "--to"),
        (["rewind", "c1", "--to", "99"], 1, "cannot rewind to 99"),
        (["list", "--since", "tomorrow"], 2, "'--since': must be a time such as"),
        (["list", "--meta", "x"], 2, "NAME=VALUE"),
        (["import", "no-such-file"], 1, "No such file"),
        (["copy"], 2, "--to"),
        (["copy", "--to", "nowhere"], 1, "a store URL must begin with a scheme"),
        (["prune", "--ttl", "soon"], 2, "must be a duration, such as 90s"),
        (["prune", "--count", "-1"], 2, "--count"),
        (["prune", "--count", "0"], 2, "--yes"),
        (["delete", "c0"], 2, "--yes"),
        (["delete", "--scope", "ada", "--all"], 2, "--yes"),
        (["delete", "--all", "--yes"], 2, "name it with --scope"),
        (["delete", "--yes"], 2, "give one of these to delete"),
        (["delete", "c0", "--tag", "x", "--yes"], 2, "give one of these to delete"),
        (["delete", "--scope", "ada", "--all", "--tag", "x", "--yes"], 2, "give one of these to delete"),
        (["delete", "c0", "c9", "--yes"], 1, "there is no conversation c9"),
        (["export", "c0", "--all-scopes"], 2, "IDs are only valid in one scope"),
        (["copy", "--scope", "ada", "--all-scopes", "--to", "memory:"], 2, "cannot be given together"),
        (["doctor", "c0", "--all-scopes"], 2, "an ID is only valid in one scope"),
        (["annotate", "c9", "--title", "x"], 1, "there is no conversation c9"),
        (["annotate", "c0", "--meta", "x"], 2, "NAME=VALUE"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_explained_in_one_sentence(run, filled, words, code, expected):
    done = run(*words, "--store", filled)
    assert expected in done.stderr
    assert (done.returncode, done.stdout) == (code, "")


def test_out_and_in_again(run, filled, tmp_path):
    done = run("export", "--all-scopes", "-o", "all.jsonl.gz", "--store", filled)
    assert (done.returncode, done.stdout) == (0, "exported: 7 conversations, 27 records\n")
    assert gzip.decompress((tmp_path / "all.jsonl.gz").read_bytes()).endswith(b'"conversations":7,"records":27}\n')
    done = run("import", "all.jsonl.gz", "--all-scopes", "--store", "file:./new")
    assert (done.returncode, done.stdout) == (0, "imported: 7 new, 27 records\n")
    done = run("import", "all.jsonl.gz", "--all-scopes", "--json", "--store", "file:./new")
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
    assert back.stdout == "imported: 2 new, 4 records\n"
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


def test_ids_that_do_not_exist_are_reported(run, filled, tmp_path):
    done = run("export", "c1", "c9", "-o", "x", "--store", filled)
    assert done.returncode == ExitCode.PARTLY == 3
    assert done.stdout == "exported: 1 conversation, 4 records\n"
    assert "not exported: c9 in scope default: there is no conversation 'c9'" in done.stderr
    assert run("export", "c9", "-o", "x.md", "--store", filled).returncode == 3
    done = run("copy", "c9", "--to", "file:./new", "--store", filled)
    assert (done.returncode, done.stdout) == (3, "copied: nothing\n")


def test_a_list_of_messages_comes_in(run, tmp_path, store):
    (tmp_path / "messages.json").write_text(json.dumps(SAID))
    assert run("import", "messages.json", "--store", store).returncode == 1
    done = run("import", "messages.json", "--id", "mine", "--store", store)
    assert (done.returncode, done.stdout) == (0, "imported: 1 new, 2 records\n")
    shown = run("show", "mine", "--messages", "--store", store).stdout
    assert [json.loads(line) for line in shown.splitlines()] == SAID
    for more in ([], ["--replace"]):
        done = run("import", "messages.json", "--id", "mine", *more, "--store", store)
        assert (done.returncode, done.stdout) == (0, "imported: 1 already there\n")
    (tmp_path / "others.json").write_text(json.dumps(SAID[:1] * 3))
    done = run("import", "others.json", "--id", "mine", "--store", store)
    assert done.returncode == 3
    assert "a different conversation has this ID" in done.stderr


def test_copy_and_bring_up_to_date(run, filled, open_history):
    done = run("copy", "--all-scopes", "--to", "file:./new", "--store", filled)
    assert (done.returncode, done.stdout) == (0, "copied: 7 new, 27 records\n")
    with open_history() as history:
        history.conversation("c1").append(SAID)
    done = run("copy", "--all-scopes", "--to", "file:./new", "--store", filled)
    assert done.stdout == "copied: 1 continued, 6 already there, 2 records\n"
    done = run("copy", "c1", "c2", "--to", "file:./two", "--no-verify", "--threads", "1", "--store", filled)
    assert done.stdout.startswith("copied: 2 new")
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
    assert (done.returncode, done.stdout) == (0, "copied: 5 new, 25 already there, 23 records\n")


def test_many_troubles_are_cut_short(run, filled, tmp_path):
    for url in ("one", "two"):
        with open_store(f"file:{tmp_path}/{url}") as store:
            for number in range(25):
                History(store).conversation(f"c{number}").append(SAID)
    done = run("copy", "--to", "file:./one", "--store", "file:./two")
    assert "5 more; --json lists all of them" in done.stderr
    done = run("copy", "--to", "file:./one", "--store", "file:./two", "--json")
    assert len(json.loads(done.stdout)["not_done"]) == 25


def test_standard_output_is_only_json_even_after_a_question(env, tmp_path, filled):
    screen = Terminal(
        ["-c", f"{COMMAND} prune --count 0 --json --store {filled} > out"], env, tmp_path, command=("sh",)
    )
    screen.expect("Remove", "permanently? [y/N]")
    screen.type("y\r")
    assert screen.end() == 0
    screen.close()
    assert json.loads((tmp_path / "out").read_text())["removed"]


def test_a_bar_is_drawn_where_there_is_a_terminal(terminal, filled):
    screen = terminal("copy", "--all-scopes", "--to", "file:./new", "--store", filled)
    assert screen.end() == 0
    assert "copying" in screen.seen
    assert "/7" in screen.seen
    assert "copied: 7 new" in screen.seen
    assert "\x1b[" not in screen.seen.partition("copied: 7 new")[2]


def test_prune_shows_in_a_dry_run_what_would_go(run, filled):
    words = ("prune", "--count", "2", "--store", filled)
    done = run(*words, "--dry-run")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [[row[0], row[1], row[4]] for row in rows] == [[f"c{n}", "4", "too many"] for n in (2, 1, 0)]
    assert done.stderr == "would delete 3 conversations: 12 messages, 14 records; kept 2\n"
    assert len(ids(run("list", "--store", filled))) == 5
    done = run(*words, "--yes", "--json")
    printed = json.loads(done.stdout)
    assert (printed["kept"], printed["dry_run"], [row["reason"] for row in printed["removed"]]) == (
        2,
        False,
        ["count"] * 3,
    )
    assert ids(run("list", "--store", filled)) == ["c4", "c3"]
    assert run(*words, "--yes").stderr == "deleted 0 conversations: 0 messages, 0 records; kept 2\n"


def test_prune_in_a_terminal_asks_when_it_has_shown_what_will_go(terminal, filled, run):
    words = ("prune", "--count", "4", "--ttl", "1d", "--age", "2w", "--store", filled)
    screen = terminal(*words)
    screen.expect("WHY", "c0", "too many", "Remove 1 conversation permanently? [y/N]")
    screen.type("n\r")
    assert screen.end() == ExitCode.INTERRUPTED
    assert len(ids(run("list", "--store", filled))) == 5
    screen = terminal(*words)
    screen.expect("[y/N]")
    screen.type("y\r")
    screen.expect("deleted 1 conversation: 4 messages, 5 records; kept 4")
    assert screen.end() == 0
    assert "c0" not in ids(run("list", "--store", filled))
    screen = terminal("prune", "--ttl", "1d", "--store", filled)
    assert screen.end() == 0
    assert "WHY" not in screen.seen


@pytest.fixture
def hurt(filled, open_history):
    """The store with one conversation that has an unreadable head."""
    with open_history() as history:
        head = history.conversation("c0").log.refresh()
        revision = type(head.revision)("v" * 8, now(), None, "nonsense")
        history.store.append(head.key, ["{}"], after=head, revision=revision)
    return filled


@pytest.mark.parametrize("more", [[], ["--full-scan"]])
def test_prune_keeps_and_reports_damaged_conversations(run, hurt, more):
    done = run("prune", "--count", "0", "--yes", *more, "--store", hurt)
    assert done.returncode == 3
    assert "deleted 4 conversations: 16 messages, 18 records; kept 0" in done.stderr
    assert "kept: c0 is damaged; examine it with: chathistory doctor" in done.stderr
    printed = json.loads(run("prune", "--count", "0", "--dry-run", "--json", *more, "--store", hurt).stdout)
    assert [(each["id"], each["scope"], each["where"]) for each in printed["damaged"]] == [("c0", "default", "c0")]
    assert printed["complete"]


def test_what_is_damaged_is_a_row_of_the_list(run, terminal, hurt):
    done = run("list", "--store", hurt)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert len(rows) == 5
    problem = "the head of conversation 'c0' is damaged: its payload is not the state of a conversation"
    reason = f"{problem}; `restore` can make a new one, and `chathistory doctor` shows what is damaged"
    assert rows[-1] == ["c0", "damaged", "", "", "", reason]
    assert "1 damaged; examine them with: chathistory doctor" in done.stderr
    [printed] = [
        row
        for line in run("list", "--json", "--store", hurt).stdout.splitlines()
        if "damaged" in (row := json.loads(line))
    ]
    assert printed == {"id": "c0", "scope": "default", "damaged": reason, "where": "c0"}
    assert "damaged" in run("list", "--tag", "x", "--store", hurt).stdout
    screen = terminal("list", "--store", hurt)
    assert screen.end() == 0
    assert "damaged" in screen.seen


def test_chat_continues_with_a_readable_conversation(run, hurt):
    done = run("chat", "--continue", "--fake", "hello", "--store", hurt)
    assert done.returncode == 0
    assert "skipped 1 damaged" in done.stderr
    assert "conversation c4 in" in done.stderr


def test_what_is_damaged_is_deleted(run, hurt):
    done = run("delete", "c0", "--yes", "--store", hurt)
    assert (done.returncode, done.stdout) == (0, "c0\tdamaged\t\t\t\n")
    assert "deleted 1 conversation: 0 messages, 1 damaged" in done.stderr
    assert run("list", "--store", hurt).stdout.count("\n") == 4


def test_what_is_damaged_is_deleted_with_its_scope(run, hurt):
    words = ("delete", "--scope", "default", "--all", "--store", hurt)
    seen = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert (len(seen["removed"]), seen["dry_run"]) == (5, True)
    assert run("list", "--store", hurt).stdout.count("\n") == 5
    printed = json.loads(run(*words, "--yes", "--json").stdout)
    assert (len(printed["removed"]), printed["complete"], printed["left"]) == (5, True, [])
    assert run("list", "--store", hurt).stdout == ""


def test_delete_of_a_scope_asks_and_reports(terminal, run, filled):
    words = ("delete", "--scope", "ada", "--all", "--store", filled)
    screen = terminal(*words)
    screen.expect("Delete all of scope ada (2 conversations) permanently? [y/N]")
    screen.type("n\r")
    assert screen.end() != 0
    assert len(ids(run("list", "--scope", "ada", "--store", filled))) == 2
    screen = terminal(*words)
    screen.expect("[y/N]")
    screen.type("y\r")
    screen.expect("deleted 2 conversations: 4 messages, 4 records")
    assert screen.end() == 0
    assert ids(run("list", "--scope", "ada", "--store", filled)) == []
    assert len(ids(run("list", "--store", filled))) == 5


def test_delete_of_a_scope_for_programs(run, filled):
    done = run("delete", "--scope", "ada", "--all", "--yes", "--store", filled)
    assert sorted(line.split("\t")[1:3] for line in done.stdout.splitlines()) == [["2", "2"], ["2", "2"]]
    words = ("delete", "--scope", "default", "--all", "--yes", "--json", "--store", filled)
    printed = json.loads(run(*words).stdout)
    assert (printed["scope"], printed["messages"], printed["records"], len(printed["removed"]), printed["left"]) == (
        "default", 20, 23, 5, []
    )  # fmt: skip
    assert json.loads(run(*words).stdout)["removed"] == []


def test_what_is_written_while_a_scope_is_deleted_is_reported(run, filled, monkeypatch):
    delete = FileStore.delete

    def delete_and_append(self, key, *, version=None):
        was_deleted = delete(self, key, version=version)
        if key.id == "a":
            History(self).conversation("a", scope="ada").log.append([make_entry("annotation")])
        return was_deleted

    monkeypatch.setattr(FileStore, "delete", delete_and_append)
    done = run("delete", "--scope", "ada", "--all", "--yes", "--store", filled)
    assert done.returncode == 3
    assert "not deleted: ada/a.jsonl\nleft, or new in the meantime: 1 piece; run the command again" in done.stderr


def test_delete_of_a_scope_reports_leftovers_and_what_it_cannot_reach(run, filled, monkeypatch):
    """As on a server that keeps backups, with an account that may not search the whole storage."""
    monkeypatch.setattr(FileStore, "traits", replace(FileStore.traits, not_reached=("backups", "versions")))
    monkeypatch.setattr(FileStore, "remove_leftovers", lambda store, scope: Leftovers(removed=2, complete=False))
    done = run("delete", "--scope", "ada", "--all", "--yes", "--store", filled)
    assert done.returncode == ExitCode.PARTLY
    for words in (
        "also deleted: 2 leftover pieces that belonged to no conversation\n",
        "not removed, because the server keeps copies there: backups, versions\n",
        "cannot tell whether anything is left: this account may not search the whole storage\n",
    ):
        assert words in done.stderr


@pytest.mark.parametrize(
    "words",
    [["prune", "--count", "0", "--yes"], ["copy", "--to", "file:./new"], ["export", "--output", "a.jsonl", "--force"]],
)
def test_an_index_that_may_have_lost_entries_is_reported(run, filled, monkeypatch, words):
    monkeypatch.setattr(FileStore, "is_index_complete", lambda _: False)
    done = run(*words, "--store", filled)
    assert done.returncode == ExitCode.PARTLY
    assert "some conversations may have been missed: this server's index can lose entries" in done.stderr
    whole = run(*words, "--full-scan", "--store", filled)
    assert (whole.returncode, "missed" in whole.stderr) == (0, False)


def test_delete_by_filters(run, filled):
    words = ("delete", "--tag", "even", "--tag", "x", "--store", filled)
    done = run(*words, "--dry-run")
    assert (ids(done), len(ids(run("list", "--store", filled)))) == (["c4", "c2"], 5)
    assert done.stderr == "would delete 2 conversations: 8 messages, 10 records\n"
    done = run(*words, "--yes")
    assert (done.returncode, ids(done)) == (0, ["c4", "c2"])
    assert ids(run("list", "--store", filled)) == ["c3", "c1", "c0"]
    nothing = run(*words, "--yes")
    assert (nothing.returncode, nothing.stdout) == (0, "")


def test_delete_by_filters_in_a_terminal_shows_what_will_go(terminal, run, filled):
    screen = terminal("delete", "--model", "m1", "--store", filled)
    screen.expect("ID", "c3", "c1", "Delete 2 conversations (8 messages) permanently? [y/N]")
    screen.type("y\r")
    screen.expect("deleted 2 conversations: 8 messages, 8 records")
    assert screen.end() == 0
    assert ids(run("list", "--store", filled)) == ["c4", "c2", "c0"]


@pytest.mark.parametrize("then", ["changed", "deleted"])
def test_what_is_changed_after_a_filter_found_it_is_kept(run, filled, monkeypatch, then):
    find = History.list

    def found(self, **wanted):
        page = find(self, **wanted)
        if then == "changed":
            self.conversation("c1").append(SAID)
        else:
            self.delete("c1")
        return page

    monkeypatch.setattr(History, "list", found)
    done = run("delete", "--model", "m1", "--yes", "--json", "--store", filled)
    why = "somebody changed it in the meantime" if then == "changed" else "somebody else deleted it in the meantime"
    printed = json.loads(done.stdout)
    assert (done.returncode, [row["id"] for row in printed["removed"]]) == (ExitCode.PARTLY, ["c3"])
    assert printed["left"] == [{"id": "c1", "scope": "default", "why": why}]
    done = run("delete", "--model", "m1", "--yes", "--store", filled)
    assert (done.returncode, done.stdout) == ((ExitCode.FAILED if then == "changed" else 0), "")
    assert (f"not deleted: c1: {why}" in done.stderr) == (then == "changed")


def test_delete_and_backends_as_json(run, filled):
    printed = json.loads(run("delete", "c0", "c1", "--yes", "--json", "--store", filled).stdout)
    counts = [(row["id"], row["scope"], row["messages"], row["records"]) for row in printed["removed"]]
    assert counts == [("c0", "default", 4, 5), ("c1", "default", 4, 4)]
    assert (printed["left"], printed["dry_run"]) == ([], False)
    rows = [json.loads(line) for line in run("backends", "--json").stdout.splitlines()]
    assert {"scheme": "file", "distribution": "chathistory", "problem": None} in rows


def test_commands_work_on_one_scope_without_all_scopes(run, filled, tmp_path):
    (tmp_path / "chathistory.toml").write_text(f'store = "{filled}"\nscope = "ada"')
    assert run("export").stdout.count('"conversation"') == 2
    assert run("copy", "--to", "file:./new").stdout.startswith("copied: 2 new")
    assert run("copy", "--to", "file:./new", "--all-scopes").stdout.startswith("copied: 5 new, 2 already there")
    assert run("doctor").stderr.startswith("2 conversations examined")
    assert run("doctor", "--all-scopes").stderr.startswith("7 conversations examined")
    whole = run("export", "--all-scopes").stdout
    run("import", "-", "--store", "file:./one", stdin=whole)
    assert len(ids(run("list", "--store", "file:./one"))) == 7
    run("import", "-", "--all-scopes", "--store", "file:./two", stdin=whole)
    assert len(ids(run("list", "--store", "file:./two"))) == 2


def test_rename_gives_another_id(run, filled):
    done = run("rename", "c1", "new", "--store", filled)
    assert (done.returncode, done.stdout) == (0, "renamed c1 to new\n")
    assert sorted(ids(run("list", "--store", filled))) == ["c0", "c2", "c3", "c4", "new"]
    refused = run("rename", "new", "c0", "--store", filled)
    assert (refused.returncode, "conversation 'c0' in scope 'default' exists already" in refused.stderr) == (1, True)
    printed = json.loads(run("rename", "a", "b", "--scope", "ada", "--json", "--store", filled).stdout)
    assert printed == {"id": "b", "scope": "ada", "before": "a"}
    assert "did you mean c0" in run("rename", "c00", "c0", "--store", filled).stderr


def test_annotate_sets_title_tags_and_metadata(run, filled):
    words = ("annotate", "c2", "--store", filled)
    assert run(*words).stdout == "title: Title 2\ntags: even, x\nmetadata: n=2\n"
    done = run(*words, "--title", "New\x1b[2J", "--tag", "z", "--tag", "x", "--untag", "even", "--meta", "who=me")
    assert done.stdout == "title: New␛[2J\ntags: x, z\nmetadata: n=2, who=me\n"
    assert ids(run("list", "--tag", "z", "--meta", "who=me", "--store", filled)) == ["c2"]
    done = run(*words, "--title", "", "--unmeta", "n", "--untag", "x", "--untag", "z", "--json")
    printed = {"id": "c2", "scope": "default", "title": None, "tags": [], "metadata": {"who": "me"}}
    assert json.loads(done.stdout) == printed
    assert json.loads(run(*words, "--json").stdout) == printed


def test_a_fork_that_has_expired_already_is_reported(run, filled):
    done = run("fork", "c1", "f", "--store", f"{filled}?ttl=0.000001")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no conversation f" in done.stderr


def test_a_sweep_is_for_backends_that_need_one(run, filled, monkeypatch):
    done = run("sweep", "--store", filled)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this kind of store needs no sweep (file:" in done.stderr
    monkeypatch.setattr(FileStore, "sweep", lambda _: SweepReport(expired=3), raising=False)
    assert run("sweep", "--store", filled).stdout == "expired: 3, damaged: 0\n"
    assert json.loads(run("sweep", "--json", "--store", filled).stdout) == {"expired": 3, "damaged": 0}


@pytest.mark.parametrize(
    "command", ["annotate", "rename", "fork", "rewind", "export", "import", "copy", "delete", "prune", "sweep"]
)
def test_help_has_an_example(run, command):
    done = run(command, "--help")
    assert f"  chathistory {command}" in done.stdout.partition("Example")[2]
