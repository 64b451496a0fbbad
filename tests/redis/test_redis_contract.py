"""The Redis backend keeps the contract: on Valkey, on a Cluster of three masters, and on older Redis."""

from __future__ import annotations

import pytest
from redis_servers import DEBIAN, OLDEST, Server, free_port

from chathistory import open_store
from chathistory.testing import HistoryStoreContract


class OnServer(HistoryStoreContract):
    """Each test has a prefix of its own, so that nothing of the others is in its store."""

    @pytest.fixture
    def url(self, valkey):
        return valkey.url

    @pytest.fixture
    def store(self, url, prefix):
        self.url = f"{url}?prefix={prefix}"
        with open_store(self.url) as store:
            yield store

    def reopen(self, store):
        return open_store(self.url)

    def dead_store(self):
        return open_store(f"{self.url.split('://')[0]}://127.0.0.1:{free_port()}", socket_connect_timeout=1)


class TestValkey(OnServer):
    """Valkey 9."""


class TestCluster(OnServer):
    """Three masters: what belongs together is in one slot, what does not is on all of them."""

    @pytest.fixture
    def url(self, cluster):
        return cluster.url


@pytest.fixture(scope="module", params=[OLDEST, DEBIAN])
def older(request):
    with Server(binary=request.param) as server:
        yield server


@pytest.mark.stress
class TestOlder(OnServer):
    """Redis 6.2 and 7.0."""

    @pytest.fixture
    def url(self, older):
        return older.url
