"""The contract, on moto behind one lock: by hour as is the default, and exact."""

import socket

import pytest
from chathistory_s3 import ExactS3Store, S3Store

from chathistory import open_store
from chathistory.testing import HistoryStoreContract
from chathistory.testing.contract.lifecycle import Lifecycle
from chathistory.testing.contract.listing import Listing, ListingWhileOthersWrite


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class OnS3:
    recency = "bucket"

    @pytest.fixture
    def store(self, running, bucket, shared_client):
        running.mend()
        self.url = f"s3://{bucket}/history?endpoint_url={running.url}&recency={self.recency}"
        with open_store(self.url) as store:
            yield store

    def reopen(self, store):
        return open_store(self.url)

    def dead_store(self):
        return open_store(f"s3://bucket/history?endpoint_url=http://127.0.0.1:{closed_port()}&timeout=1")


class TestS3(OnS3, HistoryStoreContract):
    """The whole contract."""


class OfExact:
    recency = "exact"

    def test_the_instance_is_exact(self, store):
        assert type(store) is ExactS3Store
        assert (store.traits.recency, S3Store.traits.recency) == ("exact", "bucket")


class TestExactListing(OfExact, OnS3, Listing, ListingWhileOthersWrite, Lifecycle):
    """What is different about it is the listing."""


@pytest.mark.stress
class TestExactS3(OfExact, OnS3, HistoryStoreContract):
    """All of it."""
