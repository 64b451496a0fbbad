"""The races of the contract between real processes, on every backend that processes can share."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from mongodb_servers import replica_set
from redis_servers import Server
from s3_server import CREDENTIALS, serving

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1800)]

RACES = [word for number in (2, 4, 7, 9, 10) for word in ("--only", str(number))]


@contextmanager
def _file():
    yield "file:./history", {}


@contextmanager
def _template():
    yield "template:./history.db?timeout=60", {}


@contextmanager
def _redis():
    with Server() as server:
        yield f"{server.url}?prefix=stress", {}


@contextmanager
def _mongodb():
    with replica_set() as [server]:
        yield f"mongodb://{server.address}/stress", {}


@contextmanager
def _s3():
    with serving() as server:
        client = server.client()
        client.create_bucket(Bucket="stress")
        client.close()
        names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
        environment = {name: CREDENTIALS[value] for name, value in names.items()}
        region = {"AWS_DEFAULT_REGION": CREDENTIALS["region_name"]}
        yield f"s3://stress/history?endpoint_url={server.url}", environment | region


BACKENDS = {"file": _file, "template": _template, "redis": _redis, "mongodb": _mongodb, "s3": _s3}


@pytest.mark.parametrize("run", range(3))
@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
def test_processes_race_through_every_backend(plugin, command, backend, run):
    plugin("template", "chathistory_template")
    with backend() as (url, environment):
        done = command("certify", url, "--json", *RACES, **environment)
    assert done.code == 0, done.output + done.errors
    assert done.data["passed"] is True
    assert all(each["passed"] for each in done.data["guarantees"])
