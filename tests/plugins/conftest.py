"""Fixtures with a store of each of the five backends, on real servers that run for the whole session."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace

import pytest
from chathistory_redis.urls import OPTIONS
from mongodb_servers import replica_set
from redis_servers import Server
from s3_server import CREDENTIALS, serving

from chathistory import open_store

_numbers = itertools.count()
BACKENDS = ("memory", "file", "redis", "mongodb", "s3")


@pytest.fixture(scope="session")
def redis_url():
    with Server() as server:
        yield server.url


@pytest.fixture(scope="session")
def mongodb_url():
    with replica_set() as servers:
        yield f"mongodb://{servers[0].address}"


@pytest.fixture(scope="session")
def s3_server():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def _patient_redis(monkeypatch):
    """Let clients wait long for a busy machine; a test about a time-out sets its own."""
    for name in ("socket_timeout", "socket_connect_timeout"):
        monkeypatch.setitem(OPTIONS, name, replace(OPTIONS[name], default=100.0))


@pytest.fixture
def url_of(request, tmp_path, monkeypatch):
    """Return the URL of a new and empty store of a backend, the same for other processes."""
    return _url_maker(request, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def module_url_of(request, tmp_path_factory):
    """Return the URL of a new and empty store that all tests of a module share."""
    with pytest.MonkeyPatch.context() as patch:
        yield _url_maker(request, tmp_path_factory.mktemp("stores"), patch)


def _url_maker(request, folder, monkeypatch):
    def url_of(backend: str) -> str:
        number = next(_numbers)
        if backend == "memory":
            return "memory:"
        if backend == "file":
            return f"file:{folder}/store{number}"
        if backend == "redis":
            return f"{request.getfixturevalue('redis_url')}?prefix=history{number}:"
        if backend == "mongodb":
            return f"{request.getfixturevalue('mongodb_url')}/history{number}"
        return _bucket(request.getfixturevalue("s3_server"), f"history-{number}")

    for name, value in {
        "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": CREDENTIALS["region_name"],
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return url_of


def _bucket(server, name):
    with contextlib.closing(server.client()) as client:
        client.create_bucket(Bucket=name)
    return f"s3://{name}/history?endpoint_url={server.url}"


@pytest.fixture
def new(url_of):
    """Open a new store of a backend; all are closed after the test."""
    with contextlib.ExitStack() as opened:
        yield lambda backend: opened.enter_context(open_store(url_of(backend)))


@pytest.fixture(params=BACKENDS)
def store(request, new):
    return new(request.param)
