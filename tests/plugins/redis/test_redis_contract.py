"""The storage contract: on Valkey, on a Cluster of three masters, and on older Redis.

`make test` runs it on Valkey, and on the Cluster the part in which the slots matter.
"""

from __future__ import annotations

import pytest
from redis._parsers.commands import CommandsParser
from redis_servers import DEBIAN, OLDEST, Server, free_port

from chathistory import open_store
from chathistory.testing import HistoryStoreContract
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.damage import DamagedHeads
from chathistory.testing.contract.forget_and_delete import Deleting
from chathistory.testing.contract.listing import Listing
from chathistory.testing.contract.scan_without_index import CompleteWalks


class OnServer(ContractTest):
    """What the contract needs of a server.

    Each test has a prefix of its own, so that nothing of the others is in its store. A subclass gives `url`, and with
    `raw` a client that sees all keys there.
    """

    @pytest.fixture
    def url(self, valkey):
        return valkey.url

    @pytest.fixture
    def raw(self, valkey_client):
        return valkey_client

    @pytest.fixture
    def store(self, url, raw, prefix):
        self.url, self.prefix, self.raw = f"{url}?prefix={prefix}", prefix, raw
        with open_store(self.url) as store:
            yield store

    def reopen(self, store):
        return open_store(self.url)

    def unreachable_store(self):
        return open_store(f"{self.url.split('://')[0]}://127.0.0.1:{free_port()}")

    def remains(self, text):
        names = list(self.raw.scan_iter(f"{self.prefix}*", count=1000))
        return [repr(name) for name in names if text.encode() in b" ".join([name, *raw_parts(self.raw, name)])]

    @pytest.fixture(autouse=True)
    def eviction_policy(self, raw):
        """Have the servers say afterwards what they said before."""
        self.has_evicted = False
        yield
        if self.has_evicted:
            raw.config_set("maxmemory-policy", "noeviction")

    def lose_index(self, store, key):
        names = store._layout.names(key)
        self.has_evicted = True
        self.raw.config_set("maxmemory-policy", "allkeys-lru")  # memory is never full here
        self.raw.zrem(names.listing, names.conversation[len(names.listing) + 1 :])

    def damage_record(self, store, key, position):
        name = store._layout.names(key).conversation
        start = int(self.raw.lindex(name, -1).split(b"\n")[1])
        element = self.raw.lindex(name, position - start)
        self.raw.lset(name, position - start, bytes([element[0] ^ 0x80]) + element[1:])

    def damage_head(self, store, key):
        name = store._layout.names(key).conversation
        head = self.raw.lindex(name, -1)
        self.raw.lset(name, -1, bytes([head[0] ^ 0x40]) + head[1:])


def raw_parts(client, name) -> list[bytes]:
    """Return all bytes that a key holds, whatever its type is."""
    kind = client.type(name)
    if kind == b"list":
        return client.lrange(name, 0, -1)
    if kind == b"set":
        return list(client.smembers(name))
    if kind == b"zset":
        return client.zrange(name, 0, -1)
    if kind == b"hash":
        return [part for pair in client.hgetall(name).items() for part in pair]
    if kind == b"stream":
        return [part for _, fields in client.xrange(name) for pair in fields.items() for part in pair]
    return [client.get(name) or b""]


class TestValkey(OnServer, HistoryStoreContract):
    """Valkey 9."""


COMMANDS: dict[str, object] = {}


class OnCluster(OnServer):
    """Three masters: what belongs together is in one slot, what does not is on all of them."""

    @pytest.fixture(autouse=True)
    def parse_commands_once(self, monkeypatch):
        """Keep the answer to COMMAND, which every new client of a Cluster asks for: 150 KB, most of its time."""

        def initialize(parser, client, real=CommandsParser.initialize):
            if not COMMANDS:
                real(parser, client)
                COMMANDS.update(parser.commands)
            parser.commands = dict(COMMANDS)

        monkeypatch.setattr(CommandsParser, "initialize", initialize)

    @pytest.fixture
    def url(self, cluster):
        return cluster.url

    @pytest.fixture
    def raw(self, cluster_client):
        return cluster_client


class TestClusterBySlots(OnCluster, Listing, Deleting, DamagedHeads, CompleteWalks):
    """The part that depends on where the slots are: one call concerns the keys of many slots, or of all.

    What concerns a single conversation runs the same scripts as on one server. `TestCluster` tests it as well.
    """


@pytest.mark.wide
class TestCluster(OnCluster, HistoryStoreContract):
    """The whole contract."""


@pytest.fixture(scope="module", params=[OLDEST, DEBIAN])
def older(request):
    with Server(binary=request.param) as server:
        yield server


@pytest.mark.stress
class TestOlder(OnServer, HistoryStoreContract):
    """Redis 6.2 and 7.0."""

    @pytest.fixture
    def url(self, older):
        return older.url

    @pytest.fixture
    def raw(self, older):
        with older.client() as client:
            yield client
