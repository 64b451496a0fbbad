"""After erasing, no file has the text, wherever it was; files that are not the store's own are only reported."""

import gzip
import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from chathistory_file import write
from file_samples import KEY, bodies_of, fill_store, flip, fresh, holding, names, path_of, revision

from chathistory import History, Key, open_store
from chathistory.errors import ChatHistoryError, StoreRejected, StoreUnavailable
from chathistory.storage.values import Leftovers

WORD = "s3cr3t"
BODY = f'{{"text":"{WORD}"}}'
CUT = "я" * 52


def _holding_text(folder):
    """Return the files below a folder that hold the word, as they are on the disk."""
    paths = [Path(place, name) for place, _, found in os.walk(folder) for name in found]
    return [
        str(path.relative_to(folder)) for path in paths if not path.is_symlink() and WORD.encode() in path.read_bytes()
    ]


def _erase(store, scope="default"):
    for key in list(store.scan_keys(scope)):
        store.delete(key)
    return store.remove_leftovers(scope)


def _uncommitted_first(store, key):
    path_of(store, key).write_bytes(path_of(store, key).read_bytes().partition(b'{"commit"')[0])


def _uncommitted_tail(store, key):
    with path_of(store, key).open("ab") as file:
        file.write(b'[1,"00000000",' + BODY.encode())


def _set_aside(store, key):
    _uncommitted_tail(store, key)
    store.append(key, ["1"], after=store.read(key).head, revision=revision())


def _aside_alone(store, key):
    _set_aside(store, key)
    path_of(store, key).unlink()


def _rewrite_stopped(store, key):
    path_of(store, key, ".tmp").write_bytes(path_of(store, key).read_bytes())


def _rewrite_alone(store, key):
    path_of(store, key).rename(path_of(store, key, ".tmp"))


def _damaged_head(store, key):
    flip(path_of(store, key), path_of(store, key).read_bytes().rindex(b'"end":') + 6)


def _no_sound_commit(store, key):
    path_of(store, key).write_bytes(path_of(store, key).read_bytes().replace(b'"crc"', b'"crd"'))


def _later_layout(store, key):
    path_of(store, key).write_bytes(path_of(store, key).read_bytes().replace(b'{"commit":2', b'{"commit":9'))


def _copied_over_another(store, key):
    fill_store(store, ["1"], key=Key(key.scope, "victim"))
    shutil.copy(path_of(store, key), path_of(store, Key(key.scope, "victim")))


def _garbage(store, key):
    path_of(store, key).write_bytes(BODY.encode() * 99)


WAYS = [_uncommitted_first, _uncommitted_tail, _set_aside, _aside_alone, _rewrite_stopped, _rewrite_alone,
        _damaged_head, _no_sound_commit, _later_layout, _copied_over_another, _garbage]  # fmt: skip


@pytest.mark.parametrize("scope", ["default", CUT], ids=["plain scope", "cut scope"])
@pytest.mark.parametrize("name", ["support/42", CUT], ids=["plain id", "cut id"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_however_it_came_to_be(store, way, name, scope):
    key, bystander = Key(scope, name), Key("other", name)
    fill_store(store, [BODY], key=bystander)
    fill_store(store, [BODY], key=key)
    way(store, key)
    assert len(_holding_text(store.root)) >= 2
    with fresh(store) as other:
        report = _erase(other, scope)
        assert (report.left, report.complete) == ((), True)
        assert names(path_of(store, key).parent) == []
        assert list(other.keys(scope)) == list(other.damaged_keys(scope)) == []
        assert bodies_of(other, bystander) == [BODY]
    assert len(_holding_text(store.root)) == 1


def test_it_counts_the_files_and_names_what_is_left(store):
    fill_store(store, [BODY], key=Key("default", "alive"))
    for number, way in enumerate((_uncommitted_first, _aside_alone, _rewrite_alone)):
        fill_store(store, [BODY], key=Key("default", f"c{number}"))
        way(store, Key("default", f"c{number}"))
    _rewrite_stopped(store, Key("default", "alive"))
    report = store.remove_leftovers("default")
    assert report == Leftovers(4, ("default/alive.jsonl",), complete=False)
    assert bodies_of(store, Key("default", "alive")) == [BODY]


def test_what_a_writer_is_at_is_not_removed(store):
    """It waits for the lock: bytes without a commit may be an append in progress."""
    fill_store(store, [BODY])
    _uncommitted_first(store, KEY)
    with type(store)(store.root, lock_timeout=0.05) as other, holding(store), pytest.raises(StoreUnavailable):
        other.remove_leftovers("default")
    assert len(_holding_text(store.root)) == 1
    assert store.remove_leftovers("default") == Leftovers(1, (), complete=True)


PLACES = [
    "default/Copy of it.jsonl",
    "default/.support=2f42.jsonl.swp",
    "default/support=2f42.jsonl~",
    "default.old/c.jsonl",
    "default-moved/support=2f42.jsonl",
    "backup/deep/er/x",
    "a-file-of-mine",
    "other/support=2f42.jsonl",
]


@pytest.mark.parametrize("place", PLACES)
def test_copies_of_its_lines_are_reported_and_not_touched(store, place):
    fill_store(store, [BODY], key=Key("other", "c"))
    fill_store(store, [BODY])
    copy = Path(store.root, place)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path_of(store), copy)
    before = copy.read_bytes()
    report = _erase(store)
    assert (report.left, report.complete) == ((place,), False)
    assert copy.read_bytes() == before
    assert _erase(store, "unrelated") == Leftovers(0, (), complete=True)
    copy.unlink()
    assert _erase(store) == Leftovers(0, (), complete=True)


STRAYS = {
    "x.jsonl.gz": gzip.compress,
    "#x#": lambda whole: whole[:60],
    "x.bak": lambda whole: whole.decode().encode("utf-16"),
    "x.txt": lambda whole: whole.replace(b'":', b'": '),
    "deep/er/x.jsonl~": lambda whole: whole[:60],
}


@pytest.mark.parametrize("name", STRAYS)
def test_whatever_is_in_the_scope_s_own_folder_is_left(store, name):
    fill_store(store, [BODY])
    stray = path_of(store).parent / name
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(STRAYS[name](path_of(store).read_bytes()))
    assert _erase(store) == Leftovers(0, (f"default/{name}",), complete=False)
    assert _erase(store, "unrelated") == Leftovers(0, (), complete=True)


@pytest.mark.parametrize("behind", [True, False])
def test_lines_in_the_file_of_another_scope_s_conversation_are_reported(store, behind):
    other = Key("other", KEY.id)
    fill_store(store, ["1", "2"], ["3"], key=other)
    fill_store(store, [BODY])
    own, lines = path_of(store, other).read_bytes(), path_of(store).read_bytes()
    path_of(store, other).write_bytes(own + lines if behind else lines + own)
    assert _erase(store) == Leftovers(0, ("other/support=2f42.jsonl",), complete=False)
    assert bodies_of(store, other) == ["1", "2", "3"]
    store.append(other, ["4"], after=store.read(other).head, revision=revision())
    assert _erase(store) == Leftovers(0, ("other/support=2f42.aside",), complete=False)
    assert _erase(store, "unrelated") == Leftovers(0, (), complete=True)


def test_a_folder_that_cannot_be_listed_may_hold_anything(store, monkeypatch):
    fill_store(store, ["1"], key=Key("other", "c"))

    def scandir(path, real=os.scandir):
        if str(path).endswith("/other"):
            raise PermissionError(13, "no", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert store.remove_leftovers("default") == Leftovers(0, ("other",), complete=False)


def test_folders_of_any_depth(store):
    fill_store(store, [BODY])
    folder = os.open(path_of(store).parent, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    try:
        assert _erase(store) == Leftovers(0, (), complete=True)
    finally:
        subprocess.run(["rm", "-rf", store.root], check=True)  # for rmtree calls itself for each


@pytest.mark.parametrize("kind", ["link", "file"])
def test_locks_that_are_not_in_a_folder_are_refused_with_a_reason(store, tmp_path, kind):
    fill_store(store, [BODY])
    _uncommitted_tail(store, KEY)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(Path(store.root, ".locks"))
    Path(store.root, ".locks").symlink_to(outside) if kind == "link" else Path(store.root, ".locks").touch()
    with fresh(store) as other:
        with pytest.raises(StoreRejected, match="must be a folder"):
            other.delete(KEY)
        assert other.remove_leftovers("default") == Leftovers(0, ("default/support=2f42.jsonl",), complete=False)
        erasure = History(other).erase("default")
    assert (erasure.complete, "default/support=2f42.jsonl" in erasure.left) == (False, True)
    assert names(outside) == []


def test_a_folder_that_was_moved_is_reported(store):
    fill_store(store, [BODY])
    fill_store(store, ["1"], key=Key("other", "c"))
    path_of(store).parent.rename(Path(store.root, "archive"))
    assert list(store.keys()) == [Key("other", "c")]
    assert [(row.key, row.where) for row in store.damaged_keys()] == [(None, "archive/support=2f42.jsonl")]
    report = History(store).copy_to(open_store("memory:"), all_scopes=True)
    assert (report.all_found, report.complete) == (False, False)
    assert _erase(store) == Leftovers(0, ("archive/support=2f42.jsonl",), complete=False)
    assert store.remove_leftovers("archive").complete
    assert _erase(store) == Leftovers(0, (), complete=True)


def test_nothing_outside_is_touched_through_a_link(store, tmp_path):
    fill_store(store, [BODY])
    outside = tmp_path / "outside"
    shutil.copytree(path_of(store).parent, outside)
    (path_of(store).parent / "linked.jsonl").symlink_to(outside / "support=2f42.jsonl")
    (path_of(store).parent / "linked.aside").symlink_to(outside / "support=2f42.jsonl")
    (path_of(store).parent / "folder.jsonl").mkdir()
    (path_of(store).parent / "inner").symlink_to(outside)
    report = _erase(store)
    assert report.complete is False
    assert set(report.left) >= {"default/linked.jsonl", "default/linked.aside"}
    assert (outside / "support=2f42.jsonl").read_bytes().count(WORD.encode()) == 1
    shutil.rmtree(path_of(store).parent)
    path_of(store).parent.symlink_to(outside)
    assert store.remove_leftovers("default") == Leftovers(0, ("default",), complete=False)
    assert (outside / "support=2f42.jsonl").read_bytes().count(WORD.encode()) == 1


def test_a_file_that_cannot_be_read_may_hold_anything(store, monkeypatch):
    fill_store(store, ["1"], key=Key("other", "c"))

    def opened(path, *args, real=os.open):
        if str(path).endswith("/c.jsonl"):
            raise PermissionError(13, "no", path)
        return real(path, *args)

    monkeypatch.setattr(os, "open", opened)
    assert store.remove_leftovers("default") == Leftovers(0, ("other/c.jsonl",), complete=False)


class Killed(BaseException):
    """Simulates the end of the process: no error handler may catch it."""


STEPS = ("write", "utime", "fsync", "ftruncate", "rename", "unlink", "fchmod", "mkdir", "_sync")


def _killed_at(step, patch):
    """Let the process die before its so manieth call of the system that changes something."""
    calls = itertools.count(1)

    def dying(real):
        def call(*args, **kwargs):
            if next(calls) >= step:
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        place = write if name == "_sync" else os
        patch.setattr(place, name, dying(getattr(place, name)))


def _append_after_an_uncommitted_tail(store, head):
    _uncommitted_tail(store, KEY)
    store.append(KEY, [BODY], after=head, revision=revision())


def _restore(store, head):
    _damaged_head(store, KEY)
    store.restore_head(store.find_records(KEY), head)


def _append_to_what_an_editor_saved(store, head):
    path_of(store).write_bytes(path_of(store).read_bytes().replace(b"\n", b"\r\n"))
    store.append(KEY, [BODY], after=head, revision=revision())


def _remove_leftovers(store, head):
    _uncommitted_first(store, KEY)
    _rewrite_stopped(store, KEY)
    store.remove_leftovers("default")


CALLS = {
    "append": lambda store, head: store.append(KEY, [BODY], after=head, revision=revision()),
    "a large append": lambda store, head: store.append(KEY, [BODY] * 4000, after=head, revision=revision()),
    "append after an uncommitted tail": _append_after_an_uncommitted_tail,
    "the first append": lambda store, head: store.append(
        Key("default", "new"), [BODY], after=None, revision=revision()
    ),
    "forget": lambda store, head: store.forget(KEY, before=2),
    "forget all": lambda store, head: store.forget(KEY, before=9),
    "delete": lambda store, head: store.delete(KEY),
    "restore": _restore,
    "append to what an editor saved": _append_to_what_an_editor_saved,
    "remove leftovers": _remove_leftovers,
}


@pytest.mark.parametrize("call", CALLS)
def test_after_a_kill_at_any_point_all_can_be_erased(store, call):
    """And before that nothing that was acknowledged is missing, and nothing was half done."""
    for step in itertools.count(1):
        head = fill_store(store, [BODY, "1"], ["2", "3"])
        with fresh(store) as other, pytest.MonkeyPatch.context() as patch:
            _killed_at(step, patch)
            try:
                CALLS[call](other, head)
            except Killed:
                died = True
            except ChatHistoryError:  # it could not be undone: the process is dead
                died = True
            else:
                died = False
        with fresh(store) as other:
            _check_whole(other, head, call)
            report = _erase(other)
            assert (report.left, report.complete) == ((), True)
            assert names(path_of(store).parent) == []
            assert _holding_text(store.root) == []
        if not died:
            assert step > 1
            return


def _check_whole(store, head, call):
    if call == "restore" and store.find_records(KEY).problem:
        found = store.find_records(KEY)
        assert [record.body for record in store.read_found(found, start=0, stop=99)] == [BODY, "1", "2", "3"]
        return
    if call in {"delete", "remove leftovers"} and store.read(KEY) is None:
        return
    bodies = bodies_of(store)
    whole = [BODY, "1", "2", "3"]
    allowed = {
        "forget": [whole, whole[2:]],
        "forget all": [whole, []],
        "a large append": [whole, whole + [BODY] * 4000],
    }.get(call, [whole, [*whole, BODY]])
    assert bodies in allowed
    assert [row.key for row in store.heads("default").items][-1] == KEY


def test_forget_leaves_nothing_of_what_it_removed_in_any_file(store):
    head = fill_store(store, [BODY], ["2"], ["3"])
    _damaged_head(store, KEY)
    found = store.find_records(KEY)
    head = store.restore_head(found, head)
    path_of(store, suffix=".aside").write_bytes(BODY.encode())
    assert store.forget(KEY, before=1).start == 1
    assert _holding_text(store.root) == []
    path_of(store, suffix=".aside").write_bytes(BODY.encode())
    assert store.forget(KEY, before=1).start == 1
    assert _holding_text(store.root) == []
    assert store.forget(KEY, before=9).start == head.end
    with path_of(store).open("ab") as file:
        file.write(b'[3,"00000000",' + BODY.encode())
    assert store.forget(KEY, before=9).start == head.end
    assert _holding_text(store.root) == []
