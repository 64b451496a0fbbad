"""What a development version or a later one has stored is refused by name, and never changed, on every backend."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import golden_corpus
import pytest
from golden_corpus import read_records
from golden_stores import BACKENDS, dump_store, load_store, read_lines, write_lines

from chathistory import AsyncHistory, History, HistoryStore, Key, Revision, open_store
from chathistory.cli.app import run
from chathistory.errors import UnsupportedRecord
from chathistory.log.entry import compute_checksum, to_json
from chathistory.trimming import LastTurns

DEVELOPMENT = Path(golden_corpus.__file__).parent / "development"
OLD_LINES = (DEVELOPMENT / "lines.jsonl").read_text(encoding="utf-8").splitlines()
OLD_HEAD = json.loads((DEVELOPMENT / "heads.jsonl").read_text(encoding="utf-8").splitlines()[0])
KEY, GOOD = Key("default", "other"), Key("default", "good")
MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
WORDS = {1: "written by a development version of chathistory", 2: "update chathistory", 3: "update chathistory"}


def renumber_line(line: str, version: int) -> str:
    """Return a line with another number of the format, and the right checksum."""
    values = {name: value for name, value in json.loads(line).items() if name != "sum"} | {"v": version}
    rest = f",{to_json(values)[1:]}"
    return f'{{"sum":"{compute_checksum(rest)}"{rest}'


def store_other_head(store: HistoryStore, version: int) -> None:
    """Store a conversation with the records and the head of another format."""
    lines = [renumber_line(OLD_LINES[number % len(OLD_LINES)], version) for number in range(30)]
    revision = Revision("v" * 28, 5, None, json.dumps(OLD_HEAD | {"v": version}))
    store.append(KEY, lines, after=None, revision=revision)


def store_other_record(store: HistoryStore, version: int) -> None:
    """Store a conversation of this format with a record of another one."""
    History(store).conversation(KEY.id).append(MESSAGES)
    head = store.read(KEY).head
    line = renumber_line(OLD_LINES[0], version)
    store.append(KEY, [line], after=head, revision=replace(head.revision, version="x" * 28))


def calls_on(history: History) -> dict[str, Callable[[], Any]]:
    """Return the calls that must know the whole conversation, by name."""

    def chat():
        return history.conversation(KEY.id)

    return {
        "messages": lambda: chat().messages(),
        "last_messages": lambda: chat().last_messages(3),
        "trim": lambda: chat().trim(LastTurns(1, 1)),
        "rewind": lambda: chat().rewind(to=1),
        "forget": lambda: chat().forget(before=1),
    }


def calls_on_head(history: History) -> dict[str, Callable[[], Any]]:
    """Return the calls that must know the state, by name."""

    def chat():
        return history.conversation(KEY.id)

    return calls_on(history) | {
        "info": lambda: chat().info(),
        "usage": lambda: chat().usage(),
        "append": lambda: chat().append(MESSAGES),
        "annotate": lambda: chat().annotate(title="t"),
        "fork": lambda: chat().fork("fork"),
        "check": lambda: chat().repair(),
        "repair": lambda: chat().repair(dry_run=False, force=True),
        "restore": lambda: chat().restore(dry_run=False, force=True),
    }


def check_refused(calls: dict[str, Callable[[], Any]], version: int) -> None:
    """Check that each call raises the error that names the format."""
    for name, call in calls.items():
        with pytest.raises(UnsupportedRecord, match=f"has format {version}, .*{WORDS[version]}") as caught:
            call()
        assert (caught.value.key, caught.value.version) == (KEY, version), name


def check_not_transferred(history: History, *, version: int) -> None:
    """Check that exports and copies report the conversation, and transfer the good one."""
    with open_store("memory:") as target:
        copied, exported = history.copy_to(target), history.export_to(io.BytesIO())
        assert list(target.keys()) == [GOOD]
    assert (copied.copied, exported.conversations) == (1, 1)
    for report in (copied, exported):
        errors = list(report.failed.values()) + [each.error for each in report.damaged]
        assert [(type(error), error.version) for error in errors] == [(UnsupportedRecord, version)]


def check_row(history: History, version: int) -> None:
    """Check that the listing has a row with the error, and the good conversation."""
    page = history.list()
    assert [row.id for row in page.items] == [GOOD.id]
    assert [(each.key, type(each.error), each.error.version) for each in page.damaged] == [
        (KEY, UnsupportedRecord, version)
    ]


async def check_refused_async(store: HistoryStore) -> None:
    async with AsyncHistory(store) as history:
        for call in (history.conversation(KEY.id).messages, lambda: history.conversation(KEY.id).append(MESSAGES)):
            with pytest.raises(UnsupportedRecord):
                await call()


def dump(url: str, store: HistoryStore, folder: Path) -> Any:
    """Return all that a backend holds, byte for byte."""
    backend = urlsplit(url).scheme
    if backend == "memory":
        return {key: (store.read(key).head, read_records(store, key)) for key in store.keys()}  # noqa: SIM118
    folder.mkdir()
    dump_store(url, folder)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["memory", *BACKENDS])
def url(request, url_of):
    return url_of(request.param)


@pytest.mark.parametrize("version", [1, 3])
def test_a_head_of_another_format_is_refused_by_every_call(url, version, tmp_path):
    with open_store(url) as store:
        history = History(store)
        history.conversation(GOOD.id).append(MESSAGES)
        store_other_head(store, version)
        before = dump(url, store, tmp_path / "before")
        check_refused(calls_on_head(history), version)
        check_row(history, version)
        check_not_transferred(history, version=version)
        assert [(each.key, each.state) for each in history.check().found] == [(KEY, "unsupported")]
        assert {entry.version for entry in history.conversation(KEY.id).entries()} == {version}, "raw they are readable"
        asyncio.run(check_refused_async(store))
        assert dump(url, store, tmp_path / "after") == before


@pytest.mark.parametrize("version", [1, 3])
def test_a_record_of_another_format_is_refused_by_what_must_know_it(url, version, tmp_path):
    """A later one is copied and exported as it is; one of a development version is not, and not forked either."""
    with open_store(url) as store:
        history = History(store)
        history.conversation(GOOD.id).append(MESSAGES)
        store_other_record(store, version)
        before = dump(url, store, tmp_path / "before")
        check_refused(calls_on(history), version)
        assert [row.id for row in history.list().items] == [KEY.id, GOOD.id]
        if version == 1:
            check_not_transferred(history, version=version)
            check_refused({"fork": lambda: history.conversation(KEY.id).fork("fork")}, version)
        else:
            with open_store("memory:") as target:
                report = history.copy_to(target)
                assert (report.copied, report.later) == (2, 1)
                assert read_records(target, KEY) == read_records(store, KEY)
        description = history.conversation(KEY.id).repair()[0].description
        assert ("development version" if version == 1 else "later version") in description
        assert dump(url, store, tmp_path / "after") == before
        lines = read_records(store, KEY)
        history.conversation(KEY.id).repair(dry_run=False)
        assert read_records(store, KEY)[:3] == lines, "a repair leaves the record out, and keeps it in the log"
        assert len(history.conversation(KEY.id).messages()) == 2


# The layouts of backends.


def renumber_layout(backend: str, folder: Path, version: int) -> None:
    """Change the number of the layout in what a backend holds of the conversation; checksums are made to fit."""
    if backend == "file":
        path = folder / "file/default/other.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([renumber_commit(line, version) for line in lines]))
        return
    rows = read_lines(folder / f"{backend}.jsonl")
    for row in rows:
        if backend == "redis" and row["key"] == "{0}:default:other":
            row["value"][-1] = f"{version}{row['value'][-1][1:]}"
        elif backend == "mongodb" and row.get("document", {}).get("id") == "other":
            row["document"]["format"] = {"$numberInt": str(version)}
        elif backend == "s3" and row["key"] == "c/default/other":
            first, _, rest = row["body"].partition("\n")
            line = first[9:].replace('{"v":2,', f'{{"v":{version},')
            row["body"] = f"{crc32(line.encode()):08x} {line}\n{rest}"
    write_lines(folder / f"{backend}.jsonl", rows)


def renumber_commit(line: bytes, version: int) -> bytes:
    """Return a line of a file; the layout of a commit gets another number."""
    if not line.startswith(b'{"commit":'):
        return line
    text = line[: line.rindex(b'"crc":"') + len(b'"crc":"')].replace(b'{"commit":2,', b'{"commit":%d,' % version)
    return b'%b%08x"}\n' % (text, crc32(text))


LAYOUTS = [("file", 1), ("file", 3), ("s3", 1), ("s3", 3), ("redis", 2), ("mongodb", 2)]
"""Redis and MongoDB have layout 1 since the first version, so there is no earlier one."""


@pytest.mark.parametrize(("backend", "version"), LAYOUTS)
def test_another_layout_is_refused_by_every_call(url_of, tmp_path, backend, version):
    written, url = url_of(backend), url_of(backend)
    with open_store(written) as store:
        History(store).conversation(GOOD.id).append(MESSAGES)
        History(store).conversation(KEY.id).append(MESSAGES)
    (tmp_path / "corpus").mkdir()
    dump_store(written, tmp_path / "corpus")
    renumber_layout(backend, tmp_path / "corpus", version)
    load_store(tmp_path / "corpus", url)
    with open_store(url) as store:
        history = History(store)
        before = dump(url, store, tmp_path / "before")
        for name, call in calls_on_head(history).items():
            with pytest.raises(UnsupportedRecord, match=WORDS[version]) as caught:
                call()
            assert (caught.value.key, caught.value.version) == (KEY, version), name
        check_row(history, version)
        check_not_transferred(history, version=version)
        assert [(each.key, each.state) for each in history.check().found] == [(KEY, "unsupported")]
        assert dump(url, store, tmp_path / "after") == before


# Commands.


@pytest.mark.parametrize("version", [1, 3])
def test_commands_name_the_format_and_exit_with_an_error(tmp_path, capsys, version):
    url = f"file:{tmp_path}/store"
    with open_store(url) as store:
        History(store).conversation(GOOD.id).append(MESSAGES)
        store_other_head(store, version)
        before = dump(url, store, tmp_path / "before")
    codes = {}
    for command in (["show", KEY.id], ["fork", KEY.id, "fork"], ["export", "-o", f"{tmp_path}/out.jsonl"], ["list"],
                    ["copy", "--to", f"file:{tmp_path}/copy"], ["doctor"], ["doctor", "--repair"]):  # fmt: skip
        codes[" ".join(command[:2])] = run([*command, "--store", url])
        assert f"has format {version}" in "".join(capsys.readouterr()), command
    assert list(codes.values()) == [1, 1, 3, 0, 3, 1, 1], codes
    with open_store(url) as store:
        assert dump(url, store, tmp_path / "after") == before


def test_a_file_of_the_first_layout_is_refused_and_left_alone(tmp_path):
    """It had a commit after a tab, and its records were not in brackets."""
    url = f"file:{tmp_path}/store"
    data = b'{"v":1,"id":"m1"}\n\t{"commit":{"end":1,"sum":1,"start":0,"info":{}},"crc":1}\n'
    with open_store(url) as store:
        history = History(store)
        history.conversation(GOOD.id).append(MESSAGES)
        path = tmp_path / "store/default/other.jsonl"
        path.write_bytes(data)
        check_refused(calls_on_head(history), 1)
        check_row(history, 1)
        assert [(each.key, each.state) for each in history.check().found] == [(KEY, "unsupported")]
        assert path.read_bytes() == data
