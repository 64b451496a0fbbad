"""A change of what is stored makes the comparison with the golden corpus fail: each test makes one, and sees it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden_corpus import NEWEST, at_read_time, describe_listing, describe_store, keep_expected, read_expected
from golden_stores import dump_redis, load_store, read_lines, to_json

from chathistory import Head, History, HistoryStore, Key, Record, Revision, open_store
from chathistory.errors import ChatHistoryError
from chathistory.log import stored_fields
from chathistory.log.entry import decode, encode
from chathistory.log.events import EVENT_CLASSES, MessageAdded
from chathistory.log.state import ViewState, read_state


@pytest.fixture(autouse=True)
def _clock():
    with at_read_time():
        yield


def find_difference(store: HistoryStore) -> str | None:
    """Return what of a store differs from the golden corpus; None: nothing."""
    expected, names = read_expected(NEWEST), set()
    for name, values in describe_store(store, ("lines_sha256", "state", "messages", "entries")):
        names.add(name)
        for field, value in json.loads(expected[name]).items():
            if field in values and to_json(keep_expected(values[field], value)) != to_json(value):
                return f"{name}: {field}"
    return None if names == set(expected) else "conversations"


def rename_field(monkeypatch, cls: type, name: str) -> None:
    """Store a field of a class under another name."""
    layout = stored_fields._find_layout(cls)
    by_name = {"renamed" if each == name else each: field for each, field in layout.by_name.items()}
    monkeypatch.setitem(stored_fields._layouts, cls, dataclasses.replace(layout, by_name=by_name))


def renumber_format(monkeypatch) -> None:
    monkeypatch.setattr("chathistory.log.entry.FORMAT", 3)
    monkeypatch.setattr("chathistory.log.state.FORMAT", 3)


CHANGES = {
    "the number of the format": renumber_format,
    "the name of a field of a message": lambda patch: rename_field(patch, MessageAdded, "response"),
    "the name of a field of a state": lambda patch: rename_field(patch, ViewState, "view_start"),
    "a kind of entry": lambda patch: patch.delitem(EVENT_CLASSES, "rewind"),
    "the checksum of a line": lambda patch: patch.setattr(
        "chathistory.log.entry.compute_checksum", lambda text: f"{zlib.adler32(text.encode()):08x}"
    ),
    "the number of the layout of files": lambda patch: patch.setattr("chathistory_file.schema.LAYOUT", 3),
    "the checksum of a record in a file": lambda patch: patch.setattr("chathistory_file.schema.crc32", zlib.adler32),
    "the names of files": lambda patch: patch.setattr("chathistory_file.files.safe_name", lambda name: f"{name}~"),
}


def test_without_a_change_nothing_differs(url_of):
    load_store(NEWEST, url := url_of("file"))
    with open_store(url) as store:
        assert find_difference(store) is None


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_stored_is_noticed(url_of, monkeypatch, change):
    load_store(NEWEST, url := url_of("file"))
    CHANGES[change](monkeypatch)
    with open_store(url) as store, contextlib.suppress(ChatHistoryError):  # an error shows the change as well
        assert find_difference(store) is not None


LAYOUTS = {
    "redis": ("chathistory_redis.schema.Layout.index", staticmethod(lambda scopes, scope: scopes + scope.encode())),
    "mongodb": ("chathistory_mongodb.schema.FORMAT", 2),
    "s3": ("chathistory_s3.schema.FORMAT", 3),
}


@pytest.mark.parametrize("backend", LAYOUTS)
def test_a_change_of_the_layout_of_a_server_is_noticed(url_of, monkeypatch, backend):
    load_store(NEWEST, url := url_of(backend))
    name, value = LAYOUTS[backend]
    monkeypatch.setattr(name, value)
    with open_store(url) as store:
        try:
            found = describe_listing(History(store))
        except ChatHistoryError as error:
            found = {"error": type(error).__name__}
    assert to_json(found) != read_expected(NEWEST)["listing"]


def test_a_change_of_the_number_of_exports_is_noticed(monkeypatch):
    monkeypatch.setattr("chathistory.transfer.jsonl.FORMAT", 3)
    with open_store("memory:") as store, pytest.raises(ChatHistoryError):
        History(store).import_from(NEWEST / "export.jsonl", all_scopes=True)


# What is written: the same as then, to the character.


def read_appends(path: Path) -> Iterator[tuple[list[str], Head]]:
    """Yield the appends in a file of the `file:` store: the bodies, and the head after them."""
    bodies: list[str] = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        if not line.startswith('{"commit":'):
            bodies.append(line[line.index('",') + 2 : -1])
            continue
        values = json.loads(line)
        payload = line[line.index(',"info":') + len(',"info":') : -len(',"crc":"c01dcafe"}')]
        revision = Revision(values["version"], values["updated"], values["expires"], payload)
        yield bodies, Head(Key(values["scope"], values["id"]), values["start"], values["end"], revision)
        bodies = []


def append_again(corpus: Path, store: HistoryStore) -> list[Path]:
    """Repeat the appends of all golden files that were never shortened; return their paths."""
    paths = []
    for path in sorted((corpus / "file").rglob("*.jsonl")):
        appends = list(read_appends(path))
        if any(head.start for _, head in appends):
            continue
        before = None
        for bodies, head in appends:
            before = store.append(head.key, bodies, after=before, revision=head.revision)
            assert before == head
        paths.append(path)
    return paths


def test_files_are_written_as_they_were(tmp_path):
    with open_store(f"file:{tmp_path}/store") as store:
        paths = append_again(NEWEST, store)
        assert len(paths) > 30
        for path in paths:
            again = tmp_path / "store" / path.relative_to(NEWEST / "file")
            assert again.read_bytes() == path.read_bytes()


def test_keys_of_redis_are_written_as_they_were(url_of):
    url = url_of("redis")
    with open_store(url) as store:
        append_again(NEWEST, store)
    golden = {row["key"]: row for row in read_lines(NEWEST / "redis.jsonl")}
    place, _, prefix = url.partition("?prefix=")
    found = [row for row in dump_redis(place, prefix) if row["type"] == "list"]
    assert len(found) > 30
    assert found == [golden[row["key"]] for row in found]


def test_lines_and_states_are_written_as_they_were():
    """Reading and encoding again gives the same characters, for all entries and states of the corpus."""
    count = 0
    for path in sorted((NEWEST / "file").rglob("*.jsonl")):
        for bodies, head in read_appends(path):
            assert read_state(head).encode() == head.revision.payload
            for body in bodies:
                if body.startswith("{"):
                    assert encode(decode(Record(0, body), head.key)) == body
                    count += 1
    assert count > 200
