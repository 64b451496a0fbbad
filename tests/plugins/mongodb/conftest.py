"""Fixtures of the tests of the MongoDB store: a replica set of one, and a database for each test."""

import contextlib
import itertools

import pymongo
import pytest
from mongodb_servers import replica_set

from chathistory import open_store

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def look_again_at_once(monkeypatch):
    """A driver that has lost a server looks for it again without a pause."""
    monkeypatch.setattr("pymongo.common.MIN_HEARTBEAT_INTERVAL", 0.01)


@pytest.fixture(scope="session")
def member():
    with replica_set() as servers:
        yield servers[0]


@pytest.fixture(scope="session")
def client(member):
    with pymongo.MongoClient(member.address, directConnection=True) as client:
        yield client


@pytest.fixture
def url(member, client):
    database = f"test{next(_numbers)}"
    yield f"mongodb://{member.address}/{database}"
    client.drop_database(database)


@pytest.fixture
def database(url, client):
    return client[url.rpartition("/")[2]]


@pytest.fixture
def store(url):
    with open_store(url) as store:
        yield store


@pytest.fixture
def fail(client):
    """Set the server's fail point for commands; it is off again after the test."""

    def on(*commands, times=1, skip=0, **data):
        mode = {"skip": skip} if skip else {"times": times}
        data = {"failCommands": list(commands), **data}
        client.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})

    def off():
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(off)
        on.off = off
        yield on
