"""System calls of each operation: the same with 10 records and with 10,000."""

import json
import os
from collections import Counter

import pytest
from file_samples import KEY, fill_store, fresh, open_files, path_of, revision
from platforms import needs_linux

from chathistory import Key

pytestmark = [pytest.mark.wide, needs_linux]

COUNTED = ("open", "write", "pread", "read", "fdatasync", "fsync", "rename", "unlink", "ftruncate", "utime", "scandir")


class Calls:
    """Counts of the calls, and of the bytes that were read and written, since `clear`."""

    def __init__(self):
        self.counts = Counter()
        self.read = self.written = 0

    def clear(self):
        self.__init__()


@pytest.fixture
def calls(monkeypatch):
    calls = Calls()

    def counted(name, real):
        def call(*args, **kwargs):
            result = real(*args, **kwargs)
            calls.counts[name] += 1
            calls.read += len(result) if name in ("pread", "read") else 0
            calls.written += result if name == "write" else 0
            return result

        return call

    for name in COUNTED:
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    monkeypatch.setattr("chathistory_file.write._sync", os.fdatasync)
    return calls


def _filled_fast(store, count, *, batch, body='{{"n":{}}}'):
    """Append records in batches, without syncs: counting begins after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chathistory_file.write._sync", lambda _: None)
        patch.setattr(os, "fsync", lambda _: None)
        return fill_store(store, *([body.format(at + n) for n in range(batch)] for at in range(0, count, batch)))


def _appended(store, head):
    return store.append(KEY, [json.dumps({"n": head.end})], after=head, revision=revision())


def test_a_warm_append_is_one_write_and_one_sync_however_long_the_conversation(store, calls):
    seen = []
    for count in (10, 10_000):
        head = _filled_fast(store, count, batch=10)
        calls.clear()
        _appended(store, head)
        assert (calls.counts["write"], calls.counts["fdatasync"], calls.counts["fsync"]) == (1, 1, 0)
        assert calls.counts["rename"] == calls.counts["unlink"] == calls.counts["ftruncate"] == 0
        assert calls.counts["pread"] == calls.counts["open"] == calls.counts["utime"] == 1
        assert calls.read <= 4096
        seen.append(dict(calls.counts))
        store.delete(KEY)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("count", [10, 10_000])
def test_a_cold_append_reads_nothing_that_grows(store, calls, count):
    head = _filled_fast(store, count, batch=10)
    with fresh(store) as other:
        calls.clear()
        _appended(other, head)
    assert calls.read <= 4096
    assert calls.counts["write"] == calls.counts["fdatasync"] == 1


def test_the_tail_costs_the_same_however_long_the_conversation(store, calls):
    seen = []
    for count in (100, 10_000):
        _filled_fast(store, count, batch=5, body='{{"n":{:09d}}}')
        calls.clear()
        assert len(store.read(KEY, start=-20).records) == 20
        assert calls.counts["pread"] <= 2
        assert calls.read <= 64 * 1024
        seen.append(calls.counts["pread"])
        store.delete(KEY)
    assert seen[1] <= seen[0]


def test_the_tail_of_one_long_batch_is_no_dearer_than_others(store, calls):
    fill_store(store, [f"{number:0200d}" for number in range(20_000)])
    calls.clear()
    assert [record.body for record in store.read(KEY, start=-2).records] == [f"{n:0200d}" for n in (19_998, 19_999)]
    assert calls.read <= 64 * 1024


def test_a_place_in_the_middle_is_found_by_halving(store, calls):
    _filled_fast(store, 10_000, batch=10, body='{{"n":{:0400d}}}')
    size = path_of(store).stat().st_size
    for start in (1, 17, 3_000, 5_000, 9_000, 9_900):
        calls.clear()
        assert [r.position for r in store.read(KEY, start=start, stop=start + 2).records] == [start, start + 1]
        assert calls.counts["pread"] <= 25
        assert calls.read <= size / 20


def test_reading_all_in_slices_reads_the_file_about_once(store, calls):
    for number in range(6):
        head = store.append(
            KEY,
            [f"{number}" * 1_000_000] * 5,
            after=store.read(KEY, start=-1).head if number else None,
            revision=revision(),
        )
    size = path_of(store).stat().st_size
    calls.clear()
    start, slices = 0, 0
    while start < head.end:
        found = store.read(KEY, start=start)
        assert sum(len(record.body) for record in found.records) <= 8 * 1024 * 1024
        start, slices = found.records[-1].position + 1, slices + 1
    assert slices == 4
    assert calls.read <= 2.5 * size


def test_a_record_beyond_the_bound_of_a_slice_is_read_alone(store):
    fill_store(store, ["a", "x" * 9_000_000, "b"])
    found = [store.read(KEY, start=start).records for start in (0, 1, 2)]
    assert [[(record.position, len(record.body)) for record in records] for records in found] == [
        [(0, 1)],
        [(1, 9_000_000)],
        [(2, 1)],
    ]


@pytest.mark.parametrize(("bodies", "info"), [(1, 0), (2, 300), (6, 300)])
def test_bytes_per_append(store, calls, bodies, info):
    text = json.dumps({"title": "x" * info, "n": [{"a": 1}] * 20}) if info else ""
    long = revision(updated=1_760_000_000_123_456, expires=1_860_000_000_123_456, payload=text)
    head = store.append(KEY, ["{}"] * 99_990, after=None, revision=revision())
    batch = ["{" + "x" * 100 + "}"] * bodies
    calls.clear()
    store.append(KEY, batch, after=head, revision=long)
    assert calls.written <= sum(map(len, batch)) + bodies + len(text) + 215 + 20 * bodies


def test_a_page_reads_only_its_own_heads(store, calls):
    for number in range(200):
        fill_store(store, ["{}"], key=Key("default", str(number)))
    calls.clear()
    assert len(store.heads("default", limit=20).items) == 20
    assert (calls.counts["scandir"], calls.counts["open"], calls.counts["pread"]) == (1, 21, 21)


def test_an_idle_store_holds_lock_files_only(store):
    for number in range(30):
        fill_store(store, ["{}"], key=Key("default", str(number)))
    open_in_store = [path for path in open_files() if path.startswith(store.root)]
    assert open_in_store
    assert all(path.startswith(f"{store.root}/.locks/") for path in open_in_store)
    store.close()
    assert not [path for path in open_files() if path.startswith(store.root)]
