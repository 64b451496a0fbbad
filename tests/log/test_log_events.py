"""Events and states: each kind has a class, changes the state, and is read back; unknown kinds stay raw."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import io
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import chat_on, said, user
from hypothesis import given, settings
from hypothesis import strategies as st

from chathistory import ChatEngine, Head, History, Key, Record, Revision
from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.log import apply as apply_module
from chathistory.log import conversation_log, events, field_types, local_state, state
from chathistory.log.apply import apply, begin_state
from chathistory.log.entry import Entry, compute_checksum, decode, encode
from chathistory.log.events import EVENT_CLASSES, Annotation, MessageAdded, UnknownEvent
from chathistory.log.field_types import KEEP, Response
from chathistory.log.omissions import ContentLocation, Omission, Refusal
from chathistory.log.process import Process
from chathistory.log.state import ConversationState, Identity, read_state
from chathistory.storage.values import LARGEST_NUMBER
from chathistory.testing import FakeMessagesAPI

KEY = Key("default", "c")
GOLDEN = Path(__file__).parents[1] / "golden"
LINES = (GOLDEN / "format-2/lines.jsonl").read_text(encoding="utf-8").splitlines()
HEADS = (GOLDEN / "format-2/heads.jsonl").read_text(encoding="utf-8").splitlines()


def head_with(payload: str, end: int = 1000) -> Head:
    return Head(KEY, 0, end, Revision("v", 5, None, payload))


# What is stored.


@pytest.mark.parametrize("line", LINES, ids=lambda line: json.loads(line)["kind"])
def test_stored_lines_are_read(line):
    entry = decode(Record(3, line), KEY)
    stored = json.loads(line)
    assert (entry.kind, entry.message, entry.id, entry.time_us) == (
        stored["kind"],
        stored.get("message"),
        stored["id"],
        stored["at"],
    )
    assert not isinstance(entry.event, UnknownEvent)
    given = {name: value for name, value in stored.get("data", {}).items() if value not in (None, "")}
    assert {name: entry.data[name] for name in given} == given
    assert decode(Record(3, encode(entry)), KEY) == entry


def test_there_is_a_line_of_each_kind():
    assert {json.loads(line)["kind"] for line in LINES} == set(EVENT_CLASSES)


@pytest.mark.parametrize("payload", HEADS)
def test_stored_heads_are_read(payload):
    read = read_state(head_with(payload))
    assert json.loads(read.encode()) == json.loads(payload)


# Round trip.

text = st.text(st.characters(codec="utf-8"), max_size=8)
number = st.integers(0, LARGEST_NUMBER)
count = st.integers(-LARGEST_NUMBER, LARGEST_NUMBER)
json_values = st.none() | st.booleans() | count | text | st.lists(text) | st.dictionaries(text, text)
objects = st.dictionaries(text, json_values, max_size=3)
location = st.builds(ContentLocation, number, st.none() | number, st.none() | number)
response = st.builds(
    Response, st.fixed_dictionaries({}, optional={"id": text, "model": text, "stop_reason": text, "usage": objects})
)
process = st.builds(Process, text, number, st.none() | text, st.none() | text, st.none() | number)
view_start = st.builds(field_types.ViewStart, number, st.none() | number, count, number)
OF_TYPE = {
    "Json": json_values,
    "Object": objects,
    "ObjectOrNone": st.none() | objects,
    "Bool": st.booleans(),
    "Text": text,
    "TextOrNone": st.none() | text,
    "TextMap": st.dictionaries(text, text, max_size=3),
    "Position": number,
    "PositionOrNone": st.none() | number,
    "Count": count,
    "LeaseEnd": st.integers(0, 2**70),
    "LeaseEndOrNone": st.integers(0, 2**70),
    "ProcessOrNone": process,
    "StoredResponse": response,
    "ActivePath": st.lists(st.tuples(number, number), max_size=3).map(tuple),
    "Positions": st.lists(number, max_size=3).map(tuple),
    "Locations": st.lists(location, max_size=3).map(tuple),
    "Omissions": st.lists(st.builds(Omission, location, text, st.none() | text), max_size=3).map(tuple),
    "CallRefs": st.lists(st.tuples(number, number).map("{0[0]}.{0[1]}".format), max_size=3).map(tuple),
    "RefusalOrNone": st.builds(
        Refusal, text, text, st.none() | text, st.lists(location).map(tuple), st.booleans(), st.none() | number
    ),
    "ViewStartOrNone": view_start,
}
FORMS = {getattr(field_types, name).__metadata__[0]: values for name, values in OF_TYPE.items()}
ANNOTATED = {"title": st.none() | text, "tags": st.lists(text).map(tuple), "metadata": objects}
MESSAGE = st.builds(lambda words: {"role": "user", "content": words}, text)


def event_of(cls: type) -> st.SearchStrategy:
    """Return a strategy for the events of a class, with and without the fields that have defaults."""
    required, optional = {}, {}
    for field in dataclasses.fields(cls):
        form = next(iter(getattr(field.type, "__metadata__", ())), None)
        values = MESSAGE if field.name == "message" else ANNOTATED[field.name] if cls is Annotation else FORMS[form]
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        (optional if has_default else required)[field.name] = values
    return st.fixed_dictionaries(required, optional=optional).map(lambda given: cls(**given))


@pytest.mark.parametrize("kind", sorted(EVENT_CLASSES))
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_an_event_of_each_kind_is_read_back_from_its_line(kind, data):
    entry = Entry(data.draw(event_of(EVENT_CLASSES[kind])), data.draw(st.none() | text), time_us=1, position=4)
    read = decode(Record(4, encode(entry)), KEY)
    assert read == entry
    assert encode(read) == encode(entry)


@pytest.mark.parametrize("kind", sorted(EVENT_CLASSES))
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_repr_of_an_event_has_no_message_text(kind, data):
    event = data.draw(event_of(EVENT_CLASSES[kind]))
    message = getattr(event, "message", None)
    assert message is None or "message" not in repr(event)


def test_unknown_fields_of_an_event_are_kept():
    line = encode(make_entry("annotation", data={"title": "t", "colour": "red"}))
    entry = decode(Record(0, line), KEY)
    assert (entry.event, entry.extra) == (Annotation(title="t"), {"colour": "red"})
    assert (entry.data, encode(entry)) == ({"title": "t", "colour": "red"}, line)


def test_an_annotation_distinguishes_none_from_unchanged():
    event = decode(Record(0, encode(make_entry("annotation", data={"title": None}))), KEY).event
    assert event == Annotation(title=None)
    assert (event.tags, event.metadata) == (KEEP, KEEP)


def test_an_entry_says_when_it_happened():
    assert make_entry("annotation", time_us=1_500_000).at == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "is_received"),
    [
        ({}, False),
        ({"received": True}, True),
        ({"response": Response({"id": "msg_1", "model": "m", "usage": {}})}, True),
        ({"response": Response({"id": "msg_1"}), "received": True}, False),
    ],
)
def test_only_a_whole_response_counts_as_received(fields, is_received):
    assert MessageAdded(said("x"), **fields).is_received is is_received


# Changes of the state.


def test_a_state_needs_an_entry_to_begin_with():
    with pytest.raises(ValueError, match="at least one entry"):
        apply_module.apply_all(None, [], 0)
    state = ConversationState(Identity("b", 1))
    assert apply_module.apply_all(state, [], 5) is state


def test_each_kind_of_event_has_a_case_in_apply():
    """A kind without a case is found by mypy (`assert_never`), and here."""
    event_classes = {
        cls for _, cls in inspect.getmembers(events, dataclasses.is_dataclass) if cls.__module__ == events.__name__
    }
    assert event_classes == {*EVENT_CLASSES.values(), UnknownEvent}
    tree = ast.parse(inspect.getsource(apply_module))
    patterns = [node.cls for node in ast.walk(tree) if isinstance(node, ast.MatchClass)]
    assert {pattern.id for pattern in patterns if isinstance(pattern, ast.Name)} == {
        cls.__name__ for cls in event_classes
    }


def test_an_event_without_a_case_is_an_error():
    @dataclasses.dataclass(frozen=True)
    class Hologram:
        kind = "hologram"

    entry = Entry(Hologram())
    with pytest.raises(AssertionError):
        apply(begin_state(entry), entry, 0)


@pytest.mark.parametrize("kind", sorted(EVENT_CLASSES))
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_applying_an_event_does_not_change_the_old_state(kind, data):
    before = ConversationState(Identity("b", 1))
    before = apply(before, Entry(MessageAdded(said("x"), Response({"usage": {"input_tokens": 1}}))), 0)
    encoded = before.encode()
    after = apply(before, Entry(data.draw(event_of(EVENT_CLASSES[kind])), time_us=1), 1)
    assert before.encode() == encoded
    assert isinstance(after, ConversationState)


def test_a_state_is_frozen():
    state = ConversationState(Identity("b", 1))
    parts = [getattr(state, each.name) for each in dataclasses.fields(state) if each.name != "extra"]
    for part in (state, *parts):
        for each in dataclasses.fields(part):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, each.name, None)


# Kinds that this version does not know.


def with_unknown(store: MemoryStore, *, optional: bool):
    chat = chat_on(store)
    chat.append([user("a"), said("b")])
    chat.log.append([make_entry("hologram", user("?"), {"depth": 3}, optional=optional)])
    chat.append(user("c"))
    return chat_on(store)


@pytest.mark.parametrize("optional", [True, False])
def test_an_unknown_kind_stays_raw(optional):
    with MemoryStore() as store:
        entry = list(with_unknown(store, optional=optional).entries())[2]
        assert (entry.kind, entry.data, entry.message) == ("hologram", {"depth": 3}, None)
        line = store.read(KEY, start=2, stop=3).records[0].body
        assert encode(entry) == line


def test_an_optional_entry_of_an_unknown_kind_is_skipped():
    with MemoryStore() as store:
        chat = with_unknown(store, optional=True)
        assert [message["content"] for message in chat.messages()] == ["a", [{"type": "text", "text": "b"}], "c"]
        assert len(chat.last_messages(5)) == 3
        assert chat.repair() == ()
        chat.rewind(to=2)
        assert len(chat.messages()) == 2


def test_an_unknown_kind_that_is_not_optional_is_unsupported_only_for_the_view():
    with MemoryStore() as store, MemoryStore() as target:
        chat = with_unknown(store, optional=False)
        for look in (chat.messages, chat.view, lambda: chat.last_messages(5), lambda: chat.rewind(to=2)):
            with pytest.raises(UnsupportedRecord):
                look()
        history = History(store)
        assert [row.messages for row in history.list().items] == [3]
        assert len(list(chat.entries())) == 4
        assert history.copy_to(target).copied == 1
        assert [record.body for record in target.read(KEY).records] == [
            record.body for record in store.read(KEY).records
        ]
        file = io.BytesIO()
        history.export_to(file)
        assert b"hologram" in file.getvalue()
        assert [repair.position for repair in chat.repair()] == [2]
        assert history.erase("default").complete


def test_kinds_that_change_what_is_sent_must_be_understood():
    optional = {kind for kind, cls in EVENT_CLASSES.items() if cls.is_optional}
    assert optional == {"annotation", "reply_interrupted", "reply_orphaned"}
    assert json.loads(encode(Entry(Annotation())))["optional"] is True
    assert "optional" not in json.loads(encode(Entry(MessageAdded(user("x")))))


# How often a state is read.


def test_one_turn_reads_the_state_at_most_twice(monkeypatch):
    reads = []

    def read(head):
        reads.append(head)
        return state.read_state(head)

    monkeypatch.setattr(conversation_log, "read_state", read)
    with MemoryStore() as store:
        chat_on(store).append([user("a"), said("b")])
        local_state._local_states.clear()
        engine = ChatEngine(FakeMessagesAPI().client(), store, model="claude-sonnet-5-5")
        engine.send("c", "cold")
        assert len(reads) == 1, "what is looked up is read once"
        reads.clear()
        engine.send("c", "warm")
        assert reads == [], "what was stored from here is known"


# What a development version wrote, before the stored format was frozen.

OLD_LINES = (GOLDEN / "development/lines.jsonl").read_text(encoding="utf-8").splitlines()
OLD_HEADS = (GOLDEN / "development/heads.jsonl").read_text(encoding="utf-8").splitlines()
OLD = r"has format 1, written by a development version of chathistory before the format was frozen; expected format 2"


@pytest.mark.parametrize("line", OLD_LINES, ids=lambda line: json.loads(line)["kind"])
def test_a_line_of_format_1_is_refused_and_stays_raw(line):
    with MemoryStore() as store:
        chat = chat_on(store)
        chat.append([user("a"), said("b")])
        head = store.read(KEY).head
        read = read_state(head)
        revision = dataclasses.replace(head.revision, version="x" * 28)
        store.append(KEY, [line], after=head, revision=revision)
        chat = chat_on(store)
        for look in (chat.messages, chat.view, lambda: chat.last_messages(5), lambda: chat.rewind(to=2)):
            with pytest.raises(UnsupportedRecord, match=OLD):
                look()
        entry = list(chat.entries())[2]
        assert (entry.kind, entry.version, entry.message) == ("unknown", 1, None)
        assert entry.data == {name: value for name, value in json.loads(line).items() if name != "sum"}
        assert apply(read, entry, 2) == read, "nothing of it is folded"


@pytest.mark.parametrize("payload", OLD_HEADS)
def test_a_state_of_format_1_is_refused_in_a_call_and_in_the_listing(payload):
    with MemoryStore() as store:
        chat_on(store, "good").append(user("x"))
        store.append(KEY, OLD_LINES[:1] * 50, after=None, revision=Revision("v" * 8, 5, None, payload))
        page = History(store).list()
        assert ([row.id for row in page.items], [each.key for each in page.damaged]) == (["good"], [KEY])
        error = page.damaged[0].error
        assert isinstance(error, UnsupportedRecord)
        assert (error.key, error.version) == (KEY, 1)
        for call in (chat_on(store).messages, chat_on(store).state, lambda: chat_on(store).append(user("x"))):
            with pytest.raises(UnsupportedRecord, match=OLD):
                call()
        with MemoryStore() as target:
            report = History(store).copy_to(target)
            assert (report.copied, list(report.failed)) == (1, [KEY])
            assert isinstance(report.failed[KEY], UnsupportedRecord)
        assert store.read(KEY).head.revision.payload == payload, "nobody has changed it"


def old_export(payload: str) -> bytes:
    """Return an export of one conversation as format 1 had it."""
    body = "".join(f"{line}\n" for line in OLD_LINES).encode()
    head = {
        "chathistory": 1,
        "kind": "conversation",
        "scope": "default",
        "id": "old",
        "start": 0,
        "end": len(OLD_LINES),
    }
    head |= {"version": "v" * 8, "updated": 5, "expires": None, "info": payload}
    whole = {"chathistory": 1, "kind": "whole", "sha256": hashlib.sha256(body).hexdigest()}
    end = {"chathistory": 1, "kind": "end", "conversations": 1, "records": len(OLD_LINES)}
    first, *last = (json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in (head, whole, end))
    return first + body + b"".join(last)


def test_an_export_of_format_1_is_refused():
    with MemoryStore() as store, pytest.raises(UnsupportedRecord, match=f"the file {OLD}") as caught:
        History(store).import_from(io.BytesIO(old_export(HEADS[0])))
    assert (caught.value.key, caught.value.version) == (None, 1)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_export_of_format_1_next_to_a_good_one_is_skipped():
    with MemoryStore() as store, MemoryStore() as target:
        chat_on(store, "good").append([user("a"), said("b")])
        file = io.BytesIO()
        History(store).export_to(file)
        for data in (old_export(OLD_HEADS[0]) + file.getvalue(), file.getvalue() + old_export(OLD_HEADS[0])):
            report = History(target).import_from(io.BytesIO(data))
            assert len(report.skipped) == 1
            assert "the file has format 1, written by a development version" in report.skipped[0]
        assert [key.id for key in target.keys("default")] == ["good"]


def test_a_line_of_format_1_in_an_export_of_this_format_is_refused():
    with MemoryStore() as store, MemoryStore() as target:
        chat_on(store).append([user("a"), said("b")])
        file = io.BytesIO()
        History(store).export_to(file)
        first, line, *_ = file.getvalue().splitlines(keepends=True)
        body = line + OLD_LINES[0].encode() + b"\n"
        last = {"chathistory": 2, "kind": "complete", "sha256": hashlib.sha256(body).hexdigest()}
        end = b'{"chathistory":2,"kind":"end","conversations":1,"records":2}\n'
        data = first + body + json.dumps(last).replace(": ", ":").encode() + b"\n" + end
        report = History(target).import_from(io.BytesIO(data))
        assert (report.copied, list(report.failed)) == (0, [KEY])
        with pytest.raises(UnsupportedRecord, match=f"record 1 of conversation 'c' {OLD}"):
            raise report.failed[KEY]
        assert list(target.keys("default")) == []


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "2", None])
def test_an_invalid_format_number_is_damage(version):
    line = json.loads(LINES[0]) | {"v": version}
    del line["sum"]
    rest = f",{json.dumps(line)[1:]}"
    with pytest.raises(CorruptRecord):
        decode(Record(0, f'{{"sum":"{compute_checksum(rest)}"{rest}'), KEY)
    with pytest.raises(CorruptRecord):
        read_state(head_with(json.dumps(json.loads(HEADS[0]) | {"v": version})))
