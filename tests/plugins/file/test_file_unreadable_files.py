"""Walks have a row for a file that they cannot read, and continue; a call that names it raises the error."""

import errno
import os
import random
import shutil
import zlib

import pytest
from file_samples import KEY, bodies_of, fill_store, flip, fresh, path_of, revision

from chathistory import Key
from chathistory.errors import ChatHistoryError, CorruptRecord, StoreRejected, StoreUnavailable, UnsupportedRecord

CUT = "я" * 52
"""Its file name is shortened, so only the file contains the key."""

SCOPES = ("default", CUT)
NAMES = ("support/42", CUT)


def _flip_in_last_line(path):
    flip(path, path.read_bytes().rindex(b'"end":') + 6)


def _only_commit(path):
    """Leave the records, and one commit that is damaged: nothing tells the key but the names."""
    whole = path.read_bytes()
    path.write_bytes(whole[whole.rindex(b'{"commit":') :].replace(b'"crc":"', b'"crc":"0'))


def _later_layout(path):
    whole = path.read_bytes()
    at = whole.rindex(b'{"commit":')
    path.write_bytes(whole[:at] + _summed(whole[at:].replace(b'"commit":2', b'"commit":3')))


def _summed(line):
    text = line[: -len('00000000"}\n')]
    return b'%b%08x"}\n' % (text, zlib.crc32(text))


def _rivals_head(path):
    """The file of another conversation, unchanged."""
    path.write_bytes(path.with_name("zz-other.jsonl").read_bytes())


def _folder(path):
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("mine")


def _link(path):
    target = path.parent.parent.parent / "outside"
    path.rename(target)
    path.symlink_to(target)


def _dangling(path):
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _garbage(path):
    path.write_bytes(random.Random(3).randbytes(5000))


def _utf16(path):
    path.write_bytes(path.read_text().encode("utf-16"))


def _empty_of_commits(path):
    path.write_bytes(path.read_bytes().partition(b'{"commit":')[0])


UNREADABLE = (CorruptRecord, StoreRejected, StoreUnavailable)
"""What a read raises, and what a call that writes does."""

DAMAGES = {
    "a bit in the last line": (_flip_in_last_line, CorruptRecord, True),
    "one commit, damaged": (_only_commit, CorruptRecord, False),
    "a later layout": (_later_layout, UnsupportedRecord, True),
    "another one's head": (_rivals_head, CorruptRecord, None),
    "a folder": (_folder, UNREADABLE, None),
    "a link": (_link, UNREADABLE, None),
    "a dangling link": (_dangling, UNREADABLE, None),
    "a pipe": (_pipe, UNREADABLE, None),
    "UTF-16": (_utf16, CorruptRecord, False),
    "garbage": (_garbage, None, None),
    "no commit": (_empty_of_commits, None, None),
}
"""A change to a file; the error of a call for the conversation (None if the call finds none); whether the key of a
shortened name is known (None if the file is not a conversation, so that there is no key in any case)."""


def _walk(store, scope, limit):
    items, damaged, after = [], [], None
    while True:
        page = store.heads(scope, after=after, limit=limit)
        items += page.items
        damaged += page.damaged
        assert len(page.items) == limit or page.next is None
        if page.next is None:
            return items, damaged
        after = page.next


PLACES = [
    (damage, name, SCOPES[(row + column) % 2])
    for row, damage in enumerate(DAMAGES)
    for column, name in enumerate(NAMES)
]
"""Each damage under a plain and a cut id, in a plain and a cut scope; which of them go together takes turns."""


@pytest.mark.parametrize(("damage", "name", "scope"), PLACES)
def test_one_damaged_of_fifty_is_one_row(store, no_sync, damage, name, scope):
    change, expected, is_key_known = DAMAGES[damage]
    heads = [fill_store(store, ["{}"], key=Key(scope, f"c{number:02d}")) for number in range(24)]
    key = Key(scope, name)
    fill_store(store, ["{}"], ["{}"], key=key)
    heads += [fill_store(store, ["{}"], key=Key(scope, f"d{number:02d}")) for number in range(24)]
    heads.append(fill_store(store, ["{}"], key=Key(scope, "zz-other")))
    where = f"{path_of(store, key).parent.name}/{path_of(store, key).name}"
    change(path_of(store, key))
    is_reported = is_key_known is not None and (is_key_known or CUT not in {name, scope})
    with fresh(store) as other:
        for limit in (1, 7, 49, 100):
            items, damaged = _walk(other, scope, limit)
            assert items == heads[::-1]
            [row] = damaged
            assert (row.key, row.where) == (key if is_reported else None, where)
            assert getattr(row.error, "key", row.key) == row.key
        keys = [head.key for head in heads] + [key] * is_reported
        for walk in (other.keys, other.scan_keys):
            assert sorted(walk()) == sorted(walk(scope)) == sorted(keys)
        for nameless in (list(other.damaged_keys()), list(other.damaged_keys(scope))):
            assert [each.where for each in nameless] == [where] * (not is_reported)
        for call in (lambda: other.read(key), lambda: other.forget(key, before=1), lambda: other.find_records(key)):
            if expected is None:
                call()
            else:
                _raises(call, expected, key)
        assert [head.key for head in other.heads("unknown").items] == []
        assert all(bodies_of(other, head.key) == ["{}"] for head in heads[:3])


def _raises(call, expected, key):
    """Check the error of a call that names the conversation; a look for its records may tell of a problem instead."""
    try:
        result = call()
    except ChatHistoryError as error:
        raised = error
    else:
        assert getattr(result, "problem", None), "no error, and no problem reported"
        return
    assert isinstance(raised, expected)
    assert getattr(raised, "key", key) == key


@pytest.mark.parametrize("seed", range(6))
def test_any_number_of_damaged_ones_of_any_kind(store, no_sync, seed):
    dice = random.Random(seed)
    sound, damaged = {}, {}
    fill_store(store, ["{}"], key=Key("default", "zz-other"))
    for number in range(40):
        key = Key("default", dice.choice((f"c{number}", f"{number} " + "ж" * dice.randint(30, 200))))
        head = fill_store(store, ["{}"] * dice.choice((1, 2, 3)), ["{}"], key=key)
        if dice.random() < 0.5:
            damaged[path_of(store, key).name] = dice.choice(list(DAMAGES))
            if damaged[path_of(store, key).name] == "a link":
                damaged[path_of(store, key).name] = "a dangling link"
            DAMAGES[damaged[path_of(store, key).name]][0](path_of(store, key))
        else:
            sound[key] = head
    with fresh(store) as other:
        items, rows = _walk(other, "default", dice.choice((1, 3, 8, 100)))
        assert {head.key for head in items} - {Key("default", "zz-other")} == set(sound)
        assert len(items) == len(sound) + 1
        assert sorted(row.where for row in rows) == sorted(f"default/{name}" for name in damaged)
        keys, nameless = list(other.keys()), list(other.damaged_keys())
        assert len(keys) == len(set(keys))
        assert len(keys) + len(nameless) == len(sound) + len(damaged) + 1
        assert set(keys) >= set(sound)
        assert {row.key for row in rows if row.key} == set(keys) - set(sound) - {Key("default", "zz-other")}
        for key in set(keys) - set(sound) - {Key("default", "zz-other")}:
            assert other.delete(key) is True
        assert other.remove_leftovers("default").complete is False  # sound ones are there
        assert {head.key for head in other.heads("default", limit=100).items} == {*sound, Key("default", "zz-other")}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EPERM])
def test_a_file_that_may_not_be_read_is_a_row(store, monkeypatch, code):
    head = fill_store(store, ["1"], key=Key("default", "good"))
    fill_store(store, ["1"])

    def opened(path, *args, real=os.open):
        if str(path).endswith("support=2f42.jsonl"):
            raise OSError(code, os.strerror(code), path)
        return real(path, *args)

    monkeypatch.setattr(os, "open", opened)
    page = store.heads("default")
    assert page.items == [head]
    [row] = page.damaged
    assert (row.key, row.where, row.error.__class__) == (
        KEY, "default/support=2f42.jsonl", StoreUnavailable if code == errno.EIO else StoreRejected,
    )  # fmt: skip
    assert sorted(store.keys()) == [Key("default", "good"), KEY]


@pytest.mark.parametrize("change", [_folder, _link, _pipe])
def test_what_is_no_regular_file_is_damage_of_the_conversation(store, change):
    fill_store(store, ["1"])
    change(path_of(store))
    for call in (store.read, store.find_records, store.list_notes):
        with pytest.raises(CorruptRecord, match="the file cannot be read") as caught:
            call(KEY)
        assert (caught.value.key, caught.value.position) == (KEY, None)


@pytest.mark.parametrize("seconds", [-1, -(10**9)])
def test_a_damaged_file_of_any_date_is_a_row(store, seconds):
    head = fill_store(store, ["1"], key=Key("default", "good"))
    fill_store(store, ["1"])
    _flip_in_last_line(path_of(store))
    os.utime(path_of(store), ns=(seconds * 10**9,) * 2)
    page = store.heads("default")
    assert (page.items, [row.key for row in page.damaged]) == ([head], [KEY])


@pytest.mark.parametrize("name", ["x.tmp", "x.aside", "x.jsonl"])
def test_what_was_set_aside_of_an_id_with_such_an_end_is_no_stray(store, name):
    key = Key("default", name)
    head = fill_store(store, ["1"], key=key)
    with path_of(store, key).open("ab") as file:
        file.write(b"torn")
    store.append(key, ["2"], after=head, revision=revision())
    assert path_of(store, key, ".aside").exists()
    assert (list(store.heads("default").damaged), list(store.damaged_keys())) == ([], [])


@pytest.mark.parametrize("name", ["notes.txt", ".DS_Store", ".support.jsonl.swp", "support=2f42.jsonl~", "README"])
def test_files_with_other_names_belong_to_no_conversation(store, name):
    head = fill_store(store, ["1"])
    (path_of(store).parent / name).write_bytes(path_of(store).read_bytes())
    (path_of(store).parent.parent / name).write_bytes(b"x")
    assert (store.heads("default").items, list(store.heads("default").damaged)) == ([head], [])
    assert (list(store.keys()), list(store.damaged_keys())) == ([KEY], [])


@pytest.mark.parametrize("name", ["Copy of it.jsonl", ".hidden.jsonl", "x y.jsonl", ".jsonl", "Ж.jsonl", "copy.jsonl"])
def test_a_stray_file_that_is_called_like_one_is_a_row(store, name):
    head = fill_store(store, ["1"])
    shutil.copy(path_of(store), path_of(store).parent / name)
    page = store.heads("default")
    assert page.items == [head]
    assert [(row.key, row.where) for row in page.damaged] == [(None, f"default/{name}")]
    assert list(store.keys()) == [KEY]
    assert [row.where for row in store.damaged_keys()] == [f"default/{name}"]


def test_an_interrupted_first_append_is_a_row_and_one_in_progress_is_not(store):
    fill_store(store, ["1"])
    path_of(store).write_bytes(path_of(store).read_bytes()[:20])
    [row] = store.heads("default").damaged
    assert (row.key, row.where) == (None, "default/support=2f42.jsonl")
    assert "no append to the file was completed" in str(row.error)
    found = []

    def write(fd, data, real=os.write):
        if not found:
            found.append((store.heads("default").damaged, list(store.damaged_keys())))
        return real(fd, data)

    store.delete(KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        fill_store(store, ["1"])
    assert found == [([], [])]


def test_the_folder_of_a_scope_that_is_a_link_is_not_followed(store, tmp_path):
    head = fill_store(store, ["1"], key=Key("other", "good"))
    fill_store(store, ["1"])
    path_of(store).parent.rename(tmp_path / "elsewhere")
    path_of(store).parent.symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere" / "support=2f42.jsonl").read_bytes()
    for call in (
        lambda: store.read(KEY),
        lambda: store.append(KEY, ["2"], after=None, revision=revision()),
        lambda: store.forget(KEY, before=1),
        lambda: store.delete(KEY),
        lambda: store.heads("default"),
        lambda: list(store.keys("default")),
        lambda: store.find_records(KEY),
    ):
        with pytest.raises(StoreRejected):
            call()
    assert list(store.keys()) == [head.key]
    assert (
        [row.where for row in store.damaged_keys()]
        == [row.where for row in store.damaged_keys("default")]
        == ["default"]
    )
    assert list(store.damaged_keys("other")) == []
    assert (tmp_path / "elsewhere" / "support=2f42.jsonl").read_bytes() == before


def test_a_folder_that_cannot_be_listed_does_not_hide_the_others(store, monkeypatch):
    head = fill_store(store, ["1"], key=Key("other", "good"))
    fill_store(store, ["1"])

    def scandir(path, real=os.scandir):
        if str(path).endswith("/default"):
            raise PermissionError(errno.EACCES, "no", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(store.keys()) == [head.key]
    assert [(row.key, row.where) for row in store.damaged_keys()] == [(None, "default")]
    for call in (lambda: store.heads("default"), lambda: list(store.keys("default"))):
        with pytest.raises(StoreRejected):
            call()


def test_no_text_of_a_message_is_in_a_row(store):
    fill_store(store, ['{"text":"s3cr3t"}'])
    _flip_in_last_line(path_of(store))
    (path_of(store).parent / "s.jsonl").write_bytes(b'{"text":"s3cr3t"}\n')
    rows = list(store.heads("default").damaged)
    assert len(rows) == 2
    assert "s3cr3t" not in repr(rows) + "".join(str(row.error) for row in rows)


def test_updated_may_stay_the_same(store):
    """The revision's time is the time of the last message; an append without a message leaves it."""
    heads = []
    for number in range(5):
        head = fill_store(store, ["1"], key=Key("default", f"c{number}"))
        for _ in range(3):
            head = store.append(head.key, ["{}"], after=head, revision=revision(head.revision.updated))
        heads.append(head)
    assert _walk(store, "default", 2) == (heads[::-1], [])
    head = store.append(heads[2].key, ["{}"], after=heads[2], revision=revision(heads[2].revision.updated))
    assert _walk(store, "default", 1)[0] == [*heads[:2], head, *heads[3:]][::-1]
    assert path_of(store, head.key).stat().st_mtime_ns == head.revision.updated * 1000


def test_the_latest_time_that_there_is(store):
    late = fill_store(store, ["1"], key=Key("default", "late"))
    late = store.append(late.key, ["1"], after=late, revision=revision(2**53 - 1))
    other = fill_store(store, ["1"])
    assert _walk(store, "default", 1) == ([late, other], [])
