"""What the Redis store costs, as ratios to the plainest commands that do the same; run it as a script.

    append   against  a pipeline of RPUSH, HSET and ZADD, and json.dumps      at 10, 1,000 and 100,000 records
    tail     against  LRANGE of the last 20, and json.loads                   after 10, 1,000 and 100,000 records
    recent   against  ZREVRANGE of 20                                         of 20,000 conversations
    16 threads on one conversation, and on 16, against the bare script and the bare pipeline
    bytes sent, and bytes in the server's memory

Each pair is measured in turns within one run, on a Valkey that is started for it. The rivals have no guard, no
atomicity and no order among equal times.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import redis
from chathistory_redis import RedisStore
from chathistory_redis.heads import encoded_stamp
from chathistory_redis.scripts import APPEND

from chathistory import Head, History, Key, Stamp, open_store

sys.path.insert(0, str(Path(__file__).parents[1] / "redis"))
from redis_servers import Server

TEXT = "The quick brown fox jumps over the lazy dog, and says what it thinks about that. " * 5
INFO = json.dumps({"title": "A question about foxes", "usage": {"input_tokens": 1234, "output_tokens": 567}})
THREADS = 16
Work: TypeAlias = Callable[[int, int], object]


def record(number: int) -> dict[str, object]:
    """Return a record such as the core makes."""
    message = {"role": "user", "content": [{"type": "text", "text": TEXT}]}
    return {"v": 1, "id": f"{number:026d}", "kind": "message", "time": 1760000000000000 + number, "message": message}


def stamp(number: int) -> Stamp:
    """Return the stamp of the append with this number."""
    return Stamp(f"{number:026d}", 1760000000000000 + number, None, INFO)


def say(name: str, here: float, there: float, unit: str, goal: str) -> None:
    """Print a pair of figures and their ratio."""
    print(f"{name:44} {here:9.1f} {unit:6} raw {there:9.1f}   ratio {here / there:5.2f}   (goal {goal})")


def compare(name: str, ours: Callable[[], object], raw: Callable[[], object], *, goal: str, turns: int) -> float:
    """Print the medians of both in microseconds, and their ratio; return ours."""
    times: dict[Callable[[], object], list[float]] = {ours: [], raw: []}
    for _ in range(turns):
        for call, taken in times.items():
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
    here, there = (statistics.median(taken) * 1e6 for taken in times.values())
    say(name, here, there, "us", goal)
    return here


def filled(store: RedisStore, key: Key, count: int) -> Head:
    """Store that many records."""
    head = None
    for number in range(0, count, 1000):
        bodies = [json.dumps(record(number + at)) for at in range(min(1000, count - number))]
        head = store.append(key, bodies, after=head, stamp=stamp(number))
    assert head is not None
    return head


def raw_append(client: redis.Redis, name: str, number: int) -> None:
    """Append without a guard."""
    with client.pipeline(transaction=False) as pipe:
        pipe.rpush(f"raw:{name}", json.dumps(record(number)))
        pipe.hset(f"raw:{name}:head", mapping={"updated": number, "info": INFO})
        pipe.zadd("raw:index", {name: number})
        pipe.execute()


def bench_append(store: RedisStore, client: redis.Redis, count: int) -> None:
    """Compare an append of one record after `count` of them, and the tail."""
    key, raw_key = Key("default", f"append-{count}"), f"raw:append-{count}"
    head = filled(store, key, count)
    for number in range(0, count, 1000):
        client.rpush(raw_key, *[json.dumps(record(number + at)) for at in range(min(1000, count - number))])

    def ours() -> None:
        nonlocal head
        head = store.append(key, [json.dumps(record(head.end))], after=head, stamp=stamp(head.end))

    def tail() -> list[object]:
        found = store.read(key, start=-20)
        assert found is not None
        return [json.loads(each.body) for each in found.records]

    def raw_tail() -> list[object]:
        return [json.loads(body) for body in client.lrange(raw_key, -20, -1)]

    compare(f"append to {count:,}", ours, lambda: raw_append(client, f"append-{count}", count), goal="1.3", turns=3000)
    assert len(tail()) == len(raw_tail()) == 20
    compare(f"last 20 of {count:,}", tail, raw_tail, goal="1.3", turns=2000)


def bench_recent(store: RedisStore, client: redis.Redis, count: int) -> None:
    """Compare listing the newest 20 of `count` conversations."""
    for number in range(count):
        store.append(Key("recent", f"conversation-{number}"), ["{}"], after=None, stamp=stamp(number))
    client.zadd("raw:recent", {f"conversation-{number}": number for number in range(count)})
    assert store.heads("recent").items[0].key.id == f"conversation-{count - 1}"

    def raw() -> object:
        return client.zrevrange("raw:recent", 0, 19, withscores=True)

    compare(f"newest 20 of {count:,}", lambda: store.heads("recent"), raw, goal="2.5", turns=1000)


def rate(work: Work, seconds: float = 1.0) -> float:
    """Return how many times a second `THREADS` threads together get through `work(thread, number)`."""
    counts = [0] * THREADS
    late = time.perf_counter() + seconds

    def run(thread: int) -> None:
        while time.perf_counter() < late:
            work(thread, counts[thread])
            counts[thread] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def compare_rates(name: str, ours: Work, raw: Work, *, goal: str) -> None:
    """Print the medians of what both get through, in turns."""
    rates = [(rate(ours), rate(raw)) for _ in range(5)]
    here, there = (statistics.median(each) for each in zip(*rates, strict=True))
    say(name, here, there, "/s", goal)


def bench_threads(url: str, client: redis.Redis) -> None:
    """Compare what many threads get through: on one conversation by the queue of the core, on 16 by the store alone."""
    with open_store(url) as store:
        assert isinstance(store, RedisStore)
        chats = [History(store).conversation("together") for _ in range(THREADS)]
        names, args = store._layout.names(Key("default", "bare")), [encoded_stamp(stamp(0)), b""]
        store.append(Key("default", "bare"), ["{}"], after=None, stamp=stamp(0))

        def bare(thread: int, number: int) -> None:
            body = json.dumps(record(number)).encode()
            seen = b"+" + stamp(0).version.encode()
            client.execute_command("EVALSHA", APPEND.sha, 3, *names, seen, *args, body)

        chats[0].append({"role": "user", "content": TEXT})

        def together(thread: int, number: int) -> None:
            chats[thread].append({"role": "user", "content": f"{TEXT} {number}"})

        compare_rates("16 threads on one conversation", together, bare, goal="at least 0.5")
        heads: list[Head | None] = [None] * THREADS

        def apart(thread: int, number: int) -> None:
            one = stamp(number)
            heads[thread] = store.append(
                Key("default", f"apart-{thread}"), [json.dumps(record(number))], after=heads[thread], stamp=one
            )

        def raw(thread: int, number: int) -> None:
            raw_append(client, f"apart-{thread}", number)

        compare_rates("16 threads on 16 conversations", apart, raw, goal="at least 0.75")


def bench_bytes(store: RedisStore, client: redis.Redis) -> None:
    """Measure what is sent for a turn, and what the server needs for a message."""
    key = Key("default", str(uuid.uuid4()))
    head = store.append(key, ["{}"], after=None, stamp=stamp(0))
    bodies = [json.dumps(record(number)) for number in range(2)]
    before = client.info("stats")["total_net_input_bytes"]
    between = client.info("stats")["total_net_input_bytes"]
    store.append(key, bodies, after=head, stamp=stamp(1))
    after = client.info("stats")["total_net_input_bytes"]
    sent = after - between - (between - before)
    given = sum(map(len, bodies)) + len(INFO) + len(key.scope) + len(key.id)
    print(f"sent for a turn beyond bodies, info and key: {sent - given} bytes (goal 300)")
    for size in (200, 600, 1_500, 5_000, 20_000):
        name = Key("memory", str(size))
        payload = ["x" * size] * (4_000_000 // size)
        before = client.info("memory")["used_memory_dataset"]
        head = None
        for at in range(0, len(payload), 2):
            head = store.append(name, payload[at : at + 2], after=head, stamp=stamp(at))
        used = client.info("memory")["used_memory_dataset"] - before
        total = size * len(payload)
        say(f"memory for messages of {size:,} bytes", used / len(payload), total / len(payload), "bytes", "1.25")


def main() -> None:
    """Run all of it on a server of its own."""
    with Server() as server, open_store(server.url) as store, server.client(protocol=2) as client:
        assert isinstance(store, RedisStore)
        for count in (10, 1_000, 100_000):
            bench_append(store, client, count)
        bench_recent(store, client, 20_000)
        bench_bytes(store, client)
        bench_threads(server.url, client)


if __name__ == "__main__":
    main()
