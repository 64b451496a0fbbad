"""What the s3 store costs in requests, rounds and bytes, counted by a server on this machine. A script.

It is compared with two plain designs: one object that is rewritten with every message, and one object per message. The
table turns the counts into money; look up the current prices.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins" / "s3"))

from s3_server import CREDENTIALS, Request, Server, serving

from chathistory import Head, HistoryStore, Key, Revision, open_store

KEY = Key("scope", "conversation")
SIZE = 1500  # bytes of a record
TURN = 30_000_000  # microseconds between two appends
TURNS = 50  # in a conversation, of two records each
PUT, GET, OUT = 0.005 / 1000, 0.0004 / 1000, 0.09  # US dollars; a LIST costs as a PUT, a DELETE nothing; OUT per GB


def append_records(store: HistoryStore, key: Key, count: int, *, batch: int = 1, first: int = 0) -> Head:
    """Append `count` records, `batch` at a time."""
    head = None
    for at in range(0, count, batch):
        time = 1_760_000_000_000_000 + (first + at) * TURN
        head = store.append(
            key, ["x" * SIZE] * batch, after=head, revision=Revision(f"{first}-{at}", time, None, "info")
        )
    assert head is not None
    return head


def rounds(log: list[Request]) -> int:
    """Return how many rounds of requests there were: how often one had to wait for the answer to another."""
    count, ended = 0, float("-inf")
    for request in sorted(log, key=lambda one: one.begun):
        if request.begun >= ended:
            count, ended = count + 1, request.ended
    return count


def print_counts(name: str, server: Server, *, per: int = 1) -> Counter[str]:
    """Print the requests since the last call, and clear the server's log."""
    kinds = Counter(server.kinds())
    size = sum(request.size for request in server.log)
    each = ", ".join(f"{count / per:.3g} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{name:54} {each:40} {rounds(server.log) if per == 1 else '':>3} rounds  {size / per / 1000:9.1f} kB")
    server.log.clear()
    return kinds


def money(server: Server, store: HistoryStore) -> None:
    """Print what a million turns cost: a load before each, two appends; and the same for two plain designs."""
    key, head = Key("money", "c"), store.append(Key("money", "c"), ["{}"], after=None, revision=Revision("w", 1))
    server.log.clear()
    for turn in range(TURNS):
        store.read(key)
        for at in (2 * turn, 2 * turn + 1):
            revision = Revision(f"m{at}", 1_760_000_000_000_000 + at * TURN, None, "info")
            head = store.append(key, ["x" * SIZE], after=head, revision=revision)
    kinds = Counter(server.kinds())
    sizes = {kind: sum(request.size for request in server.log if request.kind == kind) for kind in kinds}
    records = sum(range(2 * TURNS))  # how many there are at each append, added up; half as many over all loads
    print(f"\na million turns, conversations of {TURNS}{'':10}M PUT, LIST         M GET   GB sent   GB read      USD")
    print_price("this one", kinds["PUT"] + kinds["LIST"], kinds["GET"], sizes["PUT"], sizes["GET"])
    print_price("one object, rewritten", 2 * TURNS, 3 * TURNS, records * SIZE, 3 * records / 2 * SIZE)
    print_price("one object per message", 3 * TURNS, records // 2, 2 * TURNS * SIZE, records / 2 * SIZE)
    print()
    server.log.clear()


def print_price(name: str, puts: float, gets: float, sent: float, read: float) -> None:
    """Print the requests, bytes and US dollars of a million turns, from the counts of one conversation."""
    often = 1e6 / TURNS
    cost, out = often * (puts * PUT + gets * GET), often * read / 1e9 * OUT
    counts = f"{often * puts / 1e6:12.2f} {often * gets / 1e6:13.2f}"
    counts += f" {often * sent / 1e9:9.0f} {often * read / 1e9:9.0f}"
    print(f"{name:44} {counts} {cost:8.2f}, and {out:.2f} if what is read leaves the region")


def main() -> None:
    """Count everything."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"]}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    with serving() as server:
        server.client().create_bucket(Bucket="benchmark")
        url = f"s3://benchmark/history?endpoint_url={server.url}"
        with open_store(url) as store:
            store.append(Key("w", "w"), ["w"], after=None, revision=Revision("w", 1))  # the probe, once per store
            money(server, store)
            head = append_records(store, KEY, 1)
            server.log.clear()
            head = store.append(KEY, ["x" * SIZE], after=head, revision=Revision("a", head.revision.updated + 1))
            print_counts("append, warm", server)
            append_records(store, Key("scope", "thousand"), 1000)
            print_counts("append, of 1,000, two a minute", server, per=1000)
            append_records(store, Key("scope", "long"), 5000, batch=10)
            server.log.clear()
            server.delay = 0.03
            store.read(Key("scope", "long"))
            print_counts("load of 5,000 messages", server)
            store.read(Key("scope", "long"), start=-20)
            print_counts("last 20 of 5,000 messages", server)
            store.read(Key("scope", "long"), stop=0)
            print_counts("head of 5,000 messages", server)
            server.delay = 0
            for at in range(2000):
                append_records(store, Key("listing", f"c{at}"), 1, first=at * 3)
            server.log.clear()
            server.delay = 0.5  # long enough that all requests of a round have started before the first one ends
            store.heads("listing")
            print_counts("page of 20 of 2,000, 40 in an hour", server)
            server.delay = 0
        with open_store(url.replace("history", "exact") + "&recency=exact") as store:
            for at in range(2000):
                append_records(store, Key("listing", f"c{at}"), 1, first=at * 3)
            server.log.clear()
            server.delay = 0.5
            store.heads("listing")
            print_counts("page of 20 of 2,000, recency=exact", server)


if __name__ == "__main__":
    main()
