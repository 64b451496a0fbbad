"""Copies, exports and imports: exact, complete or absent, repeatable, with a report of what fails."""

from __future__ import annotations

import gzip
import io
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import (
    DamagedStore,
    FaultyStore,
    all_unless_named,
    chat_on,
    numbered,
    reply,
    said,
    surely_not_landed,
    texts,
    unavailable,
    user,
)

from chathistory import History, Key, ReadResult, Revision, Traits
from chathistory.errors import Conflict, CorruptRecord, InvalidInput, StoreUnavailable
from chathistory.log import bulk_create
from chathistory.transfer import copy as copy_module
from chathistory.transfer import import_export


@pytest.fixture
def source():
    with MemoryStore() as store:
        history = History(store)
        for number in range(5):
            chat = history.conversation(f"c{number}", scope="ab"[number % 2])
            numbered(chat, 6)
            chat.annotate(title=f"T{number}")
        history.conversation("c0", scope="a").forget(before=2)
        yield store


@pytest.fixture
def target():
    with FaultyStore() as store:
        yield store


def read_all(store):
    return {key: MemoryStore.read(store, key) for key in list(store.keys())}


def copy(source, target, **options):
    return History(source).copy_to(target, threads=1, **all_unless_named(options))


# Copies.


def test_a_copy_is_exact_and_can_be_repeated(source, target):
    results = []
    report = copy(source, History(target), progress=results.append)
    assert (report.copied, report.records, report.complete) == (5, 34, True)
    assert [result.outcome for result in results] == ["copied"] * 5
    assert read_all(target) == read_all(source)
    again = copy(source, target)
    assert (again.copied, again.same, again.records) == (0, 5, 0)


def test_single_scopes_and_conversations_can_be_copied(source, target):
    copy(source, target, scope="a")
    assert {key.scope for key in target.keys()} == {"a"}  # noqa: SIM118
    report = copy(source, target, scope="b", ids=["c1", "c0"])
    assert report.copied == 1
    assert str(report.failed[Key("b", "c0")]) == "there is no conversation 'c0' in scope 'b'"
    assert copy(source, target, ids=["c1"]).failed.keys() == {Key("default", "c1")}


def test_expired_conversations_are_not_copied(source, target):
    source.ttl = -1
    chat_on(source, "old").append(user("x"))
    assert copy(source, target).copied == 5
    assert Key("default", "old") not in read_all(target)


def test_a_copy_is_brought_up_to_date(source, target):
    copy(source, target)
    chat = History(source).conversation("c1", scope="b")
    chat.append([user("6"), said("7")])
    chat.rewind(to=3)
    report = copy(source, target)
    assert (report.continued, report.same, report.records) == (1, 4, 3)
    assert read_all(target) == read_all(source)


def test_each_portion_that_is_added_gives_an_earlier_state(source, target, monkeypatch):
    copy(source, target)
    chat = History(source).conversation("c1", scope="b")
    states = {chat.log.refresh().end: chat.messages()}
    for number in range(20):
        chat.append(user(f"{number}" * 200))
        states[chat.log.refresh().end] = chat.messages()
    monkeypatch.setattr(bulk_create, "BATCH_BYTES", 700)
    seen = []
    append = FaultyStore.append

    def append_and_check(self, *args, **kwargs):
        head = append(self, *args, **kwargs)
        looked = History(_find_same_named_store(self)).conversation("c1", scope="b")
        seen.append(head.end)
        assert looked.messages() == states[head.end]
        assert looked.state().totals.messages == len(states[head.end])
        return head

    monkeypatch.setattr(FaultyStore, "append", append_and_check)
    assert copy(source, target).records == 20
    assert len(seen) > 5
    assert read_all(target) == read_all(source)


def _find_same_named_store(store):
    other = MemoryStore()
    other._data = store._data
    return other


def test_forgotten_records_are_forgotten_in_the_copy(source, target):
    copy(source, target)
    chats = [History(store).conversation("c1", scope="b") for store in (source, target)]
    source.forget(chats[0].log.key, before=3)
    assert copy(source, target).same == 5
    assert chats[1].log.refresh().start == 3
    chats[0].append([user("6"), said("7")])
    chats[0].forget(before=5)
    assert copy(source, target).continued == 1
    assert read_all(target) == read_all(source)


def test_a_conversation_without_records_is_copied(source, target):
    key = Key("b", "c1")
    source.forget(key, before=100)
    assert copy(source, target).copied == 5
    assert read_all(target) == read_all(source)


def test_another_conversation_is_kept_unless_replace_is_given(source, target):
    copy(source, target)
    mine = History(target).conversation("c1", scope="b")
    mine.append(user("mine"))
    chat_on(target, "x").append(user("mine"))
    theirs = chat_on(source, "x")
    numbered(theirs, 5)
    report = copy(source, target)
    assert (report.different, report.same, report.complete) == ([Key("b", "c1"), Key("default", "x")], 4, False)
    assert texts(mine.messages())[-1] == "mine"
    History(source).conversation("c1", scope="b").append([user("1"), user("2")])
    assert copy(source, target).different == report.different
    assert copy(source, target, replace=True).complete
    assert read_all(target) == read_all(source)


def test_a_copy_of_which_all_records_were_forgotten_is_different(source, target):
    copy(source, target)
    chat = History(source).conversation("c1", scope="b")
    chat.append([user("6"), said("7")])
    chat.forget(before=8)
    assert copy(source, target).different == [chat.log.key]


def test_a_copy_that_differs_from_its_source_is_reported_and_removed(source, target):
    class Liar(MemoryStore):
        def read(self, key, *, start=0, stop=None):
            part = super().read(key, start=start, stop=stop)
            if part and part.records and key.id == "c1":
                part = ReadResult(part.head, [*part.records[:-1], replace(part.records[-1], body="{}")])
            return part

    liar = Liar()
    report = copy(source, liar)
    assert (report.copied, list(report.failed)) == (4, [Key("b", "c1")])
    assert isinstance(report.failed[Key("b", "c1")], CorruptRecord)
    assert Key("b", "c1") not in read_all(liar)
    assert copy(source, liar, verify=False).copied == 1


def test_a_copy_that_was_continued_meanwhile_passes_verification(source, target):
    key = Key("b", "c1")

    class Busy(MemoryStore):
        def append(self, *args, **kwargs):
            head = super().append(*args, **kwargs)
            if head.key == key and head.revision.version != "new":
                super().append(
                    key,
                    ["{}"],
                    after=head,
                    revision=Revision("new", head.revision.updated + 1, None, head.revision.payload),
                )
            return head

    assert copy(source, Busy()).copied == 5


def test_a_conversation_that_changes_while_it_is_copied_is_read_again(target):
    source = _ChangingStore()
    chat = chat_on(source)
    numbered(chat, 10)
    source.steps = [lambda: source.forget(chat.log.key, before=6)]
    assert copy(source, target).copied == 1
    assert read_all(target) == read_all(source)
    source.steps = [lambda n=n: _create_again(source, n) for n in range(2)]
    target.delete(chat.log.key)
    assert copy(source, target).copied == 1
    assert texts(chat_on(target).messages()) == ["1"] * 8
    source.steps = [lambda n=n: _create_again(source, n) for n in range(9)]
    target.delete(chat.log.key)
    report = copy(source, target)
    assert isinstance(report.failed[chat.log.key], Conflict)
    assert read_all(target) == {}


class _ChangingStore(MemoryStore):
    """Returns three records at once, and changes something before it returns the second portion."""

    steps = ()

    def read(self, key, *, start=0, stop=None):
        if start >= 3 and stop is not None and self.steps:
            self.steps.pop(0)()
        part = super().read(key, start=start, stop=stop)
        return part and ReadResult(part.head, part.records[:3])


def _create_again(store, number):
    store.delete(Key("default", "c"))
    other = _find_same_named_store(store)
    chat_on(other).append([user(str(number)) for _ in range(8)])


def test_a_conversation_that_is_deleted_while_it_is_copied_is_not_copied(target):
    source = _ChangingStore()
    numbered(chat_on(source), 10)
    source.steps = [lambda: source.delete(Key("default", "c"))]
    report = copy(source, target)
    assert (report.copied, report.complete, read_all(target)) == (0, True, {})


def test_a_failing_store_ends_the_copy_and_a_repetition_completes_it(source, target):
    target.on_append = iter([None, None, surely_not_landed])
    with pytest.raises(StoreUnavailable):
        copy(source, target)
    target.clear_faults()
    assert 2 <= copy(source, target).same < 5
    assert read_all(target) == read_all(source)


def test_a_copy_with_a_lost_answer_is_resolved(source, target):
    def landed_and_lost(call):
        call()
        raise unavailable()

    target.on_append = iter([landed_and_lost] * 3)
    assert copy(source, target).copied == 5
    assert read_all(target) == read_all(source)


def test_a_conversation_too_large_for_the_other_store_is_reported(source):
    class Small(MemoryStore):
        traits = Traits(durable=False, shared=False, largest_record=400, largest_batch=700)

        def append(self, key, bodies, **more):
            assert sum(len(body) for body in bodies) <= 700
            if max(map(len, bodies)) > 400:
                raise InvalidInput("too large")
            return super().append(key, bodies, **more)

    chat = History(source).conversation("c1", scope="b")
    chat.append(user("x" * 500))
    small = Small()
    report = copy(source, small)
    assert (report.copied, str(report.failed[chat.log.key])) == (4, "too large")
    assert chat.log.key not in read_all(small)


def test_damaged_conversations_are_reported_and_the_others_copied(source, target):
    class Damaged(MemoryStore):
        def read(self, key, **more):
            if key.id == "c1":
                raise CorruptRecord(key, None, "for a test")
            return super().read(key, **more)

    damaged = Damaged()
    damaged._data = source._data
    report = copy(damaged, target)
    assert (report.copied, list(report.failed)) == (4, [Key("b", "c1")])
    out = io.BytesIO()
    for kind in ("jsonl", "markdown"):
        report = History(damaged).export_to(out, format=kind, all_scopes=True)
        assert (report.conversations, list(report.failed), report.complete) == (4, [Key("b", "c1")], False)


def test_a_damaged_copy_in_the_target_is_kept_unless_replace_is_given(source):
    target, key = DamagedStore(), Key("b", "c1")
    copy(source, target)
    target.damage_head(key)
    report = copy(source, target)
    assert (report.same, list(report.failed)) == (4, [key])
    report = copy(source, target, replace=True)
    assert (report.same, report.copied, report.complete) == (4, 1, True)
    assert read_all(target) == read_all(source)


def test_several_conversations_are_copied_at_the_same_time(source):
    meeting = threading.Barrier(3, timeout=600)

    class Slow(MemoryStore):
        def append(self, key, bodies, **more):
            if len(waited) < 3:
                waited.append(key)
                meeting.wait()
            return super().append(key, bodies, **more)

    waited = []
    slow = Slow()
    assert History(source).copy_to(slow, threads=3, all_scopes=True).copied == 5
    assert len(set(waited)) == 3
    assert read_all(slow) == read_all(source)


def test_many_more_conversations_than_threads(target):
    source = MemoryStore()
    for number in range(50):
        chat_on(source, f"c{number}").append(user("x"))
    source.ttl = -1
    chat_on(source, "expired").append(user("x"))
    assert History(source).copy_to(target, threads=2, all_scopes=True).copied == 50


# Exports and imports.


def export(store, name=None, **options):
    out = io.BytesIO() if name is None else name
    report = History(store).export_to(out, **all_unless_named(options))
    return (report, out.getvalue()) if name is None else report


def import_data(store, data, **options):
    return History(store).import_from(io.BytesIO(data), **all_unless_named(options))


@pytest.mark.parametrize("name", ["all.jsonl", "all.jsonl.gz", "all"])
def test_an_export_is_imported_again(source, target, tmp_path, name):
    path = tmp_path / name
    results = []
    report = export(source, str(path), progress=results.append)
    assert (report.conversations, report.records, len(results)) == (5, 34, 5)
    assert [each.name for each in tmp_path.iterdir()] == [name]
    if sys.platform != "win32":  # whose files have no such modes
        assert path.stat().st_mode & 0o777 == 0o600
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    results.clear()
    report = History(target).import_from(Path(path), progress=results.append, all_scopes=True)
    assert (report.copied, report.records, len(results)) == (5, 34, 5)
    assert read_all(target) == read_all(source)
    assert History(target).import_from(path, all_scopes=True).same == 5


def test_an_export_has_the_stored_lines(source):
    _, data = export(source, scope="b", ids=["c1"])
    first, *lines, whole, end = data.decode().split("\n")[:-1]
    head = json.loads(first)
    part = source.read(Key("b", "c1"))
    assert lines == [record.body for record in part.records]
    assert (head["scope"], head["id"], head["start"], head["end"]) == ("b", "c1", 0, 7)
    assert head["payload"] == part.head.revision.payload
    assert json.loads(whole)["kind"] == "complete"
    assert json.loads(end) == {"chathistory": 2, "kind": "end", "conversations": 1, "records": 7}


def test_an_import_into_another_scope(source, target):
    _, data = export(source, scope="a")
    assert import_data(target, data, scope="new").copied == 3
    assert {key.scope for key in read_all(target)} == {"new"}
    assert import_data(target, data, scope="new").same == 3


def test_an_import_continues_and_replaces_like_a_copy(source, target):
    _, early = export(source)
    chat = History(source).conversation("c1", scope="b")
    chat.append([user("6"), said("7")])
    _, late = export(source)
    import_data(target, early)
    report = import_data(target, late)
    assert (report.continued, report.same, report.records) == (1, 4, 2)
    assert read_all(target) == read_all(source)
    History(target).conversation("c1", scope="b").append(user("mine"))
    assert import_data(target, late).different == [chat.log.key]
    assert import_data(target, early).different == [chat.log.key]
    assert import_data(target, late, replace=True).complete
    assert read_all(target) == read_all(source)


def test_an_incomplete_file_is_reported_also_if_its_conversations_exist(source, target):
    _, data = export(source)
    import_data(target, data)
    with pytest.raises(InvalidInput, match="it ends within conversation"):
        import_data(target, b"".join(data.splitlines(keepends=True)[:4]))


@pytest.mark.parametrize("packed", [False, True])
def test_an_incomplete_file_is_reported_and_no_partial_conversation_stored(source, packed):
    _, data = export(source)
    due = read_all(source)
    data = gzip.compress(data) if packed else data
    for stop in range(1, len(data) - 1, 97):
        target = MemoryStore()
        with pytest.raises(InvalidInput) as caught:
            import_data(target, data[:stop], id="x")
        there = read_all(target)
        assert there == {key: due[key] for key in there}
        assert not any(str(n) in str(caught.value) for n in ('"0"', "role"))


def test_a_large_incomplete_conversation_leaves_nothing(target, monkeypatch):
    monkeypatch.setattr(bulk_create, "BATCH_BYTES", 500)
    source = MemoryStore()
    numbered(chat_on(source), 20)
    _, data = export(source)
    lines = data.splitlines(keepends=True)
    for cut in range(2, len(lines) - 1):
        with pytest.raises(InvalidInput, match=r"it ends within conversation 'c'|cannot be read further"):
            import_data(target, b"".join(lines[:cut]))
        assert read_all(target) == {}
    assert import_data(target, data).copied == 1


def test_a_changed_line_is_reported_and_the_rest_stored(source, target):
    _, data = export(source)
    keys = [Key(v["scope"], v["id"]) for v in map(json.loads, data.splitlines()) if "start" in v]
    altered = data.replace(b'"content":"4"', b'"content":"5"', 1)
    report = import_data(target, altered)
    assert (report.copied, list(report.failed)) == (4, keys[:1])
    assert "its checksum does not fit" in str(report.failed[keys[0]])
    assert import_data(target, data.replace(b'"content":"4"', b'"content":"\xff"', 1)).failed.keys() == {keys[0]}
    fewer = data.splitlines(keepends=True)
    del fewer[2]
    assert import_data(target, b"".join(fewer)).failed.keys() == {keys[0]}
    assert import_data(target, data).copied == 1


def test_a_conversation_that_changed_during_the_export_is_marked_as_aborted(target):
    source = _ChangingStore()
    chat = chat_on(source)
    numbered(chat, 10)
    chat_on(source, "d").append(user("x"))
    source.steps = [lambda: source.forget(chat.log.key, before=6)]
    report, data = export(source)
    assert (report.conversations, report.records) == (2, 5 + 1 - 1)
    assert data.count(b'"kind":"aborted"') == 1
    assert import_data(target, data).copied == 2
    assert read_all(target) == read_all(source)
    assert import_data(target, data).same == 2
    source.steps = [lambda n=n: _create_again(source, n) for n in range(9)]
    report, data = export(source)
    assert isinstance(report.failed[chat.log.key], Conflict)
    assert import_data(MemoryStore(), data).copied == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        b'{"role": "user"',
        b'{"chathistory":3,"kind":"conversation"}\n',
        b'{"chathistory":2}\n',
        b'{"chathistory":2,"kind":"conversation"}\n',
        b'{"chathistory":2,"kind":"complete","sha256":""}\n',
        b'{"chathistory":\n',
        b"[" * 100_000,
        b"\x1f\x8b" + b"nonsense" * 10,
        gzip.compress(b"[]", mtime=0)[:-3] + b"xyz",
        b"{}",
        b"[]",
        b'{"messages": []}',
        b'{"a": 1}\n{"role": "user", "content": "x"}',
        b"\xff",
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_file_of_another_format_is_refused(target, data):
    for name in (None, "x"):
        with pytest.raises(InvalidInput):
            import_data(target, data, id=name)
    assert read_all(target) == {}


def test_a_file_without_its_last_line_is_incomplete(source, target):
    _, data = export(source)
    with pytest.raises(InvalidInput, match="its last line is missing"):
        import_data(target, data[: data.rindex(b'{"chathistory"')])
    assert read_all(target) == read_all(source)


class Pipe(io.RawIOBase):
    """A stream of bytes that is not seekable."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._data.readinto(buffer)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_import_from_a_pipe(source, target, pack):
    _, data = export(source)
    assert History(target).import_from(io.BufferedReader(Pipe(pack(data))), all_scopes=True).copied == 5
    assert read_all(target) == read_all(source)


def test_an_import_from_the_middle_of_a_file(source, target):
    _, data = export(source)
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    assert History(target).import_from(file, all_scopes=True).copied == 5


def test_a_failed_export_leaves_no_file(source, tmp_path, monkeypatch):
    (tmp_path / "x").write_text("mine")

    def fail(self, *_):
        raise OSError("no space")

    monkeypatch.setattr("chathistory.transfer.jsonl.ExportWriter.end", fail)
    for name in ("x", "new.gz"):
        with pytest.raises(OSError, match="no space"):
            export(source, tmp_path / name)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x", "mine")]


MESSAGES = [user("hi"), said("ho"), user("x" * 100)]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(MESSAGES),
        json.dumps({"model": "m", "messages": MESSAGES}, indent=2),
        "\n".join(map(json.dumps, MESSAGES)) + "\n\n",
    ],
    ids=["list", "request", "lines"],
)
@pytest.mark.parametrize("portion", [10**6, 200])
def test_a_list_of_messages_in_common_formats(target, data, portion, monkeypatch):
    monkeypatch.setattr(bulk_create, "BATCH_BYTES", portion)
    report = import_data(target, data.encode(), id="mine", scope="s")
    assert (report.copied, report.records) == (1, 3)
    chat = History(target).conversation("mine", scope="s")
    assert chat.messages() == MESSAGES
    assert (chat.state().totals.messages, chat.state().totals.preview) == (3, "hi")
    for replace_it in (False, True):
        again = import_data(target, data.encode(), id="mine", scope="s", replace=replace_it)
        assert (again.same, again.different, again.complete) == (1, [], True)
    chat.append(said("on"))
    assert import_data(target, data.encode(), id="mine", scope="s", replace=True).same == 1
    assert len(chat.messages()) == 4


def test_a_single_message_and_responses(target):
    import_data(target, json.dumps(user("hi")).encode(), id="one")
    assert chat_on(target, "one").messages() == [user("hi")]
    import_data(target, json.dumps([user("hi"), reply(1, input_tokens=3)]).encode(), id="two")
    assert chat_on(target, "two").usage().total.input == 3


def test_a_list_needs_an_id_and_an_export_must_not_have_one(source, target):
    with pytest.raises(InvalidInput, match="give one with id="):
        import_data(target, json.dumps(MESSAGES).encode())
    with pytest.raises(InvalidInput, match="contains the ids of its conversations"):
        import_data(target, export(source)[1], id="x")
    with pytest.raises(InvalidInput, match=r"message\.role"):
        import_data(target, b'[{"role": "nobody", "content": "x"}]', id="x")
    assert read_all(target) == {}


# Markdown.


def test_markdown_shows_a_conversation(tmp_path):
    store = MemoryStore()
    chat = chat_on(store)
    call = {"type": "tool_use", "id": "t", "name": "sum_up", "input": {"a": "```"}}
    results = [
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "1"}], "is_error": True},
        {"type": "tool_result", "tool_use_id": "t", "content": "2"},
    ]
    thought = {"type": "thinking", "thinking": "secret", "signature": "s"}
    chat.append([user("Hi *there*"), {"role": "assistant", "content": [thought, call]}])
    chat.append(
        [
            {
                "role": "user",
                "content": [*results, {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}],
            },
            said("half \ud83d"),
        ]
    )
    chat.append({"role": "assistant", "content": [{"type": "text", "text": ""}]})
    chat.log.append([make_entry("reply_interrupted", message=said("cut"))])
    chat.annotate(title="A # [title]", tags=["a", "b"])
    chat_on(store, "d").append(user("x"))
    path = tmp_path / "all.md"
    assert export(store, path).conversations == 2
    text = path.read_text()
    for part in (
        "# A \\# \\[title\\]\n\nConversation c, scope default; 5 messages; created 20",
        "tags: a, b\n\n## User, 20",
        "\n\nHi *there*\n",
        'Calls **sum\\_up**:\n\n````\n{\n  "a": "```"\n}\n````\n',
        "Failed:\n\n```\n1\n```\n\nResult:\n\n```\n2\n```\n\n*(image)*\n",
        "\n\nhalf \ufffd\n",
        ", interrupted\n\ncut\n",
        "\n---\n\n# d\n",
    ):
        assert part in text
    assert "secret" not in text


def test_markdown_of_absent_conversations():
    store = MemoryStore()
    report, data = export(store, ids=["x"], format="markdown")
    assert (list(report.failed), data) == ([Key("default", "x")], b"")
    store.ttl = -1
    chat_on(store).append(user("x"))
    for kind in ("jsonl", "markdown"):
        assert export(store, format=kind)[0].conversations == 0


def test_an_export_is_written_portion_by_portion(monkeypatch):
    """Only one portion of a conversation is in memory: the file grows while the store is read."""
    store = _ChangingStore()
    numbered(chat_on(store), 30)
    sizes, out = [], io.BytesIO()
    read = _ChangingStore.read

    def record_size(self, *args, **more):
        sizes.append(len(out.getvalue()))
        return read(self, *args, **more)

    monkeypatch.setattr(_ChangingStore, "read", record_size)
    History(store).export_to(out, all_scopes=True)
    assert len(sizes) > 10
    assert sizes[3:] == sorted(set(sizes[3:]))


def test_copy_and_export_try_equally_often():
    assert copy_module._ATTEMPTS == import_export._ATTEMPTS
