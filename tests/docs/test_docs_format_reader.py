"""The page on the stored format is complete: a reader that was written from it alone reads the golden corpus."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import user
from format_reader import (
    UNKNOWN,
    Stored,
    parse_record,
    read_commits,
    read_export,
    read_files,
    read_mongodb,
    read_redis,
    read_s3,
    rebuild_state,
)

from chathistory import History
from chathistory.log.field_types import ViewStart

CORPUS = Path(__file__).parents[1] / "golden" / "format-2"
UNFINISHED = 1
"""The expiry of a conversation that is still being written."""
DAMAGED = ("default", "damaged and repaired")
"""A conversation with a damaged record that a repair has left out; an export marks it as aborted."""


def load_rows(backend: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / f"{backend}.jsonl").read_bytes().splitlines()]


READERS: dict[str, Callable[[], Iterator[Stored]]] = {
    "file": lambda: read_files(CORPUS / "file"),
    "redis": lambda: read_redis(load_rows("redis")),
    "mongodb": lambda: read_mongodb(load_rows("mongodb")),
    "s3": lambda: read_s3(load_rows("s3")),
    "export": lambda: read_export(gzip.decompress((CORPUS / "export.jsonl.gz").read_bytes())),
}


@pytest.fixture(scope="module")
def conversations():
    return {name: {each.name: each for each in read()} for name, read in READERS.items()}


@pytest.mark.parametrize("name", READERS)
def test_every_layout_has_the_same_records_and_heads(name, conversations):
    expected = conversations["file"]
    assert len(expected) > 30
    found = conversations[name]
    assert found.keys() == expected.keys() - ({DAMAGED} if name == "export" else set())
    for each in found.keys() - {DAMAGED}:
        stored = found[each]
        assert stored == expected[each]
        assert sorted(stored.lines) == list(range(stored.head["start"], stored.head["end"]))


def test_every_record_is_sound_and_names_its_version(conversations):
    kinds = set()
    for stored in conversations["file"].values():
        records = {position: parse_record(line) for position, line in stored.lines.items()}
        assert stored.name == DAMAGED or None not in records.values()
        kinds |= {record["kind"] for record in records.values() if record}
        if records and (last := records.get(stored.head["end"] - 1)):
            assert last["id"] == stored.head["version"]
    assert len(kinds) >= 18


@pytest.mark.parametrize("path", sorted((CORPUS / "file").glob("*/*.jsonl")), ids=lambda path: path.stem[:40])
def test_the_state_after_each_append_can_be_rebuilt_from_the_records(path):
    for stored in read_commits(path):
        records = {position: parse_record(line) for position, line in stored.lines.items()}
        if None in records.values() or not has_beginning(stored, records) or stored.head["expires"] == UNFINISHED:
            continue
        check_state(json.loads(stored.head["payload"]), records)


def check_state(state: dict[str, Any], records: dict[int, dict[str, Any]]) -> None:
    """Check that a stored state is the one that the page describes; an estimated number of tokens may differ."""
    rebuilt = rebuild_state(records)
    if rebuilt.get("tokens") is UNKNOWN:
        rebuilt["tokens"] = state["tokens"]
    assert {"v": 2, **rebuilt} == state


def has_beginning(stored: Stored, records: dict[int, dict[str, Any]]) -> bool:
    """Return True if the state before the first record is known."""
    return bool(records) and (stored.head["start"] == 0 or "snapshot" in {each["kind"] for each in records.values()})


COUNTS = {"messages": 1, "turns": 1, "tokens": 5}
USAGE = {"input_tokens": 3, "output_tokens": 2}
SUMMARY = [{"type": "compaction", "content": "They met.", "signature": "x"}, {"type": "text", "text": "And?"}]
RARE = {  # entries that the corpus does not have
    "another setup": [
        make_entry("setup", data={"model": "a", "fingerprints": {"model": "1", "system": "1"}}),
        make_entry("message", user("a")),
        make_entry("setup", data={"model": "a", "fingerprints": {"model": "1", "system": "2"}}),
    ],
    "another model": [
        make_entry("setup", data={"model": "a", "fingerprints": {"model": "1", "system": "1"}}),
        make_entry("setup", data={"model": "b", "fingerprints": {"model": "2", "system": "1"}}),
    ],
    "a rewind to before a cut": [
        make_entry("message", user("a")),
        make_entry("message", user("b")),
        make_entry("rewind", data={"to": 1, "path": [[0, 1]], "view": ViewStart(1, None, 1, 7).to_dict(), **COUNTS}),
    ],
    "a lost setup": [
        make_entry("setup", data={"model": "a", "fingerprints": {"model": "1"}}),
        make_entry(
            "repair",
            data={"path": [], "hidden_turns": 0, "cut_position": None, "lost": [], "setup_lost": True, **COUNTS},
        ),
    ],
    "a compaction by the API": [
        make_entry("message", user("a")),
        make_entry("message", {"role": "assistant", "content": SUMMARY}, {"response": {"id": "m", "usage": USAGE}}),
    ],
    "a refused compaction": [
        make_entry("message", user("a")),
        make_entry(
            "message", {"role": "assistant", "content": SUMMARY}, {"response": {"id": "m", "stop_reason": "refusal"}}
        ),
    ],
    "another thinking policy": [
        make_entry("message", user("a")),
        make_entry("thinking_policy", data={"drop_stale_thinking": True}),
        make_entry("thinking_policy", data={"drop_stale_thinking": False}),
    ],
}


@pytest.mark.parametrize("name", RARE)
def test_the_states_of_rare_entries_can_be_rebuilt_from_the_records(name):
    with MemoryStore() as store:
        log = History(store).conversation("rare").log
        log.append(RARE[name])
        result = store.read(log.key)
    records = {record.position: parse_record(record.body.encode()) for record in result.records}
    check_state(json.loads(result.head.revision.payload), records)


def test_states_of_many_appends_were_compared():
    commits = [stored for path in (CORPUS / "file").glob("*/*.jsonl") for stored in read_commits(path)]
    assert len(commits) > 100
