"""The URL of an empty store on each backend, with a server that is started for the campaign and ended with it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent.parent
BACKENDS = ("file", "redis", "mongodb", "s3")

for folder in ("plugins/redis", "plugins/mongodb", "plugins/s3"):  # the modules that start servers
    sys.path.insert(0, str(TESTS / folder))


@contextmanager
def store_url(backend: str, folder: Path | None = None) -> Iterator[str]:
    """Yield the URL of an empty store on `backend`; its data is removed afterwards unless a `folder` is given."""
    with {"file": _file, "redis": _redis, "mongodb": _mongodb, "s3": _s3}[backend](folder) as url:
        yield url


@contextmanager
def _file(folder: Path | None) -> Iterator[str]:
    if folder is not None:
        yield f"file:{folder}"
        return
    with tempfile.TemporaryDirectory(prefix="campaign-") as made:
        yield f"file:{made}/history"


@contextmanager
def _redis(_folder: Path | None) -> Iterator[str]:
    from redis_servers import Server  # loads the client library

    with Server("--appendonly", "yes") as server:
        yield f"{server.url}?prefix=campaign"


@contextmanager
def _mongodb(_folder: Path | None) -> Iterator[str]:
    from mongodb_servers import replica_set  # loads the client library

    with replica_set() as servers:
        yield f"mongodb://{servers[0].address}/campaign"


@contextmanager
def _s3(_folder: Path | None) -> Iterator[str]:
    from s3_server import CREDENTIALS, serving  # loads the client library

    os.environ |= {
        "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": CREDENTIALS["region_name"],
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with serving() as server:
        client = server.client()
        client.create_bucket(Bucket="campaign")
        client.close()
        yield f"s3://campaign/history?endpoint_url={server.url}"
