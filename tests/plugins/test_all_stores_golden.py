"""The golden corpus is read as the version that wrote it read it, on every backend, and works like any other data."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from golden_corpus import (
    CORPORA,
    at_read_time,
    describe_conversation,
    describe_listing,
    describe_store,
    expected_conversations,
    keep_expected,
    read_expected,
)
from golden_stores import BACKENDS, SMALL, load_files, load_store, read_lines, to_json
from message_kinds import same
from write_corpus import write_corpus

from chathistory import History, HistoryStore, Key, open_store
from chathistory.log.events import EVENT_CLASSES
from chathistory.trimming import LastTurns

DAMAGED = Key("default", "damaged and repaired")
"""A repair has left out a record of it, which an export and a copy still read."""
UNSUPPORTED = Key("default", "unknown and needed")


@pytest.fixture(params=CORPORA, ids=lambda corpus: corpus.name)
def corpus(request):
    with at_read_time():
        yield request.param


@pytest.fixture
def golden(corpus, url_of):
    """Return a function that opens the store of the corpus on a backend; `memory` gets an export."""

    def open_golden(backend: str):
        url = url_of(backend)
        if backend != "memory":
            load_store(corpus, url)
            return open_store(url)
        store = open_store(url)
        assert set(History(store).import_from(corpus / "export.jsonl", all_scopes=True).failed) == {DAMAGED}
        return store

    return open_golden


def assert_equal(found: dict[str, dict], corpus: Path) -> None:
    """Compare what was read with what is expected, to the character; names that are new since then do not count."""
    expected = read_expected(corpus)
    assert set(found) in (set(expected), {"listing"})
    for name, values in found.items():
        for field, value in json.loads(expected[name]).items():
            if field in values:
                assert to_json(keep_expected(values[field], value)) == to_json(value), f"{name}: {field}"


# Reading.


@pytest.mark.parametrize("backend", ["file", "redis", "mongodb"])
def test_each_backend_reads_its_golden_store(golden, corpus, backend):
    with golden(backend) as store:
        assert_equal(dict(describe_store(store)), corpus)


def test_s3_reads_its_golden_store(golden, corpus):
    with golden("s3") as store:
        assert_equal(dict(describe_store(store, ("lines_sha256", "info", "messages"))), corpus)


@pytest.mark.wide
def test_s3_reads_all_of_its_golden_store(golden, corpus):
    with golden("s3") as store:
        assert_equal(dict(describe_store(store)), corpus)


def test_modification_times_that_git_has_lost_do_not_change_what_is_read(corpus, tmp_path):
    """As docs/file.md says: without them the listing is slower, and still exact."""
    load_files(corpus / "file", tmp_path / "store", times=False)
    with open_store(f"file:{tmp_path}/store") as store:
        assert_equal({"listing": describe_listing(History(store))}, corpus)


@pytest.mark.parametrize("name", ["export.jsonl", "export.jsonl.gz"])
def test_a_golden_export_is_imported(corpus, name):
    with open_store("memory:") as store:
        report = History(store).import_from(corpus / name, all_scopes=True)
        assert (report.skipped, report.different) == ([], [])
        found = {Key(part["scope"], part["id"]): part for _, part in describe_store(store) if "head" in part}
        expected = expected_conversations(corpus)
        assert set(expected) - set(found) == {DAMAGED}, "an export has no damaged conversation"
        for key, part in found.items():
            for field, value in expected[key].items():
                assert to_json(keep_expected(part[field], value)) == to_json(value), f"{key}: {field}"


def test_a_corpus_has_every_kind_of_entry(corpus):
    found = {entry["kind"] for part in expected_conversations(corpus).values() for entry in entries_of(part)}
    assert set(EVENT_CLASSES) <= found
    assert found - set(EVENT_CLASSES) == {"hologram"}


def entries_of(part: dict) -> list[dict]:
    """Return the expected entries of a conversation; [] if they cannot be read at once."""
    return part["entries"] if isinstance(part["entries"], list) else []


def test_a_corpus_has_what_each_backend_stores_apart_from_single_records(corpus):
    """Merged segments, tombstones, pieces of records, conversations that expire."""
    objects = {row["key"]: row["body"] for row in read_lines(corpus / "s3.jsonl")}
    documents = [row["document"] for row in read_lines(corpus / "mongodb.jsonl") if "document" in row]
    assert any(body.startswith("deleted ") for body in objects.values())
    assert any(
        len(json.loads(body.splitlines()[0][9:])["segments"]) > 1
        for name, body in objects.items()
        if "/big" in name and name.startswith("c/")
    )
    assert any(int(document.get("parts", {"$numberInt": "0"})["$numberInt"]) > 1 for document in documents)
    assert [row["key"] for row in read_lines(corpus / "redis.jsonl") if row.get("has_ttl")] == ["{0}:expiring:expires"]
    assert sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file()) < 1_000_000


# Working with it.

READABLE = ["annotated", "big", "big and forgotten", "compacted", "engine", "forgotten", "odd text", "rewound"]
READABLE += ["unknown and repaired", "unknown but optional"]
SEGMENTED = ["big", "big and forgotten", "odd text"]
"""Those with records in several objects; S3 answers slowly."""
NEW = [{"role": "user", "content": "new question"}, {"role": "assistant", "content": "new answer"}]


@pytest.fixture
def small_sizes(monkeypatch):
    """Let a backend move, merge and split golden records at small sizes, as when the corpus was written."""
    for name, size in SMALL.items():
        monkeypatch.setattr(name, size)


@pytest.mark.parametrize("backend", ["memory", *BACKENDS])
def test_golden_conversations_can_be_continued(golden, corpus, small_sizes, backend):
    expected = expected_conversations(corpus)
    with golden(backend) as store:
        history = History(store)
        for id in READABLE if backend != "s3" else SEGMENTED:
            messages = expected[Key("default", id)]["messages"]
            chat = history.conversation(id)
            fork = chat.fork(f"new fork of {id}")
            assert same(fork.messages(), messages), f"fork of {id}"
            chat.append(NEW)
            chat.append([{"role": "user", "content": "x" * 1500}, NEW[1]])
            assert same(chat.messages()[: len(messages)], messages), f"append to {id}"
            chat.annotate(title="new title")
            kept = chat.state().totals.messages
            chat.trim(LastTurns(1, 1))
            assert len(chat.messages()) == 2
            chat.forget(before=chat.info().end - 6)
            assert same(chat.messages(), [{"role": "user", "content": "x" * 1500}, NEW[1]]), f"trim of {id}"
            assert chat.state().totals.messages <= kept
        assert history.check(all_scopes=True).complete


@pytest.mark.parametrize("backend", ["memory", "file", "redis", "mongodb", pytest.param("s3", marks=pytest.mark.wide)])
def test_golden_conversations_are_copied_and_exported_unchanged(golden, corpus, new, backend):
    """From each backend to a store in memory and to a file, and from the file to each backend."""
    expected, exported = expected_conversations(corpus), split_export((corpus / "export.jsonl").read_bytes())
    file = io.BytesIO()
    with golden(backend) as store, new("memory") as target:
        report = History(store).copy_to(target, all_scopes=True)
        assert report.copied == len(exported)
        check_copies(target, expected)
        History(store).export_to(file, all_scopes=True)
        assert split_export(file.getvalue()) == exported
        file.seek(0)
    with new(backend) as target:
        assert History(target).import_from(file, all_scopes=True).copied == len(exported)
        check_copies(target, expected)


def check_copies(store: HistoryStore, expected: dict[Key, dict]) -> None:
    """Check heads, lines and messages of all copies."""
    for key in expected.keys() - {DAMAGED}:
        found = describe_conversation(History(store), key, ("head", "lines_sha256", "messages"))
        for field, value in found.items():
            assert to_json(value) == to_json(expected[key][field]), f"{key}: {field}"


def split_export(data: bytes) -> set[bytes]:
    """Return the complete conversations of an export: backends have them in another order."""
    parts = data.split(b'{"chathistory":2,"kind":"conversation",')
    ends = [part.find(b'{"chathistory":2,"kind":"complete"') for part in parts]
    return {part[: part.index(b"\n", end)] for part, end in zip(parts, ends, strict=True) if end >= 0}


def test_golden_data_are_never_overwritten(corpus):
    with pytest.raises(FileExistsError):
        write_corpus(corpus)
