"""Heads and lines that no version of this library wrote are checked when they are read."""

from __future__ import annotations

import asyncio
import json
from dataclasses import fields, replace

import pytest
from chathistory_memory import MemoryStore
from draw_examples import draw_examples
from entry_factory import make_entry
from faulty_stores import chat_on, numbered, user
from hostile_values import DATA, DEEP, HUGE, as_text, line_of, lines, values
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chathistory import AsyncHistory, ConversationInfo, Damaged, Entry, Head, History, Key, Record, Revision
from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.apply import apply_all
from chathistory.log.entry import compute_checksum, decode, encode
from chathistory.log.events import EVENT_CLASSES
from chathistory.log.process import Process
from chathistory.log.state import (
    Annotations,
    ConversationHead,
    ConversationState,
    EngineState,
    Identity,
    OpenTurn,
    Totals,
    ViewState,
    read_state,
)
from chathistory.log.stored_fields import stored_names
from chathistory.messages.json_values import DEEPEST
from chathistory.operations.listing import describe, read_head

KEY = Key("default", "c")


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


FIELDS = sorted({key for part in (Identity, Annotations, Totals, ViewState, EngineState) for key in stored_names(part)})
states = st.dictionaries(st.sampled_from([*FIELDS, "v", "unknown"]), values, max_size=6)


def head_with(payload: str) -> Head:
    return Head(KEY, 0, 1, Revision("v", 5, None, payload))


def row_with(payload: str) -> ConversationInfo | Damaged | None:
    head = read_head(head_with(payload))
    return describe(head) if isinstance(head, ConversationHead) else head


VALID = {"v": 2, "creation_id": "b", "created": 1}


@draw_examples(200, 1000, states, st.booleans())
def test_any_payload_is_a_row_or_damaged(values, valid_base):
    payload = as_text((VALID if valid_base else {}) | values)
    row = row_with(payload)
    assert isinstance(row, ConversationInfo | Damaged)
    if isinstance(row, ConversationInfo):
        again = read_state(head_with(read_state(head_with(payload)).encode()))  # what is taken can be written again
        assert isinstance(row_with(again.encode()), ConversationInfo)
        messages = again.totals.messages
        assert apply_all(again, [make_entry("message", message=user("x"))], 1).totals.messages == messages + 1
        assert row.tokens >= 0
    else:
        assert isinstance(row.error, CorruptRecord | UnsupportedRecord)
        assert row.error.__context__ is None


BROKEN = ["", "null", "1", "[]", '"x"', "{}", "{", "nonsense", DEEP, '{"v":2}', f'{{"v":2,"metadata":{deep(5000)}}}']
WRONG = [
    *({"created": wrong} for wrong in ("y", HUGE, -1, True, 1.0, None)),
    *({"messages": wrong} for wrong in ("many", -1, 2**53, [])),
    *({"metadata": wrong} for wrong in ([], {"a": float("nan")}, {"a": float("inf")}, json.loads(deep(DEEPEST + 1)))),
    *({"usage": wrong} for wrong in ([], {"input_tokens": "3"}, {"input_tokens": HUGE}, {"input_tokens": -1})),
    *({"open_turn": wrong} for wrong in (5, {}, {"id": "t"}, {"id": "t", "lease_until": HUGE})),
    *({"origin": wrong} for wrong in (5, {"scope": "a"}, {"scope": "a", "id": "b", "position": "c"})),
    *({"title": wrong} for wrong in (5, ["x"], {})),
    *({"tags": wrong} for wrong in ("abc", [1], {})),
    {"v": True},
    {"v": 0},
    {"v": [1]},
    {"creation_id": 5},
    {"path_position": "x"},
    {"view_start": None},
    {"setup_fingerprints": {"a": 1}},
    {"container": "x"},
    {"drop_stale_thinking": 1},
    {"model": 1},
    {"preview": {}},
]
BROKEN += [as_text(VALID | wrong) for wrong in WRONG]
BROKEN += ['{"v":2,"creation_id":"b","created":1,"metadata":{"a":1e999}}']


@pytest.mark.parametrize("payload", BROKEN, ids=lambda payload: payload[:60])
def test_a_payload_that_is_not_a_state_is_a_damaged_row(payload):
    with MemoryStore() as store:
        for number in range(49):
            chat_on(store, f"c{number}").append(user("x"))
        store.append(KEY, ["{}"], after=None, revision=Revision("v" * 8, 5, None, payload))
        history = History(store)
        for page in (history.list(limit=100), asyncio.run(_recent(store))):
            assert len(page.items) == 49
            assert [(each.key, each.where) for each in page.damaged] == [(KEY, "c")]
            assert isinstance(page.damaged[0].error, CorruptRecord)
        for wanted in ({"title": "x"}, {"tag": "t"}, {"metadata": {"a": 1}}, {"model": "m"}):
            assert len(history.list(limit=100, **wanted).damaged) == 1
        done = history.prune(count=0, dry_run=False)
        assert (len(done.removed), len(done.damaged)) == (49, 1)
        assert history.erase("default").complete


async def _recent(store):
    async with AsyncHistory(store) as history:
        return await history.list(limit=100)


def test_a_head_of_a_later_version_is_a_damaged_row():
    with MemoryStore() as store:
        numbered(chat_on(store, "good"), 2)
        store.append(KEY, ["{}"], after=None, revision=Revision("v", 5, None, '{"v":3,"anything":true}'))
        page = History(store).list()
        assert [row.id for row in page.items] == ["good"]
        assert isinstance(page.damaged[0].error, UnsupportedRecord)
        with pytest.raises(UnsupportedRecord):
            chat_on(store).messages()
        with pytest.raises(UnsupportedRecord):
            chat_on(store).append(user("x"))


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_damaged_rows_do_not_count_and_each_is_on_one_page(limit):
    with MemoryStore() as store:
        for number in range(50):
            chat_on(store, f"c{number:02}").append(user("x"))
        hurt = [Key("default", f"c{number:02}") for number in (0, 13, 14, 15, 49)]
        for key in hurt:
            damage_head(store, key)
        rows, damaged, after = [], [], None
        while True:
            page = History(store).list(limit=limit, after=after)
            rows += page.items
            damaged += page.damaged
            after = page.next
            if after is None:
                break
            assert len(page.items) == limit
        assert len({row.id for row in rows}) == len(rows) == 45
        assert sorted(each.key for each in damaged) == hurt


def damage_head(store: MemoryStore, key: Key) -> None:
    """Write nonsense in the place of what a head tells."""
    found = store._data.scopes[key.scope][key.id]
    found.head = replace(found.head, revision=replace(found.head.revision, payload="nonsense"))


def test_each_field_of_a_state_is_stored_and_checked():
    for part in (Identity, Annotations, Totals, ViewState, EngineState):
        assert len(stored_names(part)) == len(fields(part)), "each field has a form"
    turn = OpenTurn("t", 1, 2, "lease", Process("host", 3))
    annotations = Annotations(metadata={"a": json.loads(deep(DEEPEST - 1))})
    full = ConversationState(Identity("b", 1), annotations, engine=EngineState(turn))
    assert read_state(head_with(full.encode())) == full


def test_a_null_in_place_of_a_turn_is_no_turn():
    engine = read_state(head_with(as_text(VALID | {"open_turn": None, "unanswered_turn": None}))).engine
    assert (engine.open_turn, engine.unanswered_turn) == (None, None)


def test_numbers_out_of_range_are_written_as_the_nearest_in_range():
    wrong = ConversationState(Identity("b", 1), totals=Totals(messages=-5, turns=HUGE), view=ViewState(tokens=-1))
    read = read_state(head_with(wrong.encode()))
    assert (read.totals.messages, read.totals.turns, read.view.tokens) == (0, 2**53 - 1, 0)


# Lines.


def decoded(line: str) -> Entry | CorruptRecord:
    try:
        return decode(Record(0, line), KEY)
    except CorruptRecord as error:
        return error


@draw_examples(200, 1000, lines)
def test_any_line_is_an_entry_or_damaged(values):
    entry = decoded(line_of(values))
    if isinstance(entry, CorruptRecord):
        assert (entry.position, entry.__context__) == (0, None)
        return
    state = apply_all(None, [entry], 0)  # whatever is taken can be folded, and the result be read
    assert read_state(head_with(state.encode())).identity.created >= 0
    if entry.kind != "unknown":
        assert decode(Record(0, encode(entry)), KEY).kind == entry.kind


small = st.integers(-1, 5) | st.booleans() | st.none() | st.just([[0, 1]]) | st.just([[0, None, None]]) | st.just("x")


@pytest.mark.parametrize("kind", sorted(EVENT_CLASSES))
@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*DATA, "locations", "invalidates_thinking", "lease", "omitted"]), small | values)
)
@example({})
def test_the_fields_of_each_kind_are_checked(kind, data):
    has_message = kind in ("message", "compaction", "reply_interrupted", "reply_orphaned")
    message = {"message": user("x")} if has_message else {}
    entry = decoded(line_of({"v": 2, "id": "e", "kind": kind, "at": 1, "data": data, **message}))
    if isinstance(entry, Entry):
        base = ConversationState(Identity("b", 1), totals=Totals(messages=3), engine=EngineState(OpenTurn("t", 1)))
        state = apply_all(base, [entry], 0)
        assert read_state(replace(head_with(state.encode()), end=2**53 - 1)).identity.created >= 0


WRONG_MESSAGES = [
    ("message", {"role": "user", "content": ["text"]}),
    ("message", {"role": "user", "content": [{"text": "x"}]}),
    ("message", {"role": "user", "content": [{"type": "tool_result", "content": "x"}]}),
    ("message", {"role": "user", "content": [{"type": "mcp_tool_result", "tool_use_id": 5}]}),
    ("message", {"role": "assistant", "content": [{"type": "tool_use", "id": None}]}),
    ("message", {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [5]}]}),
    ("reply_interrupted", "half"),
    ("reply_interrupted", {"content": "half"}),
    ("reply_orphaned", {"role": "assistant", "content": 5}),
    ("reply_orphaned", {"role": "assistant", "content": [5]}),
]


@pytest.mark.parametrize(("kind", "message"), WRONG_MESSAGES)
def test_a_line_with_a_message_that_the_view_cannot_process_is_damaged(kind, message):
    error = decoded(line_of({"v": 2, "id": "e", "kind": kind, "at": 1, "data": {}, "message": message}))
    assert isinstance(error, CorruptRecord)
    assert "message" in error.reason


@pytest.mark.parametrize("text", [DEEP, deep(5000), deep(DEEPEST + 1), "NaN", "1e999", "-Infinity", "9" * 5000])
def test_a_line_that_cannot_be_written_again_is_damaged(text):
    rest = f',"v":2,"id":"e","kind":"annotation","at":1,"data":{{"metadata":{{"a":{text}}}}}}}'
    with pytest.raises(CorruptRecord):
        decode(Record(0, f'{{"sum":"{compute_checksum(rest)}"{rest}'), KEY)


@pytest.mark.parametrize("number", [-1, 2**53, HUGE, True, 1.0, "5", None])
@pytest.mark.parametrize("place", ["updated", "expires", "first"])
def test_a_revision_that_not_every_store_can_keep_is_refused(place, number):
    if place == "expires" and number is None:
        return
    revision = Revision("v", number if place == "updated" else 5, number if place == "expires" else None, "x")
    with MemoryStore() as store, pytest.raises(InvalidInput, match=place):
        store.append(KEY, ["{}"], after=None, revision=revision, first=number if place == "first" else 0)
