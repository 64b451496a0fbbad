"""What listing, export and copy cost at 20,000 conversations, on each backend. A script; it takes names of backends.

    fill          conversations of two messages, stored one by one
    page          the newest 20, and 20 from the middle
    filtered      the newest 20 with a tag that one in ten has; one page of a tag that none has (scans 1,000 heads)
    walk          all, 500 at a time
    export        to a file (JSON lines, gzip), and back into the memory store
    copy          into the memory store, four at once, each read back and compared

The servers are those of the tests. The S3 server is one process in Python, which is most of what s3 costs here. Set
`COUNT` in the environment for another number of conversations.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chathistory import History, open_store

TESTS = Path(__file__).parents[1]
COUNT = int(os.environ.get("COUNT", "20000"))
TEXT = "The quick brown fox jumps over the lazy dog, and says what it thinks about that. "


@contextlib.contextmanager
def url_of(backend: str, folder: Path) -> Iterator[str]:
    """Start the server that a backend needs, and yield the URL of an empty store."""
    sys.path.append(str(TESTS / "plugins" / backend))
    if backend == "redis":
        from redis_servers import Server

        with Server() as server:
            yield server.url
    elif backend == "mongodb":
        from mongodb_servers import replica_set

        with replica_set() as servers:
            yield f"mongodb://{servers[0].address}/bench"
    elif backend == "s3":
        from s3_server import CREDENTIALS, serving

        names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
        os.environ |= {names[name]: CREDENTIALS[name] for name in names}
        with serving() as server:
            server.client().create_bucket(Bucket="bench")
            yield f"s3://bench/h?endpoint_url={server.url}&region=us-east-1"
    else:
        yield {"memory": "memory:", "file": f"file:{folder}/store"}[backend]


def fill(history: History) -> None:
    """Store the conversations, eight at once."""

    def one(number: int) -> None:
        chat = history.conversation(f"chat/{number}")
        chat.append([{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT * 3}])
        if number % 10 == 0:
            chat.annotate(tags=["tenth"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(COUNT)))


def measure(name: str, call: Callable[[], object], *, turns: int = 1, of: int = 0) -> None:
    """Print the median time of a call, and that time divided by the number of conversations, `of`."""
    durations = []
    for _ in range(turns):
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    middle = statistics.median(durations)
    each = f"{middle / of * 1e6:10.0f} us each" if of else ""
    print(f"  {name:28} {middle * 1e3:10.1f} ms {each}", flush=True)


def measure_backend(backend: str, folder: Path) -> None:
    """Fill a store and measure everything on it."""
    with url_of(backend, folder) as url, open_store(url) as store:
        history = History(store)
        print(f"{backend}, {COUNT:,} conversations")
        measure("fill", lambda: fill(history), of=COUNT)
        after = None
        for _ in range(COUNT // 1000):
            after = history.list(limit=500, after=after).next
        measure("page of 20", lambda: history.list(limit=20), turns=11)
        measure("page of 20 from the middle", lambda: history.list(limit=20, after=after), turns=11)
        measure("filtered, one in ten", lambda: history.list(limit=20, tag="tenth"), turns=5)
        measure("filtered, none", lambda: history.list(limit=20, tag="none"), turns=3)
        measure("walk", lambda: walk(history), of=COUNT)
        packed = folder / f"{backend}.jsonl.gz"
        measure("export", lambda: history.export_to(packed), of=COUNT)
        with open_store("memory:") as fresh, open_store("memory:") as copy:
            measure("import into memory", lambda: History(fresh).import_from(packed), of=COUNT)
            measure("copy into memory", lambda: history.copy_to(copy), of=COUNT)
            assert sum(1 for _ in fresh.keys()) == sum(1 for _ in copy.keys()) == COUNT  # noqa: SIM118


def walk(history: History) -> None:
    """Walk through all pages."""
    found, after = 0, None
    while True:
        page = history.list(limit=500, after=after)
        found += len(page.items)
        after = page.next
        if after is None:
            break
    assert found == COUNT, found


def main() -> None:
    """Measure the chosen backends in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="bench-history-"))
    try:
        for backend in sys.argv[1:] or ("memory", "file", "redis", "mongodb", "s3"):
            measure_backend(backend, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
