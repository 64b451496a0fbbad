"""The page on the stored format is true: its tables match the code, and the code reads and writes its examples."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import chathistory_file.schema
import chathistory_mongodb.schema
import chathistory_s3.schema
import pytest
from bson import Int64, ObjectId
from chathistory_file import FileStore
from chathistory_memory import MemoryStore
from chathistory_mongodb.schema import CREATING, head_id, make_head_document, parse_head, parse_segment
from chathistory_mongodb.write import PIECE_LENGTH, _make_segments
from chathistory_redis.schema import Layout, decode_head, decode_record, encode_record, encode_revision
from chathistory_s3.lines import DAMAGED, encode_lines
from chathistory_s3.names import HOUR, ObjectNames, marker_time
from chathistory_s3.schema import S3Segment, Tombstone, encode_head

from chathistory import Head, History, Key, Record, Revision
from chathistory.errors import CorruptRecord
from chathistory.log.entry import FORMAT, Entry, decode, encode
from chathistory.log.events import EVENT_CLASSES, MessageAdded
from chathistory.log.field_types import KEEP, ViewStart
from chathistory.log.omissions import Refusal
from chathistory.log.process import Process
from chathistory.log.state import (
    Annotations,
    ClosedTurn,
    Container,
    ConversationState,
    EngineState,
    Identity,
    OpenTurn,
    Origin,
    Totals,
    ViewState,
    read_state,
)
from chathistory.log.stored_fields import Form, dump_fields
from chathistory.storage.safe_names import safe_name
from chathistory.transfer import jsonl
from chathistory.transfer.jsonl import head_to_values

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
KEY = Key("default", "om")
TEAM_KEY = Key("team:a", "support/42")


@dataclasses.dataclass(frozen=True)
class Part:
    """A heading of the page, or a bold word at the beginning of a paragraph, with the text up to the next one."""

    name: str
    text: str

    @property
    def tables(self) -> list[list[dict[str, str]]]:
        """The rows of each table, as a dict with the heads of the columns as keys."""
        found = []
        for table in re.findall(r"(?:^\|.*\|\n)+", self.text, re.MULTILINE):
            head, _, *rows = [re.split(r" *(?<!\\)\| *", line.strip("|\n").strip()) for line in table.splitlines()]
            found.append([dict(zip(head, row, strict=True)) for row in rows])
        return found

    @property
    def table(self) -> list[dict[str, str]]:
        """The rows of its only table."""
        (table,) = self.tables
        return table

    @property
    def examples(self) -> list[str]:
        """The lines of its blocks."""
        blocks = re.findall(r"^```(?:json|jsonl|text)\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)
        return [line for block in blocks for line in block.splitlines()]


def iter_parts(pattern: str) -> Iterator[Part]:
    """Yield the parts of the page that begin with a pattern, which has the name as its group."""
    pieces = re.split(pattern, PAGE, flags=re.MULTILINE)
    return (Part(name, text) for name, text in zip(pieces[1::2], pieces[2::2], strict=True))


SECTIONS = {part.name: part for part in iter_parts(r"^#{2,3} (.*)$")}
OBJECTS = {part.name: part for part in iter_parts(r"^(?:\*\*([a-z ]+)\*\*: .*|## .*)$") if part.name}


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def fields_of(table: list[dict[str, str]], column: str = "field") -> list[str]:
    """Return the names in a column, also where a row has several."""
    return [name for row in table for name in names_in(row[column])]


# Records.

VALUES: dict[str, tuple[list[Any], list[Any]]] = {  # of each type: values that are allowed, and others
    "any": ([None, 1, "x", [1], {"a": 1}], []),
    "text": (["", "x"], [None, 1, ["x"]]),
    "texts": ([[], ["x"]], ["x", [1], None]),
    "text map": ([{}, {"a": "x"}], [{"a": 1}, ["x"], None]),
    "flag": ([True, False], [1, "true", None]),
    "object": ([{}, {"a": [1]}], [[], "x", None]),
    "number": ([0, 2**53 - 1], [-1, 2**53, True, 1.0, "1", None]),
    "count": ([0, 1 - 2**53, 2**53 - 1], [2**53, True, 1.0, "1", None]),
    "number map": ([{}, {"a": 1}], [{"a": -1}, {"a": "x"}, None]),
    "lease end": ([0, 2**70], [-1, True, "1", None]),
    "positions": ([[], [0, 5]], [5, [-1], ["x"], None]),
    "path": ([[], [[0, 5], [7, 8]]], [[0, 5], [[0]], [[0, -1]], None]),
    "locations": ([[], [[3, None, None], [3, 0, 1]]], [[[3, 0]], [["3", 0, 0]], [3, 0, 0], None]),
    "omissions": ([[], [[[3, 0, None], "too large", None], [[3, None, None], "", "t"]]], [[[3, 0, None]], None]),
    "call references": ([[], ["5.1", "12.0"]], [[5.1], "5.1", None]),
    "process": ([{"host": "h", "pid": 1}], [{"host": "h"}, {"pid": 1}, None]),
    "response": ([{}, {"id": "m", "usage": None, "model": "x"}], [{"usage": 1}, {"model": 1}, [], None]),
    "refusal": ([{"kind": "turn", "problem": "x", "certain": True, "locations": []}], [{"kind": "turn"}, []]),
    "view start": ([ViewStart().to_dict()], [{}, [], None]),
    "open turn": ([{"id": "t", "lease_until": 1}], [{"id": "t"}, []]),
    "closed turn": ([{"id": "t", "state": "refused", "since": 1}], [{"id": "t"}, []]),
    "origin": ([Origin("s", "i", 1).to_dict()], [{"scope": "s"}, [], None]),
    "container": ([{"id": "c"}], [[], "c", None]),
}
VALUES |= {"position": VALUES["number"], "time": VALUES["number"]}


def check_fields(cls: type, table: list[dict[str, str]]) -> None:
    """Check that a table has the stored fields of a dataclass, in order, with their types and defaults."""
    forms = {
        field.name: (form, field)
        for field in dataclasses.fields(cls)
        if isinstance(form := next(iter(getattr(field.type, "__metadata__", ())), None), Form)
    }
    assert fields_of(table) == list(forms)
    for row in table:
        form, field = forms[names_in(row["field"])[0]]
        check_type(row["type"], form)
        assert row["if absent"] == describe_default(form, field), row


def check_type(words: str, form: Form) -> None:
    kind = words.removesuffix(" or null")
    allowed, refused = VALUES[kind]
    for value in allowed:
        assert form.is_valid(value), (words, value)
    for value in refused:
        if value is not None:
            assert not form.is_valid(value), (words, value)
    assert form.is_valid(None) == (words.endswith(" or null") or kind == "any"), words


def describe_default(form: Form, field: dataclasses.Field) -> str:
    """Return what the page says of a field that is absent."""
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if default is dataclasses.MISSING:
        return "required"
    if default is KEEP:
        return "unchanged"
    if default is None:
        return "null" if form.is_valid(None) else "not set"
    return json.dumps(default if form.dump is None else form.dump(default))


def test_the_table_of_kinds_has_every_kind():
    table = SECTIONS["Kinds of entries"].table
    assert fields_of(table, "kind") == list(EVENT_CLASSES)
    for row in table:
        cls = EVENT_CLASSES[names_in(row["kind"])[0]]
        message = {field.name: field for field in dataclasses.fields(cls)}.get("message")
        expected = "" if message is None else "yes" if message.default is dataclasses.MISSING else "may"
        assert (row["optional"] == "optional", row["message"]) == (cls.is_optional, expected), row


@pytest.mark.parametrize("kind", EVENT_CLASSES)
def test_a_kind_has_the_fields_on_the_page(kind):
    check_fields(EVENT_CLASSES[kind], SECTIONS[f"`{kind}`"].table)


@pytest.mark.parametrize("kind", EVENT_CLASSES)
def test_the_examples_of_a_kind_are_read_and_written(kind):
    examples = SECTIONS[f"`{kind}`"].examples
    assert examples
    for line in examples:
        entry = decode(Record(0, line), KEY)
        assert (entry.kind, entry.extra) == (kind, {})
        assert encode(entry) == line


def test_each_type_is_explained():
    words = ", ".join(row["type"] for row in SECTIONS["Types"].table).split(", ")
    assert set(words) == set(VALUES)


def test_the_envelope_has_the_fields_on_the_page():
    entry = Entry(EVENT_CLASSES["reply_orphaned"]({"role": "assistant", "content": "x"}, reason="y"), "turn")
    assert fields_of(SECTIONS["Records"].table) == list(json.loads(encode(entry)))
    (line,) = SECTIONS["Records"].examples
    assert encode(decode(Record(0, line), KEY)) == line


def test_unknown_fields_are_kept_or_lost_as_the_page_says():
    message = Entry(MessageAdded({"role": "user", "content": "x"}, opened_by=Process("h", 1), lease_until=5))
    abandoned = Entry(EVENT_CLASSES["turn_abandoned"](refusal=Refusal("size", "too long")))
    for entry, name, is_kept in ((message, "opened_by", True), (abandoned, "refusal", False)):
        values = json.loads(encode(entry))
        del values["sum"]
        values["data"][name] |= {"colour": "red"}
        values["data"] |= {"colour": "red"}
        written = json.loads(encode(decode(Record(0, with_checksum(values | {"colour": "red"})), KEY)))
        assert "colour" not in written
        assert written["data"]["colour"] == "red"
        assert ("colour" in written["data"][name]) == is_kept
    state = ConversationState(Identity("b", 1), engine=EngineState(OpenTurn("t", 5))).to_dict()
    state["open_turn"] |= {"colour": "red"}
    payload = json.dumps(state | {"colour": "red"})
    assert json.loads(read_state(head_with(payload)).encode()) == json.loads(payload)


def with_checksum(values: dict[str, Any]) -> str:
    """Return the line of a record, made as the page says."""
    rest = "," + json.dumps(values, separators=(",", ":"), ensure_ascii=False)[1:]
    return f'{{"sum":"{crc32(rest.encode()):08x}"{rest}'


PROCESS = Process("h", 1, "b", "n", 5)
STORED_OBJECTS: dict[str, list[Any]] = {  # of each object: one with all fields, and one with as few as possible
    "process": [PROCESS, Process("h", 1)],
    "refusal": [Refusal("turn", "x"), Refusal("turn", "x")],
    "view start": [ViewStart(), ViewStart()],
    "open turn": [OpenTurn("t", 1, process=PROCESS), OpenTurn("t", 1)],
    "closed turn": [ClosedTurn("t", "refused", 1, PROCESS), ClosedTurn("t", "refused", 1)],
    "origin": [Origin("s", "i", 1), Origin("s", "i", 1)],
    "container": [Container("c"), Container("c")],
}


@pytest.mark.parametrize("name", STORED_OBJECTS)
def test_an_object_has_the_fields_on_the_page(name):
    full, least = (value.to_dict() for value in STORED_OBJECTS[name])
    table = OBJECTS[name].table
    assert fields_of(table) == list(full)
    assert fields_of([row for row in table if "or absent" not in row["type"]]) == list(least)


def test_each_object_has_an_explanation():
    assert set(OBJECTS) == {*STORED_OBJECTS, "response"}
    listed = SECTIONS["Types"].table[-1]
    assert (listed["type"].split(", "), listed["JSON value"]) == (list(OBJECTS), "see [Objects](#objects)")


# Heads.


def head_with(values: dict[str, Any] | str) -> Head:
    payload = values if isinstance(values, str) else json.dumps(values)
    return Head(KEY, 0, 1000, Revision("v", 5, None, payload))


STATE_PARTS = [Identity, Annotations, Totals, ViewState, EngineState]


def test_the_head_has_the_fields_on_the_page():
    assert fields_of(SECTIONS["The head"].table) == [
        *("scope", "id", "start", "end"),
        *(field.name for field in dataclasses.fields(Revision)),
    ]
    assert fields_of(SECTIONS["The head"].table) == list(head_to_values(head_with("")))


@pytest.mark.parametrize(("number", "cls"), list(enumerate(STATE_PARTS)), ids=str)
def test_a_part_of_the_state_has_the_fields_on_the_page(number, cls):
    tables = SECTIONS["The state"].tables
    assert len(tables) == len(STATE_PARTS)
    check_fields(cls, tables[number])


def test_the_example_of_a_state_is_read_and_written():
    (payload,) = SECTIONS["The state"].examples
    assert read_state(head_with(payload)).encode() == payload


def test_the_default_parts_of_a_state_are_not_stored():
    assert ConversationState(Identity("b", 1)).to_dict() == {"v": FORMAT, **dump_fields(Identity("b", 1))}


# Exports.


def test_the_example_of_an_export_is_imported_and_exported():
    text = "\n".join(SECTIONS["Exports"].examples) + "\n"
    with MemoryStore() as store:
        report = History(store).import_from(io.BytesIO(text.encode()))
        assert (report.copied, report.failed, report.skipped) == (1, {}, [])
        file = io.BytesIO()
        History(store).export_to(file)
        assert file.getvalue().decode() == text


def test_control_lines_have_the_fields_on_the_page():
    found: dict[str, set[str]] = {}
    for row in SECTIONS["Exports"].table:
        found.setdefault(row["line"].strip("`"), set()).update(names_in(row["field"]))
    common = found.pop("all")
    out = io.BytesIO()
    writer = jsonl.ExportWriter(out)
    writer.write(Source(head_with("{}"), [SECTIONS["Exports"].examples[1]]))
    with pytest.raises(CorruptRecord):
        writer.write(Source(head_with("{}"), ["no entry"]))
    writer.end()
    lines = [json.loads(line) for line in out.getvalue().splitlines() if jsonl.is_control_line(line)]
    written = {line["kind"]: line.keys() - common for line in lines}
    assert all(common <= line.keys() for line in lines)
    assert written == found


@dataclasses.dataclass
class Source:
    """A source of an export that has some lines."""

    head: Head
    stored: list[str]

    def lines(self, start: int) -> Iterator[str]:
        return iter(self.stored[start:])


# Layouts.


def test_the_numbers_are_those_of_the_code():
    numbers = [int(row["now"]) for row in SECTIONS["Numbers"].tables[0]]
    redis = int(encode_redis_head(head_with("")).partition(b"\n")[0])
    assert decode_head(KEY, encode_redis_head(head_with("{}"))) == head_with("{}")
    assert numbers == [
        FORMAT,
        ConversationState(Identity("b", 1)).to_dict()["v"],
        jsonl.FORMAT,
        chathistory_file.schema.LAYOUT,
        redis,
        chathistory_mongodb.schema.FORMAT,
        chathistory_s3.schema.FORMAT,
    ]


def test_safe_names_are_those_on_the_page():
    for row in SECTIONS["Safe names"].table:
        assert safe_name(*names_in(row["text"])) == names_in(row["name"])[0]
    for name in ("con", "prn.x", "aux", "nul", "com0", "lpt9.txt"):
        assert safe_name(name) == f"={ord(name[0]):02x}{name[1:]}"
    long = safe_name("x" * 200)
    assert (len(long), long[:81]) == (120, "x" * 80 + "~")


def write_example_file(folder: Path) -> bytes:
    data = "".join(f"{line}\n" for line in SECTIONS["File"].examples).encode()
    (folder / "default").mkdir()
    (folder / "default" / f"{KEY.id}.jsonl").write_bytes(data)
    return data


def test_the_example_of_a_file_is_read_and_written(tmp_path):
    data = write_example_file(tmp_path)
    commits = [line for line in data.splitlines() if line.startswith(b"{")]
    assert fields_of(SECTIONS["File"].tables[1], "commit") == list(json.loads(commits[0]))
    with FileStore(str(tmp_path)) as store:
        result = store.read(KEY)
    offset, written = 0, b""
    for commit in commits:
        found = chathistory_file.schema.decode_commit(commit, data.index(commit))
        bodies = [each.body.encode() for each in result.records[offset : found.head.end]]
        batch = chathistory_file.schema.encode_batch(bodies, found.head, first=offset, at=len(written))
        written += batch.records + batch.commit
        offset = found.head.end
    assert written == data
    assert found.head == result.head


def encode_redis_head(head: Head) -> bytes:
    return b"1\n%d\n%d\n%b" % (head.start, head.end, encode_revision(head.revision))


def test_the_examples_of_redis_elements_are_read_and_written():
    *records, head = [json.loads(element).encode() for element in SECTIONS["Redis"].examples]
    for position, element in enumerate(records):
        record = decode_record(position, element)
        assert encode_record(position, record.body) == element
    assert decode_record(0, b"\n") == "it is missing"
    found = decode_head(KEY, head)
    assert encode_redis_head(found) == head
    assert found.end - found.start == len(records)
    names = names_in(SECTIONS["Redis"].tables[1][1]["content"])
    assert names == ["1", *[name for name in head_to_values(found) if name not in {"scope", "id"}]]


def test_the_keys_of_redis_are_those_on_the_page():
    names = Layout("chathistory:").names(TEAM_KEY)
    keys = fields_of(SECTIONS["Redis"].tables[0], "key")
    assert keys == [name.decode() for name in (names.conversation, names.listing, names.scopes)]
    cluster = Layout.for_cluster("chathistory:")
    assert f"`{cluster.names(TEAM_KEY).conversation.decode()}`" in SECTIONS["Redis"].text
    assert (cluster.tags, cluster.tags_per_scope) == (256, 16)


def test_the_documents_of_mongodb_have_the_fields_on_the_page():
    head = head_with("{}")
    born = ObjectId()
    document = make_head_document(dataclasses.replace(head, end=1), born, ["x"], [{"by": born, "first": Int64(0)}])
    heads, segments = SECTIONS["MongoDB"].tables
    assert fields_of(heads) == [*document, "dead"]
    assert parse_head({**document, "size": 1}).head.key == KEY
    tombstone = {"_id": head_id(KEY), "born": born, "dead": CREATING, "expires": Int64(0)}
    assert parse_head(tombstone) is None
    assert set(names_in(heads[-1]["meaning"])) == {"version", *tombstone}
    owner = {"key": head_id(KEY), "of": born, "by": born}
    made = list(_make_segments(owner, 0, ["x", "y" * (PIECE_LENGTH + 1)]))
    assert [(each["part"], each["parts"]) for each in made] == [(0, 1), (0, 2), (1, 2)]
    assert all(map(parse_segment, made))
    assert fields_of(segments) == list(made[0])


def test_the_bson_types_are_those_on_the_page():
    born = ObjectId()
    document = make_head_document(dataclasses.replace(head_with("{}"), end=1), born, ["x"])
    (segment,) = _make_segments({"key": head_id(KEY), "of": born, "by": born}, 0, ["x"])
    types = {dict: "document", int: "int", str: "string", Int64: "long", ObjectId: "ObjectId", list: "array"}
    types[type(None)] = "null"
    for table, stored in zip(SECTIONS["MongoDB"].tables, (document, segment), strict=True):
        for row in table:
            for name in names_in(row["field"]):
                if name in stored:
                    words = row["BSON type"].replace("array of strings", "array").split(" or ")
                    assert types[type(stored[name])] in words, row


def test_the_example_of_an_s3_object_is_read_and_written():
    data = "".join(f"{line}\n" for line in SECTIONS["S3"].examples).encode()
    content = chathistory_s3.schema.decode_head(data, KEY)
    assert encode_head(content) == data
    bodies = [line.partition(b" ")[2].decode() for line in content.tail.splitlines()]
    assert b"".join(encode_lines(bodies, content.tail_start)) == content.tail
    assert content.marker == marker_time(content.head.revision.updated, HOUR)
    assert f"`{DAMAGED.decode().strip(chr(10))}`" in SECTIONS["S3"].text
    full = dataclasses.replace(content, fenced=True)
    first = json.loads(encode_head(full).splitlines()[0][9:])
    assert fields_of(SECTIONS["S3"].tables[1], "field of the first line") == list(first)


def test_the_names_of_s3_objects_are_those_on_the_page():
    token, time = "0123456789abcdef", marker_time(0, 1)
    place = "default/om"
    names = ObjectNames("<prefix>/")
    segment = S3Segment(8, token, ((0, 100),))
    texts = {"<scope>/<id>": place, "<incarnation>": token, "<token>": token, "<first position>": f"{0:019d}"}
    texts |= {"<scope>": "default", "<time>": time, "<id>": "om"}
    shown = re.findall(r"^    (<prefix>/\S+(?: position>\S+)?)", SECTIONS["S3"].text, re.MULTILINE)
    found = []
    for name in shown:
        for text, value in texts.items():
            name = name.replace(text, value)  # noqa: PLW2901
        found.append(name)
    assert found == [
        names.head(KEY),
        f"{names.segments_at(place, token)}{segment.name}",
        names.marker(place, time, token),
        f"{names.probes()}{token}",
    ]
    assert time == "9999999999999999999"
    tombstone = encode_head(Tombstone(token, time, token))
    assert len(tombstone) == chathistory_s3.schema.TOMBSTONE_SIZE == 62
    assert tombstone.decode() == f"deleted {token} {time} {token}\n"
    assert isinstance(chathistory_s3.schema.decode_head(tombstone, KEY), Tombstone)
