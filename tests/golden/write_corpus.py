"""Write a new version of the golden corpus, with the code as it is now: `python tests/golden/write_corpus.py format-3`.

An existing folder is never changed: golden data are only added to. The servers of the tests are started for it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
for folder in ("golden", "support", "plugins/file", "plugins/redis", "plugins/mongodb", "plugins/s3"):
    sys.path.insert(0, str(ROOT / "tests" / folder))

from golden_corpus import HERE, at_read_time, describe_store  # noqa: E402
from golden_scenario import record_scenario, repeat_calls  # noqa: E402
from golden_stores import SMALL, dump_store, to_json  # noqa: E402
from mongodb_servers import replica_set  # noqa: E402
from redis_servers import Server  # noqa: E402
from s3_server import CREDENTIALS, serving  # noqa: E402

from chathistory import History, HistoryStore, open_store  # noqa: E402


@contextlib.contextmanager
def start_servers(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the URL of an empty store of each backend."""
    names = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}
    names["region_name"] = "AWS_DEFAULT_REGION"
    with contextlib.ExitStack() as stack:
        for name, variable in names.items():
            stack.enter_context(patch.dict(os.environ, {variable: CREDENTIALS[name]}))
        redis = stack.enter_context(Server())
        mongod = stack.enter_context(replica_set())[0]
        s3 = stack.enter_context(serving())
        s3.quirks = ("DELETE with If-Match is not implemented",)  # so that deleted conversations leave tombstones
        with contextlib.closing(s3.client()) as client:
            client.create_bucket(Bucket="golden")
        yield {
            "file": f"file:{folder}/store",
            "redis": f"{redis.url}?prefix=golden:",
            "mongodb": f"mongodb://{mongod.address}/golden",
            "s3": f"s3://golden/history?endpoint_url={s3.url}",
        }


def write_corpus(corpus: Path) -> None:
    """Write the stores of all backends, the exports, and what is expected; the folder must not exist."""
    corpus.mkdir()
    calls = record_scenario()
    with contextlib.ExitStack() as stack:
        for name, size in SMALL.items():
            stack.enter_context(patch(name, size))
        urls = stack.enter_context(start_servers(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        for url in urls.values():
            with open_store(url) as store:
                repeat_calls(calls, store)
            dump_store(url, corpus)
    with open_store("memory:") as store:
        repeat_calls(calls, store)
        write_expected(store, corpus)


def write_expected(store: HistoryStore, corpus: Path) -> None:
    """Write what is read from a store, and exports of it."""
    (corpus / "expected").mkdir()
    with at_read_time():
        for name, values in describe_store(store):
            (corpus / "expected" / f"{name}.json").write_bytes(f"{to_json(values)}\n".encode())
        for name in ("export.jsonl", "export.jsonl.gz"):
            History(store).export_to(corpus / name, all_scopes=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the name of the new folder, such as format-3")
    folder = HERE / parser.parse_args().name
    if folder.exists():
        parser.error(f"{folder} exists already; golden data are only added to, so choose another name")
    write_corpus(folder)
