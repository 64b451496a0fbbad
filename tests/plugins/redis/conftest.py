"""Fixtures of the tests of the Redis store: one Valkey and one Cluster for the whole run, others for single tests."""

from __future__ import annotations

import uuid

import pytest
import redis
from redis_servers import Cluster, Server, ended

from chathistory import open_store


@pytest.fixture(scope="session")
def valkey():
    with Server() as server:
        yield server


@pytest.fixture(scope="session")
def cluster():
    with ended(Cluster()) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def valkey_client(valkey):
    with valkey.client() as client:
        yield client


@pytest.fixture(scope="session")
def cluster_client(cluster):
    """A client that sees the keys of all masters."""
    with redis.RedisCluster(host="127.0.0.1", port=cluster.masters[0].port) as client:
        yield client


@pytest.fixture
def server():
    """A server that a test may break."""
    with Server() as server:
        yield server


@pytest.fixture
def prefix():
    return f"{uuid.uuid4().hex}:"


@pytest.fixture
def store(valkey, prefix):
    with open_store(valkey.url, prefix=prefix) as store:
        yield store
