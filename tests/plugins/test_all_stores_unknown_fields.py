"""Fields that this version does not know are kept, wherever an object is stored, by every operation on every backend.

Where they are not, that is on purpose: a new object has none, such as the state of a fork, which is computed from its
records; a closed turn; or a head that is restored from the records.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from golden_corpus import read_records
from golden_stores import SMALL
from message_kinds import same

from chathistory import History, Key, Revision
from chathistory.log.entry import compute_checksum, to_json
from chathistory.trimming import LastTurns

KEY = Key("default", "future")
UNKNOWN = {"from_the_future": {"a.b": [None, {"$k": -0.0}], "text": "\x00\u2028"}}
WITHOUT_OBJECTS = {("metadata",), ("usage",), ("setup_fingerprints",), ("sent_ids",), ("fingerprints",)}
"""Objects whose names are chosen by users or by the API: any name is known there."""


def add_unknown(value: Any) -> Any:
    """Return a JSON value with an unknown field in every object of it, at every depth."""
    if isinstance(value, list):
        return [add_unknown(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        **{name: each if (name,) in WITHOUT_OBJECTS else add_unknown(each) for name, each in value.items()},
        **UNKNOWN,
    }


def make_line(kind: str, id: str, **fields: Any) -> str:
    """Return the line of an entry as a later version writes it: with an unknown field in every object."""
    values = add_unknown({"v": 2, "id": id, "kind": kind, "at": 5, **fields})
    rest = f",{to_json(values)[1:]}"
    return f'{{"sum":"{compute_checksum(rest)}"{rest}'


OWN = {"host": "machine", "pid": 4321, "boot": "b", "namespace": "1-2", "started": 5}
RESPONSE = {"id": "msg_1", "model": "m", "usage": {"output_tokens": 1}, "container": {"id": "container_1"}}
LINES = [
    make_line("setup", "e0",
        data={"model": "m", "system": [{"type": "text", "text": "s"}], "fingerprints": {"model": "1"}}),
    make_line("message", "e1", data={"opened_by": OWN, "lease_until": 5, "unsent_fields": {"a": {}}}, turn="t",
        message={"role": "user", "content": [{"type": "text", "text": "q0"}]}),
    make_line("message", "e2", data={"response": RESPONSE}, turn="t",
        message={"role": "assistant", "content": [{"type": "text", "text": "a0"}]}),
    make_line("annotation", "e3", optional=True, data={"title": "t"}),
    make_line("message", "e4", message={"role": "user", "content": [{"type": "text", "text": "q1"}]}),
    make_line("rewind", "e5", data={"path": [[0, 4]], "messages": 2, "turns": 1, "tokens": 9,
        "view": {"view_start": 0, "cut_position": None, "hidden_turns": 0, "view_since": 5}}),
    make_line("turn_abandoned", "e6", turn="x", data={"refusal": {"kind": "turn", "problem": "p", "path": None,
        "locations": [], "certain": True, "status": 400}}),
    make_line("message", "e7", data={"key": "k"}, message={"role": "user", "content": "q2"}),
    make_line("message", "e8", message={"role": "assistant", "content": [{"type": "text", "text": "a2"}]}),
]  # fmt: skip
STATE = add_unknown(
    {
        "v": 2,
        "creation_id": "e0",
        "created": 5,
        "origin": {"scope": "default", "id": "old", "position": 3},
        "messages": 4,
        "turns": 2,
        "usage": {"output_tokens": 1},
        "path_position": 5,
        "setup_position": 0,
        "setup_fingerprints": {"model": "1"},
        "unanswered_turn": {"id": "t", "state": "interrupted", "since": 5, "process": OWN},
        "container": {"id": "container_1", "expires_at": None, "since": 5},
    }
)


def store_future(store, state=STATE, lines=LINES) -> History:
    """Store the conversation as a later version stores it."""
    revision = Revision("e8", 5, None, to_json(state))
    store.append(KEY, lines, after=None, revision=revision)
    return History(store)


def read_state(store, key=KEY) -> dict[str, Any]:
    """Return the payload of a head as JSON."""
    return json.loads(store.read(key, start=0, stop=0).head.revision.payload)


def read_lines(store, key=KEY) -> list[str]:
    return [record.body for record in read_records(store, key)]


def check_unknown(state: dict[str, Any], *objects: str) -> None:
    """Check that a state, and the named objects within it, still have the unknown field."""
    for value in [state, *(state[name] for name in objects)]:
        assert same(value["from_the_future"], UNKNOWN["from_the_future"]), value


def change_with_every_operation(history: History) -> None:
    """Append, annotate, trim, rewind, leave out, repair, and forget, each in a new handle."""
    store = history.store
    chat = history.conversation(KEY.id)
    chat.annotate(title="new", metadata={"k": 1})
    chat.leave_out(8)
    check_unknown(read_state(store), "origin", "unanswered_turn", "container")
    check_unknown(read_state(store)["unanswered_turn"], "process")
    chat.append([{"role": "user", "content": "x" * 1500}, {"role": "assistant", "content": "y"}])
    chat.append([{"role": "user", "content": "x" * 1500}, {"role": "assistant", "content": "y"}])
    check_unknown(read_state(store), "origin", "container")
    chat.trim(LastTurns(2, 2))
    chat.rewind(to=chat.info().end - 3)
    chat.repair(dry_run=False)
    check_unknown(read_state(store), "origin", "container")
    assert read_lines(store)[: len(LINES)] == LINES
    chat.forget(before=4)
    check_unknown(read_state(store), "origin", "container")
    assert read_lines(store)[: len(LINES) - 4] == LINES[4:]


def test_unknown_fields_survive_every_operation(store, monkeypatch):
    for name, size in SMALL.items():
        monkeypatch.setattr(name, size)
    history = store_future(store)
    chat = history.conversation(KEY.id)
    assert [entry.id for entry in chat.entries()] == [f"e{number}" for number in range(9)]
    assert len(chat.messages()) == 4
    change_with_every_operation(history)
    kinds = {json.loads(line)["kind"]: json.loads(line) for line in read_lines(store)[5:]}
    check_unknown(kinds["snapshot"]["data"]["state"], "origin", "container")
    check_unknown(kinds["setup"]["data"])
    assert same(kinds["setup"]["data"], json.loads(LINES[0])["data"]), "a forget stores the setup again as it was"


def test_a_copy_an_export_and_an_import_keep_them_to_the_character(store, new):
    history, file = store_future(store), io.BytesIO()
    before = store.read(KEY)
    with new("memory") as copied, new("memory") as imported:
        assert history.copy_to(copied).copied == 1
        history.export_to(file)
        file.seek(0)
        assert History(imported).import_from(file).copied == 1
        for target in (copied, imported):
            assert target.read(KEY).head == before.head
            assert read_lines(target) == LINES


def test_a_fork_keeps_the_lines_and_computes_its_own_state(store):
    """The unknown fields of the state may name positions that the fork does not have, so it begins without them."""
    history = store_future(store)
    fork = history.conversation(KEY.id).fork("fork", at=8)
    assert read_lines(store, fork.log.key)[:8] == LINES[:8]
    state = read_state(store, fork.log.key)
    assert "from_the_future" not in state
    assert state["origin"] == {"scope": "default", "id": "future", "position": 8}
    assert read_lines(store) == LINES
    check_unknown(read_state(store), "origin", "unanswered_turn", "container")


def test_a_restored_head_keeps_the_lines_and_computes_its_state(store):
    """What was only in the lost head cannot be known; later versions compute their fields from the records again."""
    damaged = {**STATE, "messages": "many"}
    history = store_future(store, damaged)
    assert history.conversation(KEY.id).restore(dry_run=False).lost == ()
    assert read_lines(store)[: len(LINES)] == LINES
    assert len(history.conversation(KEY.id).messages()) == 4
    assert "from_the_future" not in read_state(store)


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_an_open_turn_keeps_them_while_it_is_open(store):
    """With its process; a turn that is closed is another object, and a new container has no fields of the old one."""
    turn = {"id": "t", "lease_until": 2**53 - 1, "since": 5, "lease": "e1", "process": OWN}
    state = {name: value for name, value in STATE.items() if name != "unanswered_turn"}
    history = store_future(store, state | {"open_turn": add_unknown(turn)})
    chat = history.conversation(KEY.id)
    chat.annotate(title="new")
    check_unknown(read_state(store), "open_turn")
    check_unknown(read_state(store)["open_turn"], "process")
    chat.append(
        {**RESPONSE, "type": "message", "id": "msg_2", "role": "assistant", "content": [{"type": "text", "text": "a"}]}
    )
    check_unknown(read_state(store), "container")
    reply = {
        **RESPONSE,
        "type": "message",
        "id": "msg_3",
        "role": "assistant",
        "content": [{"type": "text", "text": "b"}],
    }
    chat.append({**reply, "container": {"id": "container_2", "expires_at": "2027-02-01T00:00:00Z"}})
    assert "from_the_future" not in read_state(store)["container"]


@pytest.mark.parametrize("store", ["memory"], indirect=True)
def test_a_repair_stores_a_message_again_with_the_unknown_fields_next_to_it(store):
    """The copy has the message as it can be sent; the original stays in the log as it was."""
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}]}
    lines = [LINES[1], make_line("message", "e9", data={"request_id": "r"}, message=call), LINES[7]]
    state = {"v": 2, "creation_id": "e1", "created": 5, "messages": 3, "turns": 2}
    history = store_future(store, state, lines)
    assert history.conversation(KEY.id).repair(dry_run=False)
    found = [json.loads(line) for line in read_lines(store)[3:]]
    copies = [each for each in found if "copy_of" in each.get("data", {})]
    assert copies
    for each in copies:
        check_unknown(each["data"])
    assert read_lines(store)[:3] == lines
