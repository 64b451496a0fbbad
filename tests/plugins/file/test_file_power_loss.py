"""A loss of power during an append: acknowledged records stay readable, whichever sectors reached the disk.

A simulated disk keeps synced data. Of the sectors that were written after the last sync, it keeps some; the others are
zeros, and the file may be shorter. Nothing else is assumed: no order of the sectors, and no order between data and
length.
"""

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from chathistory_file import FileStore
from file_samples import KEY, bodies_of, fresh, path_of, revision
from platforms import needs_linux

from chathistory import Head
from chathistory.errors import CorruptRecord

pytestmark = needs_linux

SECTOR = 512
LONG_INFO = '{"preview":"' + "x" * 1900 + '"}'
SHAPES = {
    "one short": (["1"], ""),
    "one short, a commit of several sectors": (["1"], LONG_INFO),
    "one of some sectors": (["x" * 3000], '{"title":"T"}'),
    "three": (["x" * 700, "ж" * 300, "y" * 900], ""),
    "three hundred": ([f'{{"n":{number},"text":"{"x" * (number % 200)}"}}' for number in range(300)], ""),
    "just below what is synced with its commit": (["x" * 900] * 71, LONG_INFO),
    "just above it": (["x" * 900] * 72, LONG_INFO),
    "three hundred, large": (["x" * 1000] * 300, LONG_INFO),
}


class Disk:
    """Records the writes to a conversation's file, and which of them are on the disk at each sync."""

    def __init__(self, monkeypatch, path):
        self.path = path
        self.crashes = []  # (what the disk has for certain, what was written) at each moment before a sync
        self.synced = path.read_bytes() if path.exists() else b""
        monkeypatch.setattr("chathistory_file.write._sync", self._sync)

    def _sync(self, fd):
        if Path(f"/proc/self/fd/{fd}").readlink() == self.path:
            written = self.path.read_bytes()
            self.crashes.append((self.synced, written))
            self.synced = written


def after_power_loss(synced, written, dice, *, old=None):
    """Return what a disk may hold; `old` gives the bytes of sectors that were never written (zeros without it)."""
    how = dice.choice(("few", "most", "even", "one missing", "one there", "all"))
    sectors = range(len(synced) // SECTOR, -(-len(written) // SECTOR))
    one = dice.choice(sectors)
    chance = {"few": 0.1, "most": 0.9, "even": 0.5, "all": 1}.get(how)
    parts = [synced[: sectors.start * SECTOR]]
    for sector in sectors:
        reached = dice.random() < chance if chance is not None else (sector == one) == (how == "one there")
        place = slice(sector * SECTOR, (sector + 1) * SECTOR)
        size = len(written[place])
        there = synced[place]
        unwritten = old(size - len(there)) if old else bytes(size - len(there))
        parts.append(written[place] if reached else there + unwritten)
    disk = b"".join(parts)
    length = dice.choice(("full", "full", "some sector", "any"))
    if length == "some sector":
        return disk[: max(dice.choice(sectors) * SECTOR, len(synced))]
    return disk[: dice.randint(len(synced), len(disk))] if length == "any" else disk


def crashes_of(store, before, bodies, info):
    """Append, and return the head before, the new head, and the possible crashes."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, path_of(store))
        new = store.append(KEY, bodies, after=before, revision=revision(payload=info))
    return new, disk.crashes


def built(store, dice):
    """Make a conversation of a few appends, and let the last one end at any place of a sector."""
    head = None
    for _ in range(dice.randint(1, 4)):
        bodies, info = SHAPES[dice.choice(list(SHAPES)[:5])]
        bodies = [*bodies[:20], "p" * dice.randrange(SECTOR)]
        head = store.append(KEY, bodies, after=head, revision=revision(payload=info))
    return head


def check(store, disk, acknowledged, head, new):
    """Check the disk after a loss of power: everything acknowledged is there, and the rest is reported."""
    path_of(store).write_bytes(disk)
    with fresh(store) as other:
        seen = other.read(KEY, stop=0)
        present = seen.head if seen else None
        assert present in (head, new)
        assert bodies_of(other) == ((acknowledged if present == head else bodies_of(store)) if present else None)
        assert other.heads("default").items == ([present] if present else [])
        assert list(other.keys()) == ([KEY] if present else [])
        behind = len(disk) - (len(_without_tail(disk, present)) if present else 0)
        if present == head and behind:
            named = other.list_notes(KEY) if present else [str(row.error) for row in other.damaged_keys()]
            assert named, "bytes that look like an append are there, and not named"
        again = other.append(KEY, ["again"], after=present, revision=revision())
        with fresh(store) as another:
            assert another.read(KEY, start=-1).head == again
            assert [*bodies_of(another)] == [*(bodies_of(other))]
            assert bodies_of(another)[-1] == "again"
            assert list(another.heads("default").damaged) == []
        aside = path_of(store, suffix=".aside")
        if aside.exists():
            assert aside.read_bytes() == disk[len(disk) - aside.stat().st_size :]
            aside.unlink()
    return "old" if present == head else "new"


def _without_tail(disk, head):
    """Return a file up to the end of the commit of a head."""
    at = disk.index(b'"version":"%b"' % head.revision.version.encode())
    return disk[: (disk + b"\n").index(b"\n", at) + 1]


def simulate(seed, folder):
    """Simulate some disks of one append; returns how often the append was there afterwards."""
    dice = random.Random(seed)
    counts = Counter()
    with FileStore(folder / str(seed)) as store:
        head = built(store, dice) if dice.random() < 0.85 else None
        acknowledged = bodies_of(store)
        before = path_of(store).read_bytes() if head else b""
        bodies, info = SHAPES[dice.choice(list(SHAPES))]
        new, crashes = crashes_of(store, head, bodies, info)
        for _ in range(8):
            synced, written = dice.choice(crashes)
            assert synced.startswith(before)
            counts[check(store, after_power_loss(synced, written, dice), acknowledged, head, new)] += 1
    return counts


@pytest.fixture
def quick(monkeypatch):
    """Real syncs take time, and are not part of the simulation."""
    monkeypatch.setattr("chathistory_file.write._sync", lambda fd: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.usefixtures("quick")
def test_no_loss_of_power_takes_what_was_acknowledged(tmp_path):
    counts = sum((simulate(seed, tmp_path) for seed in range(6)), Counter())
    assert counts["old"] + counts["new"] == 48
    assert min(counts.values()) > 2


@pytest.mark.wide
@pytest.mark.usefixtures("quick")
def test_two_hundred_losses_of_power_take_nothing_that_was_acknowledged(tmp_path):
    counts = sum((simulate(seed, tmp_path) for seed in range(25)), Counter())
    assert counts["old"] + counts["new"] == 200
    assert min(counts.values()) > 10


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quick")
def test_two_thousand_losses_of_power(tmp_path):
    counts = sum((simulate(seed, tmp_path) for seed in range(1000, 1250)), Counter())
    assert counts["old"] + counts["new"] == 2000


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shape", SHAPES)
def test_each_single_sector_that_is_missing(store, shape):
    bodies, info = SHAPES[shape]
    head = store.append(KEY, ["p" * 700], after=None, revision=revision())
    acknowledged = bodies_of(store)
    new, crashes = crashes_of(store, head, bodies, info)
    for synced, written in crashes:
        sectors = list(range(len(synced) // SECTOR, -(-len(written) // SECTOR)))
        for sector in sectors[:4] + sectors[4:-4:40] + sectors[-4:]:
            place = slice(sector * SECTOR, (sector + 1) * SECTOR)
            lost = synced[place].ljust(len(written[place]), b"\0")
            disk = written[: place.start] + lost + written[place.stop :]
            assert check(store, disk, acknowledged, head, new) == "old"


def noted(monkeypatch, *names):
    """Note the calls of these functions of `os`."""
    events = []

    def recorder(name, real):
        return lambda *args: events.append(name) or real(*args)

    for name in names:
        monkeypatch.setattr(os, name, recorder(name, getattr(os, name)))
    return events


def test_an_append_of_more_than_a_little_is_synced_before_its_commit(store, monkeypatch):
    events = []
    real = os.write

    def write(fd, data):
        place = bytes(data).find(b'{"commit":')
        events.append({0: "commit", -1: "records"}.get(place, "both"))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr("chathistory_file.write._sync", lambda fd: events.append("sync"))
    head = store.append(KEY, ["x" * 60_000], after=None, revision=revision())
    store.append(KEY, ["x" * 70_000], after=head, revision=revision())
    assert events == ["both", "sync", "records", "sync", "commit", "sync"]


def test_the_end_is_cut_off_durably_before_anything_is_written_there(store, monkeypatch):
    """Else a loss of power could mix lines of the old append with lines of the new one."""
    head = store.append(KEY, ["1"], after=None, revision=revision())
    with path_of(store).open("ab") as file:
        file.write(b'[1,"')
    events = noted(monkeypatch, "write", "ftruncate", "fsync")
    monkeypatch.setattr("chathistory_file.write._sync", lambda fd: events.append("sync"))
    store.append(KEY, ["2"], after=head, revision=revision())
    assert events == ["write", "fsync", "fsync", "ftruncate", "sync", "write", "sync"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(at, marks=pytest.mark.wide) for at in range(3, 12))])
def test_a_disk_that_shows_what_was_there_before(tmp_path, seed):
    """No file system with ordered data and journal does this. Acknowledged data are there, perhaps after a repair."""
    dice = random.Random(seed)
    with FileStore(tmp_path / "h") as store:
        head = built(store, dice)
        acknowledged = bodies_of(store)
        bodies, info = SHAPES[dice.choice(list(SHAPES))]
        new, crashes = crashes_of(store, head, bodies, info)
        lines = path_of(store).read_bytes()

        def old(size):
            at = dice.randrange(len(lines))
            return (lines[at:] * (size // len(lines[at:]) + 1))[:size] if dice.random() < 0.5 else dice.randbytes(size)

        for _ in range(6):
            path_of(store).write_bytes(after_power_loss(*dice.choice(crashes), dice, old=old))
            with fresh(store) as other:
                try:
                    present = other.read(KEY, stop=0).head
                except CorruptRecord:
                    found = other.find_records(KEY)
                    present = other.restore_head(found, Head(KEY, found.start, found.end, revision()))
                assert present.end in range(head.end, new.end + 1)
                records = other.read(KEY, start=0, stop=head.end).records
                assert [record.body for record in records] == acknowledged[: len(records)]
                assert len(records) == len(acknowledged)


def test_a_rewrite_is_on_the_disk_before_it_takes_the_place_of_what_was(store, monkeypatch):
    store.append(KEY, ["1", "2"], after=None, revision=revision())
    events = noted(monkeypatch, "write", "fsync", "rename")
    store.forget(KEY, before=1)
    assert events == ["write", "fsync", "rename", "fsync"]
