"""Files out of a store with damage in it, files put behind each other, and files that no exporter ever wrote."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from chathistory_memory import MemoryStore
from faulty_stores import DamagedStore, all_unless_named, chat_on, numbered, reply, said, texts, user
from hostile_values import DEEP, HUGE, as_text, line_of, lines, values
from hypothesis import given, settings
from hypothesis import strategies as st
from made_entries import make_entry

from chathistory import History, Key, Record
from chathistory.control_characters import neutralize
from chathistory.errors import ChatHistoryError, CorruptRecord, InvalidInput
from chathistory.log.clock import Clock, use_clock
from chathistory.log.entry import decode
from chathistory.log.state import Annotations, ConversationState, Identity, read_state
from chathistory.storage.values import LONGEST_PAYLOAD, Head, Revision


def exported(store, **options):
    out = io.BytesIO()
    return History(store).export_to(out, **all_unless_named(options)), out.getvalue()


def imported(store, data, **options):
    return History(store).import_from(io.BytesIO(data), **all_unless_named(options))


def all_of(store):
    return {key: MemoryStore.read(store, key) for key in MemoryStore.keys(store)}


# Damage on the way out.

WAYS = ("head", "summary", "later", "record", "first", "last", "several", "all", "whole line")


def hurt(store, key, way, choose):
    held = store._data.scopes[key.scope][key.id]
    end = held.head.end
    if way == "head":
        store.damage_head(key)
    elif way in ("summary", "later"):
        info = '{"v":9}' if way == "later" else choose.choice(["x", "{}", '{"v":2}', DEEP])
        held.head = type(held.head)(key, held.head.start, end, type(held.head.revision)("v", 5, None, info))
    elif way == "whole line":
        held.bodies[choose.randrange(len(held.bodies))] = line_of({"v": 2, "id": "x", "kind": "cut", "at": 1})
    else:
        places = {"first": [0], "last": [-1], "record": [choose.randrange(len(held.bodies))]}
        every = range(len(held.bodies))
        for place in places.get(way, every if way == "all" else choose.sample(every, min(3, len(held.bodies)))):
            held.bodies[place] += choose.choice([" ", "x", "\U0001f600"])


def filled(choose, count):
    store = DamagedStore()
    for number in range(count):
        chat = History(store).conversation(f"c{number}", scope=choose.choice(["a", "b", "Ada/ü"]))
        numbered(chat, choose.randint(1, 8))
        if choose.random() < 0.3:
            chat.annotate(title=f"T{number}", metadata={"n": [number, None]})
        if choose.random() < 0.2 and chat.log.last_head.end > 2:
            chat.forget(before=1)
    return store


def without_void(data):
    """Return what the exporter wrote before it marked what it broke off."""
    return b"".join(line for line in data.splitlines(keepends=True) if b'"kind":"aborted"' not in line)


@pytest.mark.parametrize("seed", range(60))
def test_what_comes_back_is_what_is_not_damaged(seed):
    choose = random.Random(seed)
    store = filled(choose, choose.randint(1, 15))
    whole = all_of(store)
    keys = sorted(whole)
    bad = set(choose.sample(keys, choose.randint(0, len(keys))))
    for key in bad:
        hurt(store, key, choose.choice(WAYS), choose)
    report, data = exported(store)
    assert report.failed.keys() == bad
    assert report.conversations == len(keys) - len(bad)
    assert report.complete is not bool(bad)
    sound = {key: part for key, part in whole.items() if key not in bad}
    for file in (data, without_void(data)):
        target = MemoryStore()
        again = imported(target, file)
        assert all_of(target) == sound
        assert again.copied == len(sound)
        assert set(again.failed) <= bad
        assert again.skipped == []
        assert imported(target, file).same == len(sound)
    other = MemoryStore()
    copy = History(store).copy_to(other, threads=2, all_scopes=True)
    assert (all_of(other), set(copy.failed)) == (sound, bad)


def test_a_large_store_with_one_damaged_conversation_comes_back():
    """As it was found: 138 of 1,500 came back."""
    store = DamagedStore()
    for number in range(150):
        numbered(chat_on(store, f"c{number:03}"), 2)
    store.damage_records(Key("default", "c013"), 1)
    report, data = exported(store)
    assert (report.conversations, list(report.failed)) == (149, [Key("default", "c013")])
    for file in (data, without_void(data)):
        target = MemoryStore()
        again = imported(target, file)
        assert (again.copied, len(all_of(target))) == (149, 149)
        assert list(again.failed) == [Key("default", "c013")]


@pytest.mark.parametrize("seed", range(30))
def test_what_can_be_read_of_damaged_ones_is_salvaged(seed):
    choose = random.Random(seed)
    store = filled(choose, 6)
    keys = sorted(all_of(store))
    lost = {}
    for key in choose.sample(keys, 4):
        held = store._data.scopes[key.scope][key.id]
        places = choose.sample(range(len(held.bodies)), choose.randint(0, len(held.bodies) - 1))
        for place in places:
            held.bodies[place] += " "
        if choose.random() < 0.5:
            store.damage_head(key)
        if places or key in store.unreadable:
            lost[key] = len(places)
    report, data = exported(store, salvage=True)
    assert report.failed == {}
    assert report.salvaged == {key: count for key, count in lost.items() if count}
    target = MemoryStore()
    again = imported(target, data)
    assert (again.copied, again.complete, again.records) == (6, True, report.records)
    for key in keys:
        there = History(target).conversation(key.id, scope=key.scope)
        kinds = [entry.kind for entry in there.entries()]
        assert kinds.count("record_lost") == lost.get(key, 0)
        there.messages()
        there.last_entries(100)
        there.append(user("on"))
        assert texts(there.messages())[-1] == "on"
    assert exported(target)[0].complete


def test_markdown_of_damaged_ones_is_salvaged():
    store = DamagedStore()
    numbered(chat_on(store), 4)
    store.damage_records(Key("default", "c"), 1)
    report, data = exported(store, format="markdown")
    assert (list(report.failed), data) == ([Key("default", "c")], b"")
    report, data = exported(store, format="markdown", salvage=True)
    assert report.salvaged == {Key("default", "c"): 1}
    assert b"\n\n0\n" in data
    assert b"\n\n2\n" in data
    assert "A record is missing here, because it could not be read." in data.decode()


def test_lines_of_a_later_format_are_carried_over_and_counted():
    with MemoryStore() as store, MemoryStore() as target, MemoryStore() as other:
        chat = chat_on(store)
        numbered(chat, 2)
        chat.log.append([make_entry("hologram", version=7, data={"x": 1})])
        numbered(chat, 2)
        assert History(store).copy_to(other, all_scopes=True).later == 1
        report, data = exported(store)
        assert (report.complete, report.later) == (True, 1)
        assert imported(target, data).later == 1
        assert all_of(target) == all_of(store) == all_of(other)
        assert [entry.version for entry in chat_on(target).entries()] == [2, 2, 7, 2, 2]


# Files behind each other.


def store_of(*names):
    store = MemoryStore()
    for name in names:
        numbered(chat_on(store, name), 3)
    return store


BETWEEN = [b"", b"\n", b"\n\n\r\n \t\n", b"\xef\xbb\xbf", b"\n\xef\xbb\xbf\n"]


@pytest.mark.parametrize("between", BETWEEN, ids=repr)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, None], ids=["plain", "each packed", "all packed"])
def test_files_that_stand_behind_each_other_are_read_to_the_end(between, pack):
    stores = [store_of("a", "b"), store_of("c"), store_of(), store_of("d", "e")]
    files = [exported(store)[1] for store in stores]
    if pack is None:
        whole = gzip.compress(between.join([b"", *files, b""]))
    else:
        whole = b"".join(pack(between + file + between) for file in files)
    target = MemoryStore()
    report = imported(target, whole)
    assert (report.copied, report.complete) == (5, True)
    assert all_of(target) == {key: part for store in stores for key, part in all_of(store).items()}


@pytest.mark.parametrize("seed", range(40))
def test_never_half_in_silence(seed):
    """Whatever stands between, behind or in the place of a part, what is not stored is told."""
    choose = random.Random(seed)
    files = [exported(store_of(f"a{number}", f"b{number}"))[1] for number in range(4)]
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
        report = imported(target, whole)
    except InvalidInput:
        report = None
    there = {key.id for key in MemoryStore.keys(target)}
    given = {f"{name}{number}" for number, file in enumerate(files) for name in "ab" if file in [files[0], *parts]}
    told = {key.id for key in report.failed} if report else set()
    assert {"a0", "b0"} <= there
    if report is not None:
        assert given <= there | told or report.skipped
        assert report.complete == (not any(part in junk for part in parts))


def test_a_file_that_is_broken_off_before_another_hides_nothing_of_that():
    first, second = exported(store_of("a", "b"))[1], exported(store_of("c", "d"))[1]
    for stop in range(1, len(first), 23):
        target = MemoryStore()
        report = imported(target, first[:stop] + second)
        there = {key.id for key in MemoryStore.keys(target)}
        assert {"c", "d"} <= there, stop
        assert there <= {"a", "b", "c", "d"}
        complete = [line for line in first[:stop].splitlines(keepends=True) if line.endswith(b"\n")]
        is_between = b"".join(complete) == first[:stop] and b'"kind":"complete"' in complete[-1]
        assert report.complete == is_between, "only a file that ends between two conversations looks like a whole one"
        assert sum(b'"kind":"complete"' in line for line in complete) <= len(there & {"a", "b"})


def test_a_file_that_an_editor_saved_is_read():
    store = store_of("a", "b")
    data = exported(store)[1]
    for edited in (data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"), data[:-1]):
        target = MemoryStore()
        assert imported(target, edited).complete
        assert all_of(target) == all_of(store)


# Files that no exporter wrote.


def header(**wrong):
    info = ConversationState(Identity("b", 1)).encode()
    usual = {"scope": "s", "id": "hostile", "start": 0, "end": 1, "version": "v", "updated": 5, "expires": None}
    return {"chathistory": 2, "kind": "conversation", **usual, "payload": info, **wrong}


def archive(head, *bodies):
    """Return a file with one conversation, as if it were whole, and a sound one behind it."""
    text = "".join(f"{body}\n" for body in bodies).encode("utf-8", "surrogatepass")
    whole = as_text({"chathistory": 2, "kind": "complete", "sha256": hashlib.sha256(text).hexdigest()})
    sound = exported(GOOD)[1]
    return f"{as_text(head)}\n".encode() + text + f"{whole}\n".encode() + sound


GOOD = store_of("good")
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
        f'"metadata":{{"a":{"[" * 300}{"]" * 300}}}', '"metadata":{"a":NaN}', '"x":1', '"path_position":5',
        '"cut_position":1', '"view_start":9',
    )),
]  # fmt: skip


def check_contained(target):
    """Whatever was taken: the listing of its scope and the sound conversation are as they should be."""
    history = History(target)
    assert len(chat_on(target, "good").messages()) == 3
    for scope in {key.scope for key in all_of(target)}:
        page = history.list(scope=scope, limit=100)
        assert page.damaged == []
        history.list(scope=scope, limit=100, title="x")
        history.prune(scope=scope, count=0, ttl=timedelta(1), age=timedelta(1))
    assert history.check().complete
    assert exported(target)[0].complete
    for key in all_of(target):
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
def test_a_hostile_header_is_told_and_passed_over(wrong):
    target = MemoryStore()
    report = imported(target, archive(header(**wrong), LINE))
    assert (report.copied, report.complete) == (1, False)
    assert len(report.failed) + len(report.skipped) == 1
    assert {key.id for key in all_of(target)} == {"good"}
    check_contained(target)


def test_a_header_without_one_of_its_fields_is_passed_over():
    for name in header():
        if name not in ("chathistory", "kind"):
            less = {key: value for key, value in header().items() if key != name}
            report = imported(MemoryStore(), archive(less, LINE))
            assert (report.copied, len(report.skipped)) == (1, 1)
            assert name in report.skipped[0]
    assert imported(MemoryStore(), archive(header(more="later"), LINE)).complete


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*header(), "x"]), values, max_size=3),
    st.lists(st.just(LINE) | lines.map(line_of) | st.text(max_size=30), max_size=3),
    st.integers(0, 4),
)
def test_any_file_is_taken_or_told(wrong, bodies, end):
    target = MemoryStore()
    data = archive(header(end=end) | wrong | {"chathistory": 2}, *bodies)
    try:
        imported(target, data)
    except InvalidInput:
        return  # the file as a whole: its first line is none of an export's, or it seems to be broken off
    check_contained(target)


@settings(max_examples=300, deadline=None)
@given(st.lists(lines.map(line_of), min_size=1, max_size=5))
def test_lines_that_are_taken_can_be_read(bodies):
    target = MemoryStore()
    report = imported(target, archive(header(end=len(bodies)), *bodies))
    assert report.copied + len(report.failed) == 2
    for number, body in enumerate(bodies):
        if Key("s", "hostile") in all_of(target):
            decode(Record(number, body), Key("s", "hostile"))
    check_contained(target)


def test_a_header_that_is_deep_or_endless_is_passed_over():
    sound = exported(GOOD)[1]
    for text in (DEEP, "9" * 5000, "NaN", "1e999", '"\\ud800"', '{"a":' * 5000):
        line = f'{{"chathistory":2,"kind":"conversation","scope":"s","id":{text}}}\n'
        target = MemoryStore()
        report = imported(target, sound + line.encode() + sound)
        assert (report.copied, report.same, len(report.skipped)) == (1, 1, 1)


def test_a_later_archive_is_refused_by_name():
    with pytest.raises(InvalidInput, match="later version"):
        imported(MemoryStore(), b'{"chathistory":3,"kind":"conversation"}\n')
    report = imported(MemoryStore(), exported(GOOD)[1] + b'{"chathistory":3,"kind":"end"}\n')
    assert (report.copied, report.complete) == (1, False)
    assert "later version" in report.skipped[0]


def archive_of_five():
    """Return a file with five conversations of three messages."""
    store = MemoryStore()
    for number in range(5):
        numbered(History(store).conversation(f"c{number}"), 3)
    return exported(store)[1]


FIVE = archive_of_five()
FIRST_LINES = {
    **{f"bit {bit} of byte {at}": (at, bit) for at in (0, 1, 7, 14, 15, 16, 20, 30, 45) for bit in (0, 1, 4)},
    "no name": lambda data: data.replace(b'"chathistory":2,', b"", 1),
    "no kind": lambda data: data.replace(b'"kind":"conversation",', b"", 1),
    "cut": lambda data: data[200:],
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize("damage", FIRST_LINES)
def test_a_damaged_first_line_costs_one_conversation(damage, pack):
    damaged = FIRST_LINES[damage]
    data = bytearray(FIVE)
    if isinstance(damaged, tuple):
        data[damaged[0]] ^= 1 << damaged[1]
    else:
        data = damaged(FIVE)
    target = MemoryStore()
    report = imported(target, pack(bytes(data)))
    assert (report.copied, report.complete) == (4, False)
    assert len(report.failed) + len(report.skipped) == 1
    assert {key.id for key in all_of(target)} == {"c1", "c2", "c3", "c4"}


@pytest.mark.parametrize(
    "before", [b"garbage\n", b'[{"role":"user","content":"q"}]\n', b"\0" * 600, b'{"chathistory":3}\n']
)
def test_what_stands_before_an_archive_is_passed_over(before):
    report = imported(MemoryStore(), before + FIVE)
    assert (report.copied, report.failed, len(report.skipped)) == (5, {}, 1)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n \n\t\n"])
def test_empty_lines_between_the_lines_of_an_archive_are_passed_over(end):
    report = imported(MemoryStore(), FIVE.replace(b"\n", end))
    assert (report.copied, report.complete) == (5, True)


@pytest.mark.parametrize("more", [0, 1])
def test_one_limit_holds_for_what_is_stored_listed_and_imported(more):
    usual = ConversationState(Identity("b", 1), Annotations(title=""))
    info = ConversationState(
        Identity("b", 1), Annotations(title="t" * (LONGEST_PAYLOAD - len(usual.encode()) + more))
    ).encode()
    source, target = MemoryStore(), MemoryStore()
    key, revision = Key("s", "long"), Revision("v", 5, None, info)
    if not more:
        source.append(key, [LINE], after=None, revision=revision)
        report, data = exported(source)
        assert report.complete
        assert imported(target, data).complete
        assert all_of(target) == all_of(source)
        return
    with pytest.raises(InvalidInput, match="payload must have at most"):
        source.append(key, [LINE], after=None, revision=revision)
    with pytest.raises(CorruptRecord, match="payload must have at most"):
        read_state(Head(key, 0, 1, revision))
    report = imported(target, archive(header(payload=info), LINE))
    assert (report.copied, len(report.skipped)) == (1, 1)


# Lists of messages.


def listed(*messages, **beside):
    return json.dumps({**beside, "messages": messages} if beside else messages).encode()


TALK = [user("a"), said("b"), user("c"), said("d")]


@pytest.mark.parametrize("replace", [False, True])
def test_the_same_list_is_skipped_and_one_that_has_grown_continues(replace):
    store = MemoryStore()
    options = {"id": "x", "replace": replace}
    assert imported(store, listed(*TALK[:2]), **options).copied == 1
    assert imported(store, listed(*TALK[:2]), **options).same == 1
    grown = imported(store, listed(*TALK), **options)
    assert (grown.continued, grown.records, grown.complete) == (1, 2, True)
    assert imported(store, listed(*TALK), **options).same == 1
    assert imported(store, listed(*TALK[:2]), **options).same == 1
    chat = chat_on(store, "x")
    chat.append([user("on"), said("so")])
    chat.annotate(title="mine")
    assert imported(store, listed(*TALK), **options).same == 1
    assert texts(chat.messages()) == ["a", "b", "c", "d", "on", "so"]
    other = imported(store, listed(*TALK[1:]), **options)
    assert (other.copied, len(other.different)) == ((1, 0) if replace else (0, 1))


def test_two_alike_messages_are_two():
    store = MemoryStore()
    imported(store, listed(user("x"), said("y"), user("x"), said("y")), id="x")
    entries = list(chat_on(store, "x").entries())
    assert len({entry.id for entry in entries}) == 4
    assert imported(store, listed(user("x"), said("y")), id="x").same == 1


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
    imported(store, listed(*given), id="x")
    entries = list(chat_on(store, "x").entries())
    assert [entry.time_us // 1_000_000 for entry in entries] == [1714979289, 1714979289, 1714979300]
    assert "msg-1" in str(entries[0]) + str(entries[0].data) + str(entries[0].message)
    [row] = History(store).list().items
    assert row.created == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert row.updated == datetime(2024, 5, 6, 7, 8, 20, tzinfo=UTC)
    assert imported(store, listed(*given), id="x").same == 1
    assert imported(store, listed(*given, said("d")), id="x").continued == 1


@pytest.mark.parametrize(
    "value", ["soon", "", None, True, [], {}, -5, 0, 1e300, HUGE, "9999-99-99", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_time_is_not_taken_for_one(value):
    store = MemoryStore()
    moment = 1_800_000_000_000_000
    with use_clock(Clock(wall=lambda: moment, elapsed=lambda: 0)):
        imported(store, listed(user("a") | {"timestamp": value}), id="x")
    assert [entry.time_us for entry in chat_on(store, "x").entries()] == [moment]


def test_a_time_that_is_to_come_is_now():
    store = MemoryStore()
    moment = 1_800_000_000_000_000
    with use_clock(Clock(wall=lambda: moment, elapsed=lambda: 0)):
        imported(store, listed(user("a") | {"timestamp": "2200-01-01"}), id="x")
    assert chat_on(store, "x").log.refresh().revision.updated == moment


def test_a_list_lives_as_long_as_the_store_says_from_now_on():
    with MemoryStore() as store:
        store.ttl = 100
        imported(store, listed(user("a") | {"timestamp": 5}), id="x")
        assert texts(chat_on(store, "x").messages()) == ["a"]


def test_the_title_is_kept():
    store = MemoryStore()
    data = listed(*TALK, title="Tea", model="m")
    imported(store, data, id="x")
    assert chat_on(store, "x").info().title == "Tea"
    assert imported(store, data, id="x").same == 1
    assert imported(store, listed(*TALK, reply(1), title="Tea"), id="x").continued == 1
    assert texts(chat_on(store, "x").last_messages(9)) == ["a", "b", "c", "d", "1"]
    for wrong in (5, ["x"], {}, "x" * 1001):
        with pytest.raises(InvalidInput, match="title"):
            imported(store, listed(*TALK, title=wrong), id="y")


def test_a_message_that_is_wrong_is_named():
    with pytest.raises(InvalidInput, match=r"messages\[1\]: message"):
        imported(MemoryStore(), listed(user("a"), {"role": "assistant", "content": 5}), id="x")


# Markdown.

OBEYED = [
    chr(code)
    for code in (*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
]


@given(st.text() | st.lists(st.sampled_from([*OBEYED, "a", "\n", "[31m", "]0;x"])).map("".join))
def test_no_terminal_obeys_what_is_neutralized(text):
    shown = neutralize(text)
    assert not set(shown).intersection(OBEYED)
    shown.encode()
    if not set(text).intersection(OBEYED) and text.isascii():
        assert shown == text


def test_markdown_holds_nothing_that_a_terminal_obeys():
    with MemoryStore() as store:
        evil = "x\x1b[2J\x1b]0;t\x07\x9b31m\u202eabc\u2066d\r" + "".join(OBEYED)
        chat = History(store).conversation("c", scope="ada")
        call = {"type": "tool_use", "id": "t", "name": evil, "input": {evil: evil}}
        chat.append([user(evil), {"role": "assistant", "content": [{"type": "text", "text": evil}, call]}])
        result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": evil}]}
        chat.append([{"role": "user", "content": [result]}, said(evil)])
        chat.annotate(title=evil, tags=[evil])
        text = exported(store, format="markdown")[1].decode()
        assert not set(text).intersection(OBEYED)
        assert text.count("abc") >= 6
