"""When the disk refuses or fails: a typed error, and an unchanged store."""

import errno
import os
import pickle
import subprocess
import sys
from datetime import timedelta

import pytest
from chathistory_file.schema import encode_record
from file_samples import KEY, bodies_of, fill_store, fresh, names, path_of, revision
from platforms import needs_linux

from chathistory import History, Key, open_store
from chathistory.errors import CorruptRecord, StoreRejected, StoreUnavailable

pytestmark = needs_linux

SECRET = '{"text":"s3cr3t"}'
REFUSED = [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG, errno.EPERM]
OF_THE_FILE = [errno.EACCES, errno.EPERM, errno.EIO]
FAILED = [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTDIR]


class Faulty:
    """Makes a function of `os` fail: with this errno, from the call `first` on, `times` times, after `part` bytes."""

    def __init__(self, monkeypatch, name, code, *, first=1, times=1_000, part=None):
        self.real, self.code, self.first, self.times, self.part = getattr(os, name), code, first, times, part
        self.calls = 0
        target = "chathistory_file.write._sync" if name == "fdatasync" else f"os.{name}"
        monkeypatch.setattr(target, self)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.part is not None and self.calls == self.first:
            return self.real(args[0], bytes(args[1])[: self.part])
        begun = self.first + (self.part is not None)
        if begun <= self.calls < begun + self.times:
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*args, **kwargs)


def _fails(store, code, call):
    expected = StoreRejected if code in REFUSED else StoreUnavailable
    with pytest.raises(expected) as caught:
        call()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == code
    assert "s3cr3t" not in str(caught.value)
    assert getattr(caught.value, "outcome", "not stored") == "not stored"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("code", REFUSED + FAILED)
@pytest.mark.parametrize("name", ["write", "utime", "fdatasync", "part of a write"])
def test_a_failed_append_changes_nothing(store, monkeypatch, name, code):
    head = fill_store(store, ["1"], ["2"])
    before, date = path_of(store).read_bytes(), path_of(store).stat().st_mtime_ns
    with monkeypatch.context() as patch:
        if name == "part of a write":
            Faulty(patch, "write", code, part=7)
        else:
            Faulty(patch, name, code, times=1)
        _fails(store, code, lambda: store.append(KEY, [SECRET], after=head, revision=revision()))
    assert (path_of(store).read_bytes(), path_of(store).stat().st_mtime_ns) == (before, date)
    with fresh(store) as other:
        assert other.read(KEY).head == head
        other.append(KEY, ["3"], after=head, revision=revision())
        assert bodies_of(other) == ["1", "2", "3"]
    assert not path_of(store, suffix=".aside").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["write", "utime", "fdatasync", "fsync", "fchmod"])
def test_a_failed_creation_leaves_no_conversation(store, monkeypatch, name, code):
    fill_store(store, ["1"], key=Key("default", "neighbour"))
    with monkeypatch.context() as patch:
        Faulty(patch, name, code, times=1)
        _fails(store, code, lambda: store.append(KEY, [SECRET], after=None, revision=revision()))
    assert store.read(KEY) is None
    assert names(path_of(store).parent) == ["neighbour.jsonl"]
    fill_store(store, ["again"])


@pytest.mark.parametrize("undoing", ["ftruncate", "fdatasync"])
def test_what_cannot_be_undone_has_an_unknown_outcome(store, monkeypatch, undoing):
    head = fill_store(store, ["1"])
    with monkeypatch.context() as patch:
        Faulty(patch, "fdatasync", errno.ENOSPC)
        Faulty(patch, undoing, errno.EIO)
        with pytest.raises(StoreUnavailable) as caught:
            store.append(KEY, [SECRET], after=head, revision=revision())
    assert caught.value.outcome == "unknown"
    assert caught.value.__cause__.errno in (errno.ENOSPC, errno.EIO)
    seen = store.read(KEY)
    store.append(KEY, ["next"], after=seen.head, revision=revision())
    assert bodies_of(store) == [record.body for record in seen.records] + ["next"]


def test_a_half_written_batch_that_cannot_be_undone_is_an_uncommitted_tail(store, monkeypatch):
    head = fill_store(store, ["1"])
    with monkeypatch.context() as patch:
        Faulty(patch, "write", errno.ENOSPC, part=9)
        Faulty(patch, "ftruncate", errno.EIO)
        with pytest.raises(StoreUnavailable):
            store.append(KEY, [SECRET], after=head, revision=revision())
    assert store.read(KEY).head == head
    store.append(KEY, ["2"], after=head, revision=revision())
    assert bodies_of(store) == ["1", "2"]
    assert path_of(store, suffix=".aside").read_bytes() == encode_record(1, SECRET.encode())[:9]


def test_a_short_write_is_continued(store, monkeypatch):
    head = fill_store(store, ["1"])
    with monkeypatch.context() as patch:
        faulty = Faulty(patch, "write", errno.EIO, part=3, times=0)
        store.append(KEY, [SECRET, "3"], after=head, revision=revision())
    assert faulty.calls == 2
    assert bodies_of(store) == ["1", SECRET, "3"]


@pytest.mark.parametrize("code", REFUSED + FAILED)
@pytest.mark.parametrize("name", ["open", "pread", "fstat"])
def test_what_cannot_be_read_does_not_count_as_absent(store, monkeypatch, name, code):
    head = fill_store(store, ["1"])
    for call in (
        lambda: store.append(KEY, [SECRET], after=head, revision=revision()),
        lambda: store.append(KEY, [SECRET], after=None, revision=revision()),
        lambda: store.forget(KEY, before=1),
        lambda: store.delete(KEY, version=head.revision.version),
    ):
        with monkeypatch.context() as patch:
            Faulty(patch, name, code)
            _fails(store, code, call)
    for call in (lambda: store.read(KEY), lambda: store.find_records(KEY), lambda: store.list_notes(KEY)):
        with monkeypatch.context() as patch:
            Faulty(patch, name, code)
            if code not in OF_THE_FILE:
                _fails(store, code, call)
                continue
            with pytest.raises(CorruptRecord, match="the file cannot be read") as caught:
                call()
            assert (caught.value.key, caught.value.position) == (KEY, None)
    assert bodies_of(store) == ["1"]


@pytest.mark.parametrize("code", OF_THE_FILE)
def test_an_error_of_the_folder_is_none_of_the_conversation(store, monkeypatch, code):
    fill_store(store, ["1"])
    path = path_of(store)
    path.parent.rename(path.parent.with_name("away"))
    path.parent.mkdir()
    with monkeypatch.context() as patch:
        Faulty(patch, "open", code)
        _fails(store, code, lambda: store.read(KEY))


@pytest.mark.parametrize("code", OF_THE_FILE)
def test_walks_of_the_library_go_on_past_a_file_that_cannot_be_read(store, monkeypatch, tmp_path, code):
    history = History(store, scope="ada")
    for name in "abc":
        history.conversation(name).append({"role": "user", "content": "1"})
    path = path_of(store, Key("ada", "b"))
    inode = path.stat().st_ino

    def pread(fd, *args, real=os.pread):
        if os.fstat(fd).st_ino == inode:
            raise OSError(code, os.strerror(code))
        return real(fd, *args)

    monkeypatch.setattr(os, "pread", pread)
    assert list(history.export_to(tmp_path / "all.jsonl", all_scopes=True).failed) == [Key("ada", "b")]
    assert list(history.copy_to(open_store("memory:"), all_scopes=True).failed) == [Key("ada", "b")]
    assert history.prune(ttl=timedelta(days=1), full_scan=True).kept == 2
    assert [each.state for each in history.check().found] == ["lost"]
    erasure = history.erase("ada")
    assert (erasure.complete, erasure.left, path.exists()) == (True, (), False)


@pytest.mark.parametrize("code", REFUSED + FAILED)
@pytest.mark.parametrize("name", ["open", "pread", "fstat"])
def test_a_walk_goes_on_past_what_cannot_be_read(store, monkeypatch, name, code):
    fill_store(store, ["1"])
    with monkeypatch.context() as patch:
        Faulty(patch, name, code)
        if code in {errno.EMFILE, errno.ENFILE}:  # which is no fault of the file's
            _fails(store, code, lambda: store.heads("default"))
            _fails(store, code, lambda: list(store.keys()))
            return
        page = store.heads("default")
        assert (list(store.keys()), list(store.damaged_keys())) == ([KEY], [])
    assert page.items == []
    [row] = page.damaged
    assert (row.key, row.where) == (KEY, "default/support=2f42.jsonl")
    assert isinstance(row.error, StoreRejected if code in REFUSED else StoreUnavailable)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_listed_does_not_count_as_empty(store, monkeypatch, code):
    fill_store(store, ["1"])
    for call in (lambda: store.heads("default"), lambda: list(store.keys()), lambda: list(store.keys("default"))):
        with monkeypatch.context() as patch:
            Faulty(patch, "scandir", code)
            _fails(store, code, call)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["write", "utime", "fsync", "rename"])
def test_a_failed_forget_changes_nothing(store, monkeypatch, name, code):
    fill_store(store, ["1", "2"], ["3"])
    before = path_of(store).read_bytes()
    with monkeypatch.context() as patch:
        Faulty(patch, name, code, times=1)
        _fails(store, code, lambda: store.forget(KEY, before=2))
    assert path_of(store).read_bytes() == before
    assert [path.name for path in path_of(store).parent.iterdir()] == [path_of(store).name]
    assert store.forget(KEY, before=2).start == 2


@pytest.mark.parametrize(("call", "first"), [("forget", 2), ("delete", 1)])
def test_what_is_done_but_not_durable_has_an_unknown_outcome(store, monkeypatch, call, first):
    fill_store(store, ["1", "2"])
    with monkeypatch.context() as patch:
        Faulty(patch, "fsync", errno.ENOSPC, first=first)
        with pytest.raises(StoreUnavailable) as caught:
            store.forget(KEY, before=1) if call == "forget" else store.delete(KEY)
    assert caught.value.outcome == "unknown"
    assert bodies_of(store) == (["2"] if call == "forget" else None)


def test_a_failed_delete_can_be_repeated(store, monkeypatch):
    fill_store(store, ["1"])
    path_of(store, suffix=".aside").write_bytes(b"x")
    with monkeypatch.context() as patch:
        Faulty(patch, "unlink", errno.EIO, times=1)
        _fails(store, errno.EIO, lambda: store.delete(KEY))
    assert bodies_of(store) == ["1"]
    assert store.delete(KEY) is True


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["fsync", "ftruncate"])
def test_uncommitted_bytes_that_cannot_be_set_aside_stay(store, monkeypatch, name, code):
    head = fill_store(store, ["1"])
    before = path_of(store).read_bytes() + b"torn"
    path_of(store).write_bytes(before)
    with monkeypatch.context() as patch:
        Faulty(patch, name, code, times=1)
        _fails(store, code, lambda: store.append(KEY, [SECRET], after=head, revision=revision()))
    assert path_of(store).read_bytes() == before
    assert store.read(KEY).head == head


FULL = """
import resource, signal, sys
from chathistory import Key, Revision
from chathistory.errors import StoreRejected
from chathistory_file import FileStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store, key = FileStore(sys.argv[1]), Key("default", "support/42")
head = store.append(key, ["x" * 100], after=None, revision=Revision("v", 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    for number in range(20):
        head = store.append(key, ["y" * 100], after=head, revision=Revision(f"v{number}", number + 2))
except StoreRejected as error:
    assert store.read(key).head == head
    print("refused", error.__cause__.errno, head.end)
"""


def test_a_full_disk_is_met_in_earnest(store):
    """The kernel's own limit on a file's size, in a process of its own: a write stops partway."""
    done = subprocess.run([sys.executable, "-c", FULL, store.root], capture_output=True, text=True, check=False)
    assert done.stdout.split()[:2] == ["refused", str(errno.EFBIG)], done.stderr
    head = store.read(KEY).head
    assert head.end == int(done.stdout.split()[2])
    store.append(KEY, ["z" * 1000], after=head, revision=revision())
    assert [body[0] for body in bodies_of(store)] == ["x", *"y" * (head.end - 1), "z"]
