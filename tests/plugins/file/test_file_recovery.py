"""A damaged head: sound records before and after the damage are found; a file that an editor saved is repaired."""

import os
import random
import tracemalloc
import zlib

import pytest
from chathistory_file.schema import encode_record
from file_samples import KEY, bodies_of, fill_store, flip, fresh, holding, line_of, path_of, revision

from chathistory import Head, Key, Revision
from chathistory.errors import Conflict, CorruptRecord, StoreUnavailable, UnsupportedRecord
from chathistory.storage.abilities import HeadRecovery, StorageNotes

pytestmark = pytest.mark.usefixtures("no_sync")

ODD = [
    '{"a":"é"}',
    '{"t":"\u2028\u0085"}',
    "",
    "[1]",
    '{"x":"[2,\\"00000000\\",3]"}',
    "ж" * 300,
    "]",
    '{"n":9e99}',
    "😀",
]


def _restored(store, key=KEY):
    found = store.find_records(key)
    head = Head(key, found.start, found.end, revision())
    assert store.restore_head(found, head) == head
    return head


def test_the_store_has_these_abilities(store):
    assert isinstance(store, HeadRecovery)
    assert isinstance(store, StorageNotes)


@pytest.mark.parametrize("batch", [1, 2, 3, 300])
def test_every_sound_line_is_kept_also_after_the_damage(store, batch):
    bodies = [f'{{"n":{number}}}' for number in range(3 * batch + 2)]
    fill_store(store, *(bodies[at : at + batch] for at in range(0, len(bodies), batch)))
    whole = path_of(store).read_bytes()
    last = whole.rindex(b'{"commit":')
    first = line_of(path_of(store), len(bodies) - min(batch, 2))
    damaged = whole[: first.start + 3] + b"\x00" + whole[first.start + 4 : last + 30] + b"#" + whole[last + 31 :]
    path_of(store).write_bytes(damaged)
    with pytest.raises(CorruptRecord) as caught:
        store.read(KEY)
    assert caught.value.position is None
    head = _restored(store)
    gone = len(bodies) - min(batch, 2)
    kept = [*range(gone), *range(gone + 1, head.end)]
    assert [record.body for at in kept for record in store.read(KEY, start=at, stop=at + 1).records] == [
        bodies[at] for at in kept
    ]
    aside = path_of(store, suffix=".aside")
    assert aside.stat().st_mode & 0o7777 == 0o600
    assert aside.read_bytes() == damaged[first.start : first.stop] + damaged[last:]
    assert f"{aside.stat().st_size} bytes that were set aside" in store.list_notes(KEY)[0]
    if gone < head.end:
        with pytest.raises(CorruptRecord) as caught:
            store.read(KEY, start=gone)
        assert caught.value.position == gone
    head = store.append(KEY, ["new"], after=head, revision=revision())
    assert store.forget(KEY, before=head.end - 1).start == head.end - 1
    assert bodies_of(store) == ["new"]
    assert store.list_notes(KEY) == []


EDITORS = {
    "CR LF": lambda whole: whole.replace(b"\n", b"\r\n"),
    "a byte order mark": lambda whole: b"\xef\xbb\xbf" + whole,
    "both": lambda whole: b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"),
    "no last line feed": lambda whole: whole[:-1],
    "CR LF, none at the end": lambda whole: whole[:-1].replace(b"\n", b"\r\n"),
    "an empty line at the end": lambda whole: whole + b"\n",
    "empty lines between": lambda whole: whole.replace(b"\n", b"\n\n"),
    "blanks before the first line": lambda whole: b"  \n" + whole,
    "a comment at the end": lambda whole: whole + b"# looked through, fine\n",
    "UTF-16": lambda whole: whole.decode().encode("utf-16"),
    "UTF-16, big end first": lambda whole: b"\xfe\xff" + whole.decode().encode("utf-16-be"),
    "UTF-16 and CR LF": lambda whole: whole.decode().replace("\n", "\r\n").encode("utf-16"),
    "CR alone": lambda whole: whole.replace(b"\n", b"\r"),
}
AT_ONCE = [name for name in EDITORS if "UTF-16" not in name and name != "CR alone"]


@pytest.mark.parametrize("editor", EDITORS)
@pytest.mark.parametrize("batches", [[ODD], [[body] for body in ODD], [ODD[:2], ODD[2:]], [ODD * 33, ODD]], ids=len)
def test_a_file_that_an_editor_saved_is_repaired(store, editor, batches):
    head = fill_store(store, *batches)
    bodies = [body for batch in batches for body in batch]
    store.forget(KEY, before=1)
    path_of(store).write_bytes(EDITORS[editor](path_of(store).read_bytes()))
    with fresh(store) as other:
        if editor in AT_ONCE:
            assert (bodies_of(other), other.read(KEY).head) == (bodies[1:], Head(KEY, 1, head.end, head.revision))
        else:
            with pytest.raises(CorruptRecord):
                other.read(KEY)
            assert [row.key for row in other.heads("default").damaged] == [KEY]
        found = other.find_records(KEY)
        assert (found.start, found.end) == (1, head.end)
        assert [record.body for record in other.read_found(found, start=0, stop=10**6)] == bodies[1:]
        new = _restored(other)
        assert bodies_of(other) == bodies[1:]
        new = other.append(KEY, ["next"], after=new, revision=revision())
        assert (bodies_of(other), other.read(KEY).head) == ([*bodies[1:], "next"], new)
    assert b"\r" not in path_of(store).read_bytes()


@pytest.mark.parametrize("editor", AT_ONCE)
def test_an_append_puts_a_file_in_order_that_an_editor_saved(store, editor):
    head = fill_store(store, ODD[:3], ODD[3:])
    path_of(store).write_bytes(EDITORS[editor](path_of(store).read_bytes()))
    head = store.append(KEY, ["next"], after=head, revision=revision())
    assert bodies_of(store) == [*ODD, "next"]
    assert b"\r" not in path_of(store).read_bytes()
    with fresh(store) as other:
        assert other.read(KEY, start=-1).head == head
        assert [note for note in other.list_notes(KEY) if "lines were put in" in note] == []


def test_a_file_of_utf_16_says_so(store):
    fill_store(store, ODD)
    path_of(store).write_bytes(EDITORS["UTF-16"](path_of(store).read_bytes()))
    with pytest.raises(CorruptRecord, match="UTF-16"):
        store.read(KEY)
    assert "UTF-16" in store.find_records(KEY).problem


def test_a_copy_of_another_conversation_is_not_repaired(store):
    other = Key("default", "other")
    fill_store(store, ["secret"], key=other)
    path_of(store).write_bytes(path_of(store, other).read_bytes())
    with pytest.raises(CorruptRecord, match="another conversation"):
        store.find_records(KEY)


def test_records_of_another_conversation_in_the_file_are_left_over(store):
    other = Key("default", "other")
    fill_store(store, ["theirs"] * 9, key=other)
    fill_store(store, ["1"], ["2"])
    path_of(store).write_bytes(path_of(store, other).read_bytes() + path_of(store).read_bytes()[:-4] + b"xx}\n")
    _restored(store)
    assert bodies_of(store) == ["1", "2"]
    assert path_of(store, suffix=".aside").read_bytes().count(b"theirs") == 9


@pytest.mark.parametrize("at", [0, 2, 99])
@pytest.mark.parametrize("commits", [True, False])
def test_a_position_for_which_the_file_has_no_room_is_left_over(store, at, commits):
    fill_store(store, ["1"], ["2"], ["3"])
    lines = (path_of(store).read_bytes()[:-3] + b"xx\n").splitlines(keepends=True)
    far = encode_record(10**15, b"far")
    lines = [line for line in lines if commits or line.startswith(b"[")]
    path_of(store).write_bytes(b"".join([*lines[:at], far, *lines[at:]]))
    found = store.find_records(KEY)
    assert (found.start, found.end) == (0, 3)
    _restored(store)
    assert bodies_of(store) == ["1", "2", "3"]
    assert far in path_of(store, suffix=".aside").read_bytes()


def test_what_a_later_layout_has_is_left_to_that_version(store):
    fill_store(store, ["1"])
    whole = path_of(store).read_bytes().replace(b'{"commit":2', b'{"commit":3')
    text = whole[whole.index(b'{"commit"') : -11]
    path_of(store).write_bytes(whole[: -len(text) - 11] + text + b'%08x"}\n' % zlib.crc32(text))
    for call in (
        lambda: store.read(KEY),
        lambda: store.find_records(KEY),
        lambda: store.append(KEY, ["2"], after=None, revision=revision()),
    ):
        with pytest.raises(UnsupportedRecord) as caught:
            call()
        assert caught.value.version == 3
    assert store.delete(KEY) is True


def test_an_interrupted_first_append_can_be_kept(store):
    fill_store(store, ["1", "2", "3"])
    path_of(store).write_bytes(path_of(store).read_bytes().partition(b"[2,")[0] + b"[2,")
    assert store.read(KEY) is None
    found = store.find_records(KEY)
    assert (found.start, found.end, found.problem) == (0, 2, "no append to the file was completed")
    _restored(store)
    assert bodies_of(store) == ["1", "2"]


@pytest.mark.parametrize("what", ["empty", "garbage"])
def test_nothing_sound_is_nothing_found(store, what):
    fill_store(store, ["1"])
    path_of(store).write_bytes({"empty": b"", "garbage": random.Random(1).randbytes(4000)}[what])
    found = store.find_records(KEY)
    assert found is None if what == "empty" else (found.start, found.end) == (0, 0)


def test_data_after_a_sound_head_does_not_count(store):
    head = fill_store(store, ["1"], ["2"])
    later = store.append(KEY, ["torn"], after=head, revision=revision())
    path_of(store).write_bytes(path_of(store).read_bytes()[:-20])
    found = store.find_records(KEY)
    assert (found.start, found.end, found.problem) == (0, 2, None)
    assert [record.body for record in store.read_found(found, start=0, stop=later.end)] == ["1", "2"]
    assert store.restore_head(found, Head(KEY, 0, 2, revision()))
    assert b"torn" in path_of(store, suffix=".aside").read_bytes()


def test_a_head_is_restored_under_the_writers_lock(store):
    fill_store(store, ["1"])
    flip(path_of(store), path_of(store).read_bytes().rindex(b'"end":') + 6)
    found = store.find_records(KEY)
    with type(store)(store.root, lock_timeout=0.1) as other:
        with holding(store), pytest.raises(StoreUnavailable):
            other.restore_head(found, Head(KEY, 0, 1, revision()))
        assert other.restore_head(found, Head(KEY, 0, 1, revision())).end == 1


def test_what_changed_since_it_was_found_is_not_overwritten(store):
    fill_store(store, ["1"], ["2"])
    place = path_of(store).read_bytes().rindex(b'"end":') + 6
    flip(path_of(store), place)
    found = store.find_records(KEY)
    flip(path_of(store), place)
    before = path_of(store).read_bytes()
    with pytest.raises(Conflict) as caught:
        store.restore_head(found, Head(KEY, 0, 2, revision()))
    assert caught.value.head == store.read(KEY).head
    assert path_of(store).read_bytes() == before
    assert not path_of(store, suffix=".aside").exists()


def test_the_file_is_looked_through_once_for_all_parts_that_are_read(store, monkeypatch):
    bodies = [f"{number:0500d}" for number in range(3000)]
    fill_store(store, bodies)
    flip(path_of(store), path_of(store).read_bytes().rindex(b'"end":') + 6)
    found = store.find_records(KEY)
    read = []
    monkeypatch.setattr(os, "pread", lambda *args, pread=os.pread: read.append(args[1]) or pread(*args))
    seen = []
    for start in range(0, found.end, 256):
        seen += [record.body for record in store.read_found(found, start=start, stop=start + 256)]
    assert seen == bodies
    assert sum(read) < 4 * path_of(store).stat().st_size


def test_memory_is_bounded(store):
    """A conversation of 30 MB is looked through and given a new head in a few of them."""
    head = None
    for _ in range(15):
        head = store.append(KEY, ["x" * 2000] * 1000, after=head, revision=revision())
    flip(path_of(store), path_of(store).read_bytes().rindex(b'"end":') + 6)
    with fresh(store) as other:
        tracemalloc.start()
        try:
            _restored(other)
            for start in range(0, head.end, 3000):
                other.read(KEY, start=start, stop=start + 10)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert other.read(KEY, stop=0).head.end == head.end
    assert peak < 12_000_000


@pytest.mark.parametrize("name", ["write", "fsync", "rename"])
def test_a_repair_that_fails_leaves_the_file_as_it_was(store, monkeypatch, name):
    fill_store(store, ["1"], ["2"])
    flip(path_of(store), path_of(store).read_bytes().rindex(b'"end":') + 6)
    before = path_of(store).read_bytes()
    found = store.find_records(KEY)
    real = getattr(os, name)
    for fail in range(1, 9):
        calls = []

        def failing(*args, fail=fail, calls=calls):
            calls.append(args)
            if len(calls) == fail:
                raise OSError(5, "for a test")
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            try:
                store.restore_head(found, Head(KEY, 0, 2, Revision("restored", 99)))
            except StoreUnavailable as error:
                if error.outcome == "unknown":
                    break
            else:
                break
        assert path_of(store).read_bytes() == before
    else:
        pytest.fail("it never worked")
    assert bodies_of(store) == ["1", "2"]
