"""What the file store costs, as ratios to the plainest code that does the same; run it as a script.

    append   against  lock, open, json.dumps, write, fdatasync, close       at 10, 1,000 and 100,000 records
    tail     against  open, seek 32 kB back, read, json.loads of the last 20         after 10, 1,000 and 100,000 records
    recent   against  scandir and stat of every file                        of 20,000 conversations

Each pair is measured in turns within one run, so that the ratio does not depend on what else the machine does. The
rivals keep no version, checksum, batch or order, and find no tail that is longer than they guess.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chathistory_file import FileStore

from chathistory import Head, Key, Stamp

TEXT = "The quick brown fox jumps over the lazy dog, and says what it thinks about that. " * 5
INFO = json.dumps({"title": "A question about foxes", "usage": {"input_tokens": 1234, "output_tokens": 567}})


def record(number: int) -> dict[str, object]:
    """Return a record such as the core makes."""
    message = {"role": "user", "content": [{"type": "text", "text": TEXT}]}
    return {"v": 1, "id": f"{number:026d}", "kind": "message", "time": 1760000000000000 + number, "message": message}


def stamp(number: int) -> Stamp:
    """Return the stamp of the append with this number."""
    return Stamp(f"{number:026d}", 1760000000000000 + number, None, INFO)


def compare(name: str, ours: Callable[[], object], raw: Callable[[], object], *, goal: float, turns: int) -> None:
    """Print the medians of both, and of their ratio."""
    times: dict[Callable[[], object], list[float]] = {ours: [], raw: []}
    for _ in range(turns):
        for call, taken in times.items():
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
    here, there = (statistics.median(taken) * 1e6 for taken in times.values())
    print(f"{name:28} {here:10.0f} us   raw {there:10.0f} us   ratio {here / there:5.2f}   (goal {goal})")


def filled(store: FileStore, key: Key, count: int) -> Head:
    """Store that many records, in batches of two, as fast as can be."""
    head = None
    sync, os.fdatasync = os.fdatasync, lambda _: None
    try:
        for number in range(0, count, 2):
            bodies = [json.dumps(record(number + one)) for one in range(2)]
            head = store.append(key, bodies, after=head, stamp=stamp(number))
    finally:
        os.fdatasync = sync
    assert head is not None
    return head


def bench_append(root: Path, count: int) -> None:
    """Compare an append of one record after `count` of them."""
    key, raw_path, raw_lock = Key("default", "append"), root / "raw.jsonl", root / "raw.lock"
    with FileStore(root / str(count)) as store:
        head = filled(store, key, count)
        raw_path.write_text("".join(json.dumps(record(number)) + "\n" for number in range(count)))

        def ours() -> None:
            nonlocal head
            head = store.append(key, [json.dumps(record(head.end))], after=head, stamp=stamp(head.end))

        def raw() -> None:
            with raw_lock.open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                with raw_path.open("a") as file:
                    file.write(json.dumps(record(count)) + "\n")
                    file.flush()
                    os.fdatasync(file.fileno())

        compare(f"append to {count:,}", ours, raw, goal=1.5, turns=400)
        bench_tail(store, key, raw_path, count)


def bench_tail(store: FileStore, key: Key, raw_path: Path, count: int) -> None:
    """Compare reading the last 20 records."""

    def ours() -> list[object]:
        found = store.read(key, start=-20)
        assert found is not None
        return [json.loads(each.body) for each in found.records]

    def raw() -> list[object]:
        with raw_path.open("rb") as file:
            file.seek(-min(32 * 1024, os.fstat(file.fileno()).st_size), os.SEEK_END)
            return [json.loads(line) for line in file.read().decode("utf-8", "replace").split("\n")[-21:-1]]

    assert len(ours()) == len(raw()) == 20
    compare(f"last 20 of {count:,}", ours, raw, goal=1.5, turns=400)


def bench_recent(root: Path, count: int) -> None:
    """Compare listing the newest 20 of `count` conversations."""
    with FileStore(root / "recent") as store:
        store.append(Key("default", "0"), ["{}"], after=None, stamp=stamp(0))
        for number in range(1, count):
            _planted(root / "recent/default", number)
        assert [head.key.id for head in store.heads("default").items] == [str(count - 1 - back) for back in range(20)]

        def raw() -> int:
            with os.scandir(root / "recent/default") as entries:
                return max(entry.stat().st_mtime_ns for entry in entries)

        compare(f"newest 20 of {count:,}", lambda: store.heads("default"), raw, goal=1.3, turns=40)


def _planted(folder: Path, number: int) -> None:
    """Make a conversation without waiting for the disk."""
    from chathistory_file.blocks import batch  # noqa: PLC0415

    head = Head(Key("default", str(number)), 0, 1, stamp(number))
    path = folder / f"{number}.jsonl"
    path.write_bytes(b"".join(batch([b"{}\n"], head, first=0)))
    os.utime(path, ns=(head.stamp.updated * 1000,) * 2)


def main() -> None:
    """Run all of it in a temporary folder."""
    root = Path(tempfile.mkdtemp(prefix="bench-file-"))
    try:
        for count in (10, 1_000, 100_000):
            bench_append(root, count)
        bench_recent(root, 20_000)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
