"""What the MongoDB store costs, as ratios to the plainest code that does the same; run it as a script.

    append    against  insert_one of the same bytes, the same write concern       at 10, 1,000 and 100,000 messages
    tail      against  find, sort, limit 20, json.loads                           after 10, 1,000 and 100,000
    recent    against  find, sort, limit 20 on an index                           of 20,000 conversations
    threads   against  the same threads with insert_one (on conversations of their own), or with the raw pair
              find_one_and_update of a counter + insert_one (on one conversation)
    processes 8 on one conversation: how much the slowest got of its fair share

Both sides take turns within one run, on a replica set of one that the script starts. The rivals keep no guard, no batch
and no version.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo

from chathistory import Head, HistoryStore, Key, Stamp, open_store
from chathistory.errors import Conflict

TESTS = Path(__file__).parents[1] / "mongodb"
sys.path.insert(0, str(TESTS))

from mongodb_servers import replica_set  # noqa: E402

TEXT = "The quick brown fox jumps over the lazy dog, and says what it thinks about that. " * 5
INFO = json.dumps({"title": "A question about foxes", "usage": {"input_tokens": 1234, "output_tokens": 567}})


def body(number: int) -> str:
    """Return a record such as the core makes."""
    message = {"role": "user", "content": [{"type": "text", "text": TEXT}]}
    entry = {"v": 1, "id": f"{number:026d}", "kind": "message", "time": 1760000000000000 + number, "message": message}
    return json.dumps(entry)


def stamp(number: int) -> Stamp:
    """Return the stamp of an append."""
    return Stamp(uuid.uuid4().hex, 1760000000000000 + number, None, INFO)


def document(conversation: str, number: int) -> dict[str, Any]:
    """Return what a plain program inserts for a message."""
    return {"conversation": conversation, "n": number, "body": body(number)}


def say(text: str) -> None:
    """Print a line of the result."""
    print(text, flush=True)


def compare(name: str, ours: Callable[[], object], raw: Callable[[], object], *, goal: float, turns: int) -> None:
    """Print the medians of both, the ratio of the medians and that of the means."""
    times: dict[Callable[[], object], list[float]] = {ours: [], raw: []}
    for _ in range(turns):
        for call, taken in times.items():
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
    here, there = (statistics.median(taken) * 1e6 for taken in times.values())
    mean = statistics.mean(times[ours]) / statistics.mean(times[raw])
    say(f"{name:24}{here:7.0f} us  raw {there:7.0f} us  ratio {here / there:5.2f}  of means {mean:5.2f}  (goal {goal})")


def bench_one(store: HistoryStore, raw: Any, count: int) -> None:
    """Compare an append after `count` messages, and the last 20 of them."""
    key, name = Key("default", f"of {count}"), f"of {count}"
    head: Head | None = None
    for first in range(0, count, 1000):
        bodies = [body(number) for number in range(first, min(first + 1000, count))]
        head = store.append(key, bodies, after=head, stamp=stamp(first))
        raw.insert_many([document(name, number) for number in range(first, min(first + 1000, count))])

    def append() -> None:
        nonlocal head
        at = head.end if head else 0
        head = store.append(key, [body(at)], after=head, stamp=stamp(at))

    def tail() -> list[object]:
        found = store.read(key, start=-20)
        return [json.loads(each.body) for each in found.records] if found else []

    def raw_tail() -> list[object]:
        return [json.loads(each["body"]) for each in raw.find({"conversation": name}).sort("n", -1).limit(20)]

    numbers = iter(range(count, 10**9))
    for _ in range(20):
        append()
    compare(f"append to {count:,}", append, lambda: raw.insert_one(document(name, next(numbers))), goal=1.4, turns=800)
    assert len(tail()) == len(raw_tail()) == 20
    compare(f"last 20 of {count:,}", tail, raw_tail, goal=1.3, turns=800)


def bench_recent(store: HistoryStore, raw: Any, count: int) -> None:
    """Compare the newest 20 of `count` conversations."""
    for number in range(count):
        store.append(Key("many", f"c{number}"), [body(number)], after=None, stamp=stamp(number))
    raw.create_index([("scope", 1), ("updated", -1)])
    raw.insert_many([{"scope": "many", "id": f"c{n}", "updated": n, "info": INFO, "end": 1} for n in range(count)])

    def newest() -> list[object]:
        return list(raw.find({"scope": "many"}).sort("updated", -1).limit(20))

    assert store.heads("many").items[0].key.id == next(iter(newest()))["id"]  # type: ignore[index]
    compare(f"newest 20 of {count:,}", lambda: store.heads("many"), newest, goal=1.5, turns=800)


def rate(works: list[Callable[[], object]], seconds: float) -> float:
    """Return how often per second all works together are done by as many threads."""
    done, end = Counter[int](), time.perf_counter() + seconds

    def run(at: int) -> None:
        while time.perf_counter() < end:
            works[at]()
            done[at] += 1

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done.values()) / seconds


def own(store: HistoryStore, name: str) -> Callable[[], object]:
    """Return an append to a conversation that nobody else writes."""
    head: Head | None = None

    def append() -> None:
        nonlocal head
        head = store.append(Key("threads", name), [body(0)], after=head, stamp=stamp(0))

    return append


def shared(store: HistoryStore, name: str) -> Callable[[], object]:
    """Return an append that goes on from whatever others wrote."""
    head: Head | None = None

    def append() -> None:
        nonlocal head
        while True:
            try:
                head = store.append(Key("threads", name), [body(0)], after=head, stamp=stamp(0))
            except Conflict as conflict:
                head = conflict.head
            else:
                return

    return append


def queued(store: HistoryStore, name: str) -> Callable[[], object]:
    """Return an append as the core makes it: threads of one process queue for a conversation."""
    from chathistory import History  # noqa: PLC0415

    conversation = History(store).conversation(name, scope="threads")
    return lambda: conversation.append({"role": "user", "content": TEXT})


def bench_threads(store: HistoryStore, raw: Any) -> None:
    """Compare the throughput of 16 threads."""

    def insert() -> object:
        return raw.insert_one(document("threads", 0))

    def pair() -> object:
        counted = raw.find_one_and_update({"_id": "counter"}, {"$inc": {"n": 1}}, upsert=True)
        return raw.insert_one(document("one", counted["n"] if counted else 0))

    pair()
    one = queued(store, "queued")
    apart = [own(store, f"c{at}") for at in range(16)]
    rivals = [shared(store, "shared") for _ in range(16)]
    share("16 threads, 16 conversations", apart, [insert] * 16, goal=0.75)
    share("16 threads, one, bare store", rivals, [pair] * 16, goal=0.3)
    share("16 threads, one, core's queue", [one] * 16, [pair] * 16, goal=0.3)


def share(name: str, ours: list[Callable[[], object]], raw: list[Callable[[], object]], *, goal: float) -> None:
    """Print the throughput of both, in turns, and the median of the shares."""
    pairs = [(rate(ours, 1.5), rate(raw, 1.5)) for _ in range(9)]
    here, there = (statistics.median(column) for column in zip(*pairs, strict=True))
    shares = sorted(one / other for one, other in pairs)
    say(
        f"{name:30} {here:6.0f} /s  raw {there:6.0f} /s  share {statistics.median(shares):5.2f}"
        f"  ({shares[0]:.2f} to {shares[-1]:.2f})  (goal {goal})"
    )


def bench_processes(url: str) -> None:
    """Say how evenly 8 processes get through."""
    command = [sys.executable, str(TESTS / "mongodb_writer.py"), url]
    processes = [subprocess.Popen([*command, f"p{at}", "0"], stdout=subprocess.PIPE, text=True) for at in range(8)]
    time.sleep(10)
    for process in processes:
        process.terminate()
    counts = [len(process.communicate()[0].splitlines()) for process in processes]
    least = min(counts) / statistics.mean(counts)
    say(f"8 processes, one: {sum(counts) / 10:.0f} batches/s; the slowest has {least:.0%} of the mean")


def stores() -> Iterator[tuple[str, HistoryStore, Any]]:
    """Give a URL, a store and a raw collection with the same write concern, on a server of their own."""
    with replica_set(1, "--setParameter", "ttlMonitorEnabled=false") as servers:
        url = f"mongodb://{servers[0].address}/bench"
        with open_store(url) as store, pymongo.MongoClient(url, w="majority", journal=True) as client:
            raw = client["raw"]["messages"]
            raw.create_index([("conversation", 1), ("n", 1)])
            yield url, store, raw


def main() -> None:
    """Run all of it."""
    for url, store, raw in stores():
        for count in (10, 1_000, 100_000):
            bench_one(store, raw, count)
        bench_recent(store, raw, 20_000)
        bench_threads(store, raw)
        bench_processes(url)


if __name__ == "__main__":
    main()
