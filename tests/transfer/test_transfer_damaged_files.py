"""Exports of damaged stores, concatenated files, and files that no export wrote."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import random
import re
from datetime import UTC, datetime, timedelta

import pytest
from chathistory_memory import MemoryStore
from draw_examples import draw_examples
from entry_factory import make_entry
from faulty_stores import DamagedStore, all_unless_named, chat_on, numbered, reply, said, texts, user
from hostile_values import DEEP, HUGE, as_text, line_of, lines, values
from hypothesis import given, settings
from hypothesis import strategies as st

from chathistory import History, Key, Record
from chathistory.control_characters import neutralize
from chathistory.errors import ChatHistoryError, CorruptRecord, InvalidInput
from chathistory.log.clock import Clock, use_clock
from chathistory.log.entry import decode
from chathistory.log.state import Annotations, ConversationState, Identity, read_state
from chathistory.storage.values import LONGEST_PAYLOAD, Head, Revision


def export(store, **options):
    out = io.BytesIO()
    return History(store).export_to(out, **all_unless_named(options)), out.getvalue()


def import_data(store, data, **options):
    return History(store).import_from(io.BytesIO(data), **all_unless_named(options))


def read_all(store):
    return {key: MemoryStore.read(store, key) for key in MemoryStore.keys(store)}


# Exports of damaged stores.

WAYS = ("head", "summary", "later", "record", "first", "last", "several", "all", "whole line")


def damage_conversation(store, key, way, choose):
    bodies_of = store._data.scopes[key.scope][key.id]
    end = bodies_of.head.end
    if way == "head":
        store.damage_head(key)
    elif way in ("summary", "later"):
        info = '{"v":9}' if way == "later" else choose.choice(["x", "{}", '{"v":2}', DEEP])
        bodies_of.head = type(bodies_of.head)(
            key, bodies_of.head.start, end, type(bodies_of.head.revision)("v", 5, None, info)
        )
    elif way == "whole line":
        bodies_of.bodies[choose.randrange(len(bodies_of.bodies))] = line_of({"v": 2, "id": "x", "kind": "cut", "at": 1})
    else:
        places = {"first": [0], "last": [-1], "record": [choose.randrange(len(bodies_of.bodies))]}
        every = range(len(bodies_of.bodies))
        for place in places.get(way, every if way == "all" else choose.sample(every, min(3, len(bodies_of.bodies)))):
            bodies_of.bodies[place] += choose.choice([" ", "x", "\U0001f600"])


def make_filled_store(choose, count):
    store = DamagedStore()
    for number in range(count):
        chat = History(store).conversation(f"c{number}", scope=choose.choice(["a", "b", "Ada/ü"]))
        numbered(chat, choose.randint(1, 8))
        if choose.random() < 0.3:
            chat.annotate(title=f"T{number}", metadata={"n": [number, None]})
        if choose.random() < 0.2 and chat.log.last_head.end > 2:
            chat.forget(before=1)
    return store


def drop_aborted_marks(data):
    """Return an export without the control lines that mark conversations as aborted."""
    return b"".join(line for line in data.splitlines(keepends=True) if b'"kind":"aborted"' not in line)


@pytest.mark.parametrize("seed", range(60))
def test_an_export_and_import_keeps_what_is_not_damaged(seed):
    choose = random.Random(seed)
    store = make_filled_store(choose, choose.randint(1, 15))
    whole = read_all(store)
    keys = sorted(whole)
    bad = set(choose.sample(keys, choose.randint(0, len(keys))))
    for key in bad:
        damage_conversation(store, key, choose.choice(WAYS), choose)
    report, data = export(store)
    assert report.failed.keys() == bad
    assert report.conversations == len(keys) - len(bad)
    assert report.complete is not bool(bad)
    sound = {key: part for key, part in whole.items() if key not in bad}
    for file in (data, drop_aborted_marks(data)):
        target = MemoryStore()
        again = import_data(target, file)
        assert read_all(target) == sound
        assert again.copied == len(sound)
        assert set(again.failed) <= bad
        assert again.skipped == []
        assert import_data(target, file).same == len(sound)
    other = MemoryStore()
    copy = History(store).copy_to(other, threads=2, all_scopes=True)
    assert (read_all(other), set(copy.failed)) == (sound, bad)


def test_a_large_store_with_one_damaged_conversation_is_restored():
    """An earlier version lost all but 138 of 1,500 conversations."""
    store = DamagedStore()
    for number in range(150):
        numbered(chat_on(store, f"c{number:03}"), 2)
    store.damage_records(Key("default", "c013"), 1)
    report, data = export(store)
    assert (report.conversations, list(report.failed)) == (149, [Key("default", "c013")])
    for file in (data, drop_aborted_marks(data)):
        target = MemoryStore()
        again = import_data(target, file)
        assert (again.copied, len(read_all(target))) == (149, 149)
        assert list(again.failed) == [Key("default", "c013")]


@pytest.mark.parametrize("seed", range(30))
def test_readable_records_of_damaged_conversations_are_salvaged(seed):
    choose = random.Random(seed)
    store = make_filled_store(choose, 6)
    keys = sorted(read_all(store))
    lost = {}
    for key in choose.sample(keys, 4):
        bodies_of = store._data.scopes[key.scope][key.id]
        places = choose.sample(range(len(bodies_of.bodies)), choose.randint(0, len(bodies_of.bodies) - 1))
        for place in places:
            bodies_of.bodies[place] += " "
        if choose.random() < 0.5:
            store.damage_head(key)
        if places or key in store.unreadable:
            lost[key] = len(places)
    report, data = export(store, salvage=True)
    assert report.failed == {}
    assert report.salvaged == {key: count for key, count in lost.items() if count}
    target = MemoryStore()
    again = import_data(target, data)
    assert (again.copied, again.complete, again.records) == (6, True, report.records)
    for key in keys:
        there = History(target).conversation(key.id, scope=key.scope)
        kinds = [entry.kind for entry in there.entries()]
        assert kinds.count("record_lost") == lost.get(key, 0)
        there.messages()
        there.last_entries(100)
        there.append(user("on"))
        assert texts(there.messages())[-1] == "on"
    assert export(target)[0].complete


def test_damaged_conversations_are_salvaged_as_markdown():
    store = DamagedStore()
    numbered(chat_on(store), 4)
    store.damage_records(Key("default", "c"), 1)
    report, data = export(store, format="markdown")
    assert (list(report.failed), data) == ([Key("default", "c")], b"")
    report, data = export(store, format="markdown", salvage=True)
    assert report.salvaged == {Key("default", "c"): 1}
    assert b"\n\n0\n" in data
    assert b"\n\n2\n" in data
    assert "A record is missing here, because it could not be read." in data.decode()


def test_lines_of_a_later_format_are_kept_and_counted():
    with MemoryStore() as store, MemoryStore() as target, MemoryStore() as other:
        chat = chat_on(store)
        numbered(chat, 2)
        chat.log.append([make_entry("hologram", version=7, data={"x": 1})])
        numbered(chat, 2)
        assert History(store).copy_to(other, all_scopes=True).later == 1
        report, data = export(store)
        assert (report.complete, report.later) == (True, 1)
        assert import_data(target, data).later == 1
        assert read_all(target) == read_all(store) == read_all(other)
        assert [entry.version for entry in chat_on(target).entries()] == [2, 2, 7, 2, 2]


# Concatenated files.


def make_store(*names):
    store = MemoryStore()
    for name in names:
        numbered(chat_on(store, name), 3)
    return store


BETWEEN = [b"", b"\n", b"\n\n\r\n \t\n", b"\xef\xbb\xbf", b"\n\xef\xbb\xbf\n"]


@pytest.mark.parametrize("between", BETWEEN, ids=repr)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, None], ids=["plain", "each packed", "all packed"])
def test_concatenated_files_are_read_to_the_end(between, pack):
    stores = [make_store("a", "b"), make_store("c"), make_store(), make_store("d", "e")]
    files = [export(store)[1] for store in stores]
    if pack is None:
        whole = gzip.compress(between.join([b"", *files, b""]))
    else:
        whole = b"".join(pack(between + file + between) for file in files)
    target = MemoryStore()
    report = import_data(target, whole)
    assert (report.copied, report.complete) == (5, True)
    assert read_all(target) == {key: part for store in stores for key, part in read_all(store).items()}


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost_without_a_report(seed):
    """Whatever is between, after or in place of a part, the report names what is not stored."""
    choose = random.Random(seed)
    files = [export(make_store(f"a{number}", f"b{number}"))[1] for number in range(4)]
    junk = [
        b"nonsense\n",
        b"\x1f\x8b\x00\x01\n",
        b'{"chathistory":2,"kind":"complete"}\n',
        b"[" * 5000 + b"\n",
        b"{}\n",
    ]
    junk += [file[: choose.randrange(len(file))] for file in files]
    parts = [choose.choice([*files, *junk]) for _ in range(4)]
    whole = files[0] + b"".join(parts)
    target = MemoryStore()
    try:
        report = import_data(target, whole)
    except InvalidInput:
        report = None
    there = {key.id for key in MemoryStore.keys(target)}
    given = {f"{name}{number}" for number, file in enumerate(files) for name in "ab" if file in [files[0], *parts]}
    reported = {key.id for key in report.failed} if report else set()
    assert {"a0", "b0"} <= there
    if report is not None:
        assert given <= there | reported or report.skipped
        assert report.complete == (not any(part in junk for part in parts))


def test_an_incomplete_file_hides_nothing_of_the_next_one():
    first, second = export(make_store("a", "b"))[1], export(make_store("c", "d"))[1]
    between = first.index(b'{"chathistory":2,"kind":"conversation"', 1)
    before_end = first.index(b'{"chathistory":2,"kind":"end"')
    for stop in [*range(1, len(first), 23), between, before_end]:
        target = MemoryStore()
        report = import_data(target, first[:stop] + second)
        there = {key.id for key in MemoryStore.keys(target)}
        assert {"c", "d"} <= there, stop
        assert there <= {"a", "b", "c", "d"}
        complete = [line for line in first[:stop].splitlines(keepends=True) if line.endswith(b"\n")]
        assert not report.complete, stop
        assert sum(b'"kind":"complete"' in line for line in complete) <= len(there & {"a", "b"})


def test_a_missing_conversation_is_reported():
    data = export(make_store("a", "b", "c"))[1]
    begin, stop = [match.start() for match in re.finditer(rb'{"chathistory":2,"kind":"conversation"', data)][1:]
    target = MemoryStore()
    report = import_data(target, data[:begin] + data[stop:])
    assert report.copied == 2
    assert not report.complete
    [line] = report.skipped
    assert "the end of a file with 3 conversations follows 2" in line


def test_a_file_saved_by_an_editor_is_read():
    store = make_store("a", "b")
    data = export(store)[1]
    for edited in (data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), data[:-1]):
        target = MemoryStore()
        assert import_data(target, edited).complete
        assert read_all(target) == read_all(store)


# Files that no export wrote.


def header(**wrong):
    info = ConversationState(Identity("b", 1)).encode()
    usual = {"scope": "s", "id": "hostile", "start": 0, "end": 1, "version": "v", "updated": 5, "expires": None}
    return {"chathistory": 2, "kind": "conversation", **usual, "payload": info, **wrong}


def make_export(head, *bodies):
    """Return a file with one conversation, marked as complete, and a sound one after it."""
    text = "".join(f"{body}\n" for body in bodies).encode("utf-8", "surrogatepass")
    whole = as_text({"chathistory": 2, "kind": "complete", "sha256": hashlib.sha256(text).hexdigest()})
    sound = export(GOOD)[1].replace(b'"conversations":1', b'"conversations":2')
    return f"{as_text(head)}\n".encode() + text + f"{whole}\n".encode() + sound


GOOD = make_store("good")
LINE = line_of({"v": 2, "id": "e", "kind": "message", "at": 1, "message": {"role": "user", "content": "x"}})
WRONG = [
    *({"start": wrong} for wrong in (-1, "0", True, None, HUGE, 1.0, [], 2)),
    *({"end": wrong} for wrong in (-1, "1", True, None, HUGE, 2**53, {})),
    *({"updated": wrong} for wrong in (-1, "y", True, None, HUGE, 2**53, 1.5)),
    *({"expires": wrong} for wrong in ([], "never", -1, HUGE, True)),
    *({"version": wrong} for wrong in ("", "x" * 33, "ü", "\n", 5, None, True)),
    *({"scope": wrong} for wrong in ("", "x" * 256, "a\nb", 5, None, [], "\ud800")),
    *({"id": wrong} for wrong in ("", "x" * 256, "a\x00b", 5, None, {}, "\udfff")),
    *({"payload": wrong} for wrong in (5, None, "", "{}", "x\ny", "\ud800", DEEP, "x" * 300_000, [], {"v": 2})),
    *({"payload": ConversationState(Identity("b", 1)).encode()[:-1] + f",{more}}}"} for more in (
        '"messages":"many"', '"created":"y"', f'"created":{HUGE}', '"title":5', '"open_turn":7', '"metadata":[]',
        f'"metadata":{{"a":{"[" * 300}{"]" * 300}}}', '"metadata":{"a":NaN}', f'"x":{"[" * 300}{"]" * 300}',
        '"path_position":5', '"cut_position":1', '"view_start":9',
    )),
]  # fmt: skip


def check_no_harm(target):
    """Whatever was imported, the listing of its scope and the sound conversation are as they should be."""
    history = History(target)
    assert len(chat_on(target, "good").messages()) == 3
    for scope in {key.scope for key in read_all(target)}:
        page = history.list(scope=scope, limit=100)
        assert page.damaged == []
        history.list(scope=scope, limit=100, title="x")
        history.prune(scope=scope, count=0, ttl=timedelta(1), age=timedelta(1))
    assert history.check().complete
    assert export(target)[0].complete
    for key in read_all(target):
        chat = history.conversation(key.id, scope=key.scope)
        calls = (
            chat.messages,
            lambda chat=chat: chat.last_entries(10),
            chat.usage,
            lambda chat=chat: chat.annotate(title="t"),
        )
        for call in calls:
            with contextlib.suppress(ChatHistoryError):  # what it says of itself may be wrong, and then that is said
                call()
    assert history.erase("s").complete


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: as_text(wrong)[:60])
def test_a_hostile_header_is_reported_and_skipped(wrong):
    target = MemoryStore()
    report = import_data(target, make_export(header(**wrong), LINE))
    assert (report.copied, report.complete) == (1, False)
    assert len(report.failed) + len(report.skipped) == 1
    assert {key.id for key in read_all(target)} == {"good"}
    check_no_harm(target)


def test_a_header_without_one_of_its_fields_is_skipped():
    for name in header():
        if name not in ("chathistory", "kind"):
            less = {key: value for key, value in header().items() if key != name}
            report = import_data(MemoryStore(), make_export(less, LINE))
            assert (report.copied, len(report.skipped)) == (1, 1)
            assert name in report.skipped[0]
    assert import_data(MemoryStore(), make_export(header(more="later"), LINE)).complete


@draw_examples(
    100,
    800,
    st.dictionaries(st.sampled_from([*header(), "x"]), values, max_size=3),
    st.lists(st.just(LINE) | lines.map(line_of) | st.text(max_size=30), max_size=3),
    st.integers(0, 4),
)
def test_any_file_is_imported_or_reported(wrong, bodies, end):
    target = MemoryStore()
    data = make_export(header(end=end) | wrong | {"chathistory": 2}, *bodies)
    try:
        import_data(target, data)
    except InvalidInput:
        return  # the file as a whole: its first line is not that of an export, or it seems incomplete
    check_no_harm(target)


@draw_examples(100, 600, st.lists(lines.map(line_of), min_size=1, max_size=5))
def test_imported_lines_can_be_read(bodies):
    target = MemoryStore()
    report = import_data(target, make_export(header(end=len(bodies)), *bodies))
    assert report.copied + len(report.failed) == 2
    for number, body in enumerate(bodies):
        if Key("s", "hostile") in read_all(target):
            decode(Record(number, body), Key("s", "hostile"))
    check_no_harm(target)


def test_a_deep_or_endless_header_is_skipped():
    sound = export(GOOD)[1]
    for text in (DEEP, "9" * 5000, "NaN", "1e999", '"\\ud800"', '{"a":' * 5000):
        line = f'{{"chathistory":2,"kind":"conversation","scope":"s","id":{text}}}\n'
        target = MemoryStore()
        report = import_data(target, sound + line.encode() + sound)
        assert (report.copied, report.same, len(report.skipped)) == (1, 1, 1)


def test_an_export_of_a_later_format_is_refused():
    with pytest.raises(InvalidInput, match="later version"):
        import_data(MemoryStore(), b'{"chathistory":3,"kind":"conversation"}\n')
    report = import_data(MemoryStore(), export(GOOD)[1] + b'{"chathistory":3,"kind":"end"}\n')
    assert (report.copied, report.complete) == (1, False)
    assert "later version" in report.skipped[0]


def export_five():
    """Return a file with five conversations of three messages."""
    store = MemoryStore()
    for number in range(5):
        numbered(History(store).conversation(f"c{number}"), 3)
    return export(store)[1]


FIVE = export_five()
FIRST_LINES = {
    **{f"bit {bit} of byte {at}": (at, bit) for at in (0, 1, 7, 14, 15, 16, 20, 30, 45) for bit in (0, 1, 4)},
    "no name": lambda data: data.replace(b'"chathistory":2,', b"", 1),
    "no kind": lambda data: data.replace(b'"kind":"conversation",', b"", 1),
    "cut": lambda data: data[200:],
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("damage", FIRST_LINES)
def test_a_damaged_first_line_loses_one_conversation(damage, pack):
    damaged = FIRST_LINES[damage]
    data = bytearray(FIVE)
    if isinstance(damaged, tuple):
        data[damaged[0]] ^= 1 << damaged[1]
    else:
        data = damaged(FIVE)
    target = MemoryStore()
    report = import_data(target, pack(bytes(data)))
    assert (report.copied, report.complete) == (4, False)
    assert len(report.failed) + len(report.skipped) == 1
    assert {key.id for key in read_all(target)} == {"c1", "c2", "c3", "c4"}


@pytest.mark.parametrize(
    "before", [b"garbage\n", b'[{"role":"user","content":"q"}]\n', b"\0" * 600, b'{"chathistory":3}\n']
)
def test_lines_before_an_export_are_skipped(before):
    report = import_data(MemoryStore(), before + FIVE)
    assert (report.copied, report.failed, len(report.skipped)) == (5, {}, 1)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n \n\t\n"])
def test_empty_lines_in_an_export_are_skipped(end):
    report = import_data(MemoryStore(), FIVE.replace(b"\n", end))
    assert (report.copied, report.complete) == (5, True)


@pytest.mark.parametrize("more", [0, 1])
def test_the_limits_of_a_head_are_the_same_for_storing_listing_and_importing(more):
    usual = ConversationState(Identity("b", 1), Annotations(title=""))
    info = ConversationState(
        Identity("b", 1), Annotations(title="t" * (LONGEST_PAYLOAD - len(usual.encode()) + more))
    ).encode()
    source, target = MemoryStore(), MemoryStore()
    key, revision = Key("s", "long"), Revision("v", 5, None, info)
    if not more:
        source.append(key, [LINE], after=None, revision=revision)
        report, data = export(source)
        assert report.complete
        assert import_data(target, data).complete
        assert read_all(target) == read_all(source)
        return
    with pytest.raises(InvalidInput, match="payload must have at most"):
        source.append(key, [LINE], after=None, revision=revision)
    with pytest.raises(CorruptRecord, match="payload must have at most"):
        read_state(Head(key, 0, 1, revision))
    report = import_data(target, make_export(header(payload=info), LINE))
    assert (report.copied, len(report.skipped)) == (1, 1)


# Lists of messages.


def make_list(*messages, **other_fields):
    return json.dumps({**other_fields, "messages": messages} if other_fields else messages).encode()


CONVERSATION = [user("a"), said("b"), user("c"), said("d")]


@pytest.mark.parametrize("replace", [False, True])
def test_the_same_list_is_skipped_and_a_longer_one_continues(replace):
    store = MemoryStore()
    options = {"id": "x", "replace": replace}
    assert import_data(store, make_list(*CONVERSATION[:2]), **options).copied == 1
    assert import_data(store, make_list(*CONVERSATION[:2]), **options).same == 1
    grown = import_data(store, make_list(*CONVERSATION), **options)
    assert (grown.continued, grown.records, grown.complete) == (1, 2, True)
    assert import_data(store, make_list(*CONVERSATION), **options).same == 1
    assert import_data(store, make_list(*CONVERSATION[:2]), **options).same == 1
    chat = chat_on(store, "x")
    chat.append([user("on"), said("so")])
    chat.annotate(title="mine")
    assert import_data(store, make_list(*CONVERSATION), **options).same == 1
    assert texts(chat.messages()) == ["a", "b", "c", "d", "on", "so"]
    other = import_data(store, make_list(*CONVERSATION[1:]), **options)
    assert (other.copied, len(other.different)) == ((1, 0) if replace else (0, 1))


def test_equal_messages_are_both_stored():
    store = MemoryStore()
    import_data(store, make_list(user("x"), said("y"), user("x"), said("y")), id="x")
    entries = list(chat_on(store, "x").entries())
    assert len({entry.id for entry in entries}) == 4
    assert import_data(store, make_list(user("x"), said("y")), id="x").same == 1


TIMES = [
    ("created_at", "2024-05-06T07:08:09Z"),
    ("created_at", "2024-05-06T09:08:09+02:00"),
    ("timestamp", "2024-05-06 07:08:09"),
    ("timestamp", 1714979289),
    ("create_time", 1714979289.0),
    ("timestamp", 1714979289000),
    ("time", 1714979289000000),
    ("createdAt", "2024-05-06T07:08:09.000Z"),
]


@pytest.mark.parametrize(("name", "value"), TIMES, ids=str)
def test_times_of_messages_are_kept(name, value):
    store = MemoryStore()
    given = [user("a") | {name: value, "id": "msg-1"}, said("b"), user("c") | {"timestamp": 1714979300}]
    import_data(store, make_list(*given), id="x")
    entries = list(chat_on(store, "x").entries())
    assert [entry.time_us // 1_000_000 for entry in entries] == [1714979289, 1714979289, 1714979300]
    assert "msg-1" in str(entries[0]) + str(entries[0].data) + str(entries[0].message)
    [row] = History(store).list().items
    assert row.created == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert row.updated == datetime(2024, 5, 6, 7, 8, 20, tzinfo=UTC)
    assert import_data(store, make_list(*given), id="x").same == 1
    assert import_data(store, make_list(*given, said("d")), id="x").continued == 1


@pytest.mark.parametrize(
    "value", ["soon", "", None, True, [], {}, -5, 0, 1e300, HUGE, "9999-99-99", "0001-01-01T00:00:00+14:00"]
)
def test_an_invalid_time_is_ignored(value):
    store = MemoryStore()
    moment = 1_800_000_000_000_000
    with use_clock(Clock(wall=lambda: moment, elapsed=lambda: 0)):
        import_data(store, make_list(user("a") | {"timestamp": value}), id="x")
    assert [entry.time_us for entry in chat_on(store, "x").entries()] == [moment]


def test_a_time_in_the_future_becomes_now():
    store = MemoryStore()
    moment = 1_800_000_000_000_000
    with use_clock(Clock(wall=lambda: moment, elapsed=lambda: 0)):
        import_data(store, make_list(user("a") | {"timestamp": "2200-01-01"}), id="x")
    assert chat_on(store, "x").log.refresh().revision.updated == moment


def test_the_time_to_live_of_a_list_starts_with_its_import():
    with MemoryStore() as store:
        store.ttl = 100
        import_data(store, make_list(user("a") | {"timestamp": 5}), id="x")
        assert texts(chat_on(store, "x").messages()) == ["a"]


def test_the_title_of_a_list_is_stored():
    store = MemoryStore()
    data = make_list(*CONVERSATION, title="Tea", model="m")
    import_data(store, data, id="x")
    assert chat_on(store, "x").info().title == "Tea"
    assert import_data(store, data, id="x").same == 1
    assert import_data(store, make_list(*CONVERSATION, reply(1), title="Tea"), id="x").continued == 1
    assert texts(chat_on(store, "x").last_messages(9)) == ["a", "b", "c", "d", "1"]
    for wrong in (5, ["x"], {}, "x" * 1001):
        with pytest.raises(InvalidInput, match="title"):
            import_data(store, make_list(*CONVERSATION, title=wrong), id="y")


def test_the_error_names_the_invalid_message():
    with pytest.raises(InvalidInput, match=r"messages\[1\]: message"):
        import_data(MemoryStore(), make_list(user("a"), {"role": "assistant", "content": 5}), id="x")


# Markdown.

OBEYED = [
    chr(code)
    for code in (*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
]


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from([*OBEYED, "a", "\n", "[31m", "]0;x"])).map("".join))
def test_neutralized_text_has_no_control_sequences(text):
    shown = neutralize(text)
    assert not set(shown).intersection(OBEYED)
    shown.encode()
    if not set(text).intersection(OBEYED) and text.isascii():
        assert shown == text


def test_markdown_has_no_control_sequences():
    with MemoryStore() as store:
        evil = "x\x1b[2J\x1b]0;t\x07\x9b31m\u202eabc\u2066d\r" + "".join(OBEYED)
        chat = History(store).conversation("c", scope="ada")
        call = {"type": "tool_use", "id": "t", "name": evil, "input": {evil: evil}}
        chat.append([user(evil), {"role": "assistant", "content": [{"type": "text", "text": evil}, call]}])
        result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": evil}]}
        chat.append([{"role": "user", "content": [result]}, said(evil)])
        chat.annotate(title=evil, tags=[evil])
        text = export(store, format="markdown")[1].decode()
        assert not set(text).intersection(OBEYED)
        assert text.count("abc") >= 6
