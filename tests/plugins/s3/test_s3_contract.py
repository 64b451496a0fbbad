"""The storage contract: on moto with one lock, by hour (the default) and exact; with the long tests on Ceph."""

import os
import socket
import uuid
from functools import lru_cache

import boto3
import pytest
from chathistory_s3 import S3Store
from chathistory_s3.bucket import Service
from chathistory_s3.urls import S3ClientSettings
from s3_ceph_server import gateway
from s3_samples import KEY, damage_head, damage_record, lose_markers, remains, revision
from s3_server import CREDENTIALS

from chathistory import open_store
from chathistory.errors import StoreRejected
from chathistory.testing import HistoryStoreContract
from chathistory.testing.contract.listing import Listing, ListingWhileOthersWrite
from chathistory.testing.contract.open_close_fork import OpenCloseFork


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Below:
    """What the suite does below the interface, by `self.client` in `self.bucket`."""

    def remains(self, text):
        return remains(self.client, self.bucket, text, self.prefix)

    def damage_record(self, store, key, position):
        damage_record(self.client, self.bucket, store, key, position)

    def damage_head(self, store, key):
        damage_head(self.client, self.bucket, store, key)

    def lose_index(self, store, key):
        lose_markers(self.client, self.bucket, store, key)


class OnS3(Below):
    recency = "bucket"

    @pytest.fixture
    def store(self, running, bucket, shared_client):
        running.stop_faults()
        self.client, self.bucket, self.prefix = shared_client, bucket, ""
        self.url = f"s3://{bucket}/history?timeout=60&endpoint_url={running.url}&recency={self.recency}"
        with self.reopen(None) as store:
            yield store

    def reopen(self, store):
        """Open a store that knows what moto can do: the tests of the probe ask for it."""
        store = open_store(self.url)
        store._is_probed = True
        return store

    def unreachable_store(self):
        return open_store(f"s3://bucket/history?endpoint_url=http://127.0.0.1:{closed_port()}&timeout=1")


@lru_cache(maxsize=16)
def client_of_process(_process, settings, create=S3ClientSettings.create_client):
    return create(settings)


class TestS3(OnS3, HistoryStoreContract):
    """The whole contract. The stores of a process share a client: making one takes longer than many of the tests.

    In `TestExactListing` each store makes its own.
    """

    @pytest.fixture(autouse=True)
    def _share_clients(self, monkeypatch):
        monkeypatch.setattr(
            S3ClientSettings, "create_client", lambda settings: client_of_process(os.getpid(), settings)
        )


class OfExact:
    recency = "exact"

    def test_the_instance_is_exact(self, store):
        assert type(store) is S3Store
        assert (store.traits.recency, S3Store.traits.recency) == ("exact", "bucket")


class TestExactListing(OfExact, OnS3, Listing, ListingWhileOthersWrite, OpenCloseFork):
    """It differs in the listing."""


@pytest.mark.stress
class TestExactS3(OfExact, OnS3, HistoryStoreContract):
    """All of it."""


@pytest.fixture(scope="module")
def ceph():
    """Ceph's gateway, with a bucket; its client checks that it is what it should be."""
    with gateway() as ceph:
        client = boto3.client("s3", endpoint_url=ceph.url, **CREDENTIALS)
        client.create_bucket(Bucket="bucket")
        ceph.client = client
        yield ceph
        client.close()


@pytest.mark.stress
class TestCeph(Below, HistoryStoreContract):
    """A real object store: its gateway takes ETags without quotes and has no conditional DELETE."""

    @pytest.fixture
    def store(self, ceph):
        self.client, self.bucket, self.prefix = ceph.client, "bucket", uuid.uuid4().hex
        self.url = f"s3://bucket/{self.prefix}?endpoint_url={ceph.url}&addressing=path"
        with open_store(self.url) as store:
            yield store

    def reopen(self, store):
        return open_store(self.url)

    def unreachable_store(self):
        return open_store(f"s3://bucket/history?endpoint_url=http://127.0.0.1:{closed_port()}&timeout=1")

    def test_it_is_the_service_that_it_should_be(self, store):
        store.append(KEY, ["x"], after=None, revision=revision())
        assert store._bucket.service == Service(quotes_etags=False, conditional_delete=False)

    def test_a_wrong_secret_is_refused(self, store, monkeypatch):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with self.reopen(store) as other, pytest.raises(StoreRejected, match="credentials are wrong"):
            other.check()
