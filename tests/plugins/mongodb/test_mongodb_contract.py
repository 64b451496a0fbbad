"""The storage contract on a real server: a replica set of one; alone, and three members, with the long tests."""

import contextlib
import functools

import pymongo
import pytest
from mongodb_samples import RAW, damage_record
from mongodb_servers import free_port, replica_set, standalone

from chathistory import HistoryStore, open_store
from chathistory.testing import HistoryStoreContract


@pytest.fixture(scope="module")
def connect():
    """Return a function that gives the one client of a server: making one takes longer than most tests."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda server: stack.enter_context(pymongo.MongoClient(f"mongodb://{server}")))


class Mongo(HistoryStoreContract):
    @pytest.fixture
    def store(self, server: str, connect):
        self.url = f"mongodb://{server}/contract"
        self.client = connect(server)
        with open_store(self.url) as store:
            yield store
        for name in ("chathistory_conversations", "chathistory_segments"):  # without the indexes, ten times as fast
            self.client["contract"][name].delete_many({})

    def reopen(self, store: HistoryStore) -> HistoryStore:
        return open_store(self.url)

    def remains(self, text):
        raw = self.client.get_database("contract", codec_options=RAW)
        names = [name for name in raw.list_collection_names() if name.startswith("chathistory_")]
        found = ((name, document) for name in names for document in raw[name].find())
        return [f"{name}: {document['_id']}" for name, document in found if text.encode() in bytes(document.raw)]

    def damage_record(self, store, key, position):
        damage_record(self.client["contract"], key, position)

    def damage_head(self, store, key):
        name = {"s": key.scope, "i": key.id}
        self.client["contract"].chathistory_conversations.update_one({"_id": name}, {"$set": {"end": "9"}})

    def lose_index(self, store, key):
        """No index here can lose an entry: the server keeps them with the documents."""

    def unreachable_store(self) -> HistoryStore:
        return open_store(f"mongodb://127.0.0.1:{free_port()}", serverSelectionTimeoutMS=200)


class TestReplicaSet(Mongo):
    @pytest.fixture
    def server(self, member) -> str:
        return member.address


@pytest.fixture(scope="module")
def alone():
    with standalone() as server:
        yield server.address


@pytest.fixture(scope="module")
def three():
    with replica_set(3) as servers:
        yield ",".join(server.address for server in servers)


@pytest.mark.stress
class TestStandalone(Mongo):
    @pytest.fixture
    def server(self, alone) -> str:
        return alone


@pytest.mark.stress
class TestThreeMembers(Mongo):
    @pytest.fixture
    def server(self, three) -> str:
        return three
