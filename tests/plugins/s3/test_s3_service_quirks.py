"""The probe finds each difference between services; the store refuses it or works around it."""

import pytest
from botocore.config import Config
from chathistory_s3 import S3Store
from chathistory_s3.bucket import Service
from s3_samples import KEY, bodies, make_conversation, objects, revision, texts
from s3_service_quirks import QUIRKS, REVIVES

from chathistory import Key, open_store
from chathistory.errors import Conflict, StoreRejected, StoreUnavailable

pytestmark = pytest.mark.wide

REFUSED = {
    "PUT ignores If-None-Match": "ignores the condition of a PUT with If-None-Match",
    "PUT ignores If-Match": "ignores the condition of a PUT with If-Match",
    "PUT ignores both": "ignores the condition of a PUT with If-None-Match",
    "PUT takes any ETag that was one": "ETag of an older state",
    "conditional PUT is not implemented": "NotImplemented.*Use AWS S3",
    "conditional PUT is a bad request": "InvalidArgument.*Use AWS S3",
    "PUT with If-Match is not implemented": "NotImplemented",
    "409 for 412": "answers 409",
    REVIVES: "creates an object although If-Match finds no object",
    "PUT stores the frames of chunks": "changes the bytes that it stores",
    "GET has another ETag": "one ETag for a write and another for a read",
}
"""The guard cannot rest on these: the first write says why, and nothing is written."""

USED = {
    "If-Match without quotes": Service(quotes_etags=False, conditional_delete=True),
    "DELETE ignores If-Match": Service(quotes_etags=True, conditional_delete=False),
    "DELETE with If-Match is not implemented": Service(quotes_etags=True, conditional_delete=False),
    "DELETE with If-Match always fails": Service(quotes_etags=True, conditional_delete=False),
    "DeleteObjects is not implemented": Service(),
    "DeleteObjects wants Content-MD5": Service(),
    "DeleteObjects does nothing and says nothing": Service(),
    "checksums of PUT are not implemented": Service(),
    "GET knows no ranges": Service(),
    "listings ignore where to start": Service(),
    "listings give no token": Service(),
    "listings without times and sizes": Service(),
}
"""These are done without."""

BLIND = {
    "listings repeat themselves": StoreRejected,
    "listings are in no order": StoreRejected,
    "listings are empty answers": StoreUnavailable,
    "listings are of somebody else": StoreUnavailable,
}
"""Listings that cannot be relied on are an error, and never a shorter listing."""


@pytest.fixture
def url(server, bucket):
    return f"s3://{bucket}/history?timeout=60&endpoint_url={server.url}"


def hasty(url):
    """Open a store that repeats no request: the result would be the same each time."""
    store = open_store(url)
    store._bucket._timeout = 0
    return store


def test_every_quirk_is_tried():
    assert {*REFUSED, *USED, *BLIND, "PUT has no ETag"} == set(QUIRKS)


@pytest.mark.parametrize("quirk", REFUSED)
def test_what_the_guard_cannot_rest_on_is_refused(server, client, bucket, url, quirk):
    with open_store(url) as store:
        head = make_conversation(store, 2)
    server.quirks = (quirk,)
    with hasty(url) as store:
        for _ in range(2):
            with pytest.raises(StoreRejected, match=REFUSED[quirk]):
                store.append(KEY, ["x"], after=head, revision=revision())
        with pytest.raises(StoreRejected):
            store.delete(KEY)
    server.stop_faults()
    with open_store(url) as store:
        assert bodies(store) == texts(0, 2)
        assert store.remove_leftovers("nobody").complete
    assert not objects(client, bucket, "history/probe/")


@pytest.mark.parametrize("quirk", USED)
def test_what_can_be_done_without_is_done_without(server, client, bucket, url, quirk):
    """A life of conversations, with segments, pages, forgets, deletes and an erasure."""
    server.quirks, server.page = (quirk,), 4
    with open_store(url) as store, open_store(url) as other:
        head = make_conversation(store, 40, size=10_000, batch=8)
        assert store._bucket.service == USED[quirk]
        assert bodies(other) == texts(0, 40, 10_000)
        assert bodies(other, start=17) == texts(17, 40, 10_000)
        with pytest.raises(Conflict):
            other.append(KEY, ["x"], after=None, revision=revision())
        head = other.append(KEY, texts(40, 41, 10_000), after=head, revision=revision())
        keys = [Key(KEY.scope, f"c{at}") for at in range(5)]
        heads = [make_conversation(store, 1, key=key) for key in keys]
        walked, cursor = [], None
        while True:
            page = other.heads(KEY.scope, after=cursor, limit=3)
            walked, cursor = [*walked, *page.items], page.next
            if cursor is None:
                break
        assert walked == [*heads[::-1], head]
        assert sorted(store.keys()) == sorted(other.scan_keys()) == sorted([KEY, *keys])
        store.forget(KEY, before=13)
        assert bodies(other) == texts(13, 41, 10_000)
        assert store.delete(KEY) is True
        assert store.delete(KEY) is False
        assert (store.read(KEY), other.read(KEY)) == (None, None)
        with pytest.raises(Conflict):
            other.append(KEY, ["late"], after=head, revision=revision())
        make_conversation(other, 3)
        assert bodies(store) == texts(0, 3)
        store.sweep(now=4e9, grace=0)
        for key in list(store.scan_keys()):
            store.delete(key)
        report = store.remove_leftovers(KEY.scope)
        assert (report.left, report.complete) == ((), True)
    for name in objects(client, bucket):
        assert client.get_object(Bucket=bucket, Key=name)["Body"].read().startswith(b"deleted ")


@pytest.mark.parametrize("quirk", BLIND)
def test_a_listing_that_cannot_be_relied_on_is_an_error(server, url, quirk):
    with hasty(url) as store:
        keys = [Key(KEY.scope, f"c{at}") for at in range(9)]
        for key in keys:
            make_conversation(store, 1, key=key)
        server.quirks, server.page = (quirk,), 4
        for walk in (
            lambda: store.heads(KEY.scope),
            lambda: list(store.keys()),
            lambda: list(store.scan_keys(KEY.scope)),
            lambda: list(store.damaged_keys()),
            lambda: store.remove_leftovers(KEY.scope),
            lambda: store.sweep(now=4e9),
        ):
            with pytest.raises(BLIND[quirk]):
                walk()
        server.stop_faults()
        assert sorted(store.keys()) == keys
        assert len(store.heads(KEY.scope).items) == 9


def test_a_put_without_an_etag_proves_nothing(server, url):
    """It was done, but nothing could be guarded by what it says."""
    with open_store(url) as store:
        head = make_conversation(store, 2)
        server.quirks = ("PUT has no ETag",)
        with open_store(url) as other, pytest.raises(StoreUnavailable, match="could not be determined") as caught:
            other.append(KEY, ["x"], after=head, revision=revision())
        assert caught.value.outcome == "not stored"
        assert store.append(KEY, texts(2, 3), after=head, revision=revision()).end == 3, (
            "this one knows its own work again"
        )
        server.stop_faults()
        assert bodies(store) == texts(0, 3)


def test_501_is_a_refusal_and_no_outage(server, url):
    """It is reported at once: no number of tries makes a service support a request."""
    server.quirks = ("conditional PUT is not implemented",)
    with open_store(url) as store:
        with pytest.raises(StoreRejected, match="does not support this kind of request"):
            make_conversation(store, 1)
        assert server.kinds() == ["PUT"]


def test_the_error_says_how_to_configure_a_client_that_adds_checksums(server, running, bucket):
    """What boto3 does if nothing else is said; a service that does not know it refuses, or stores the frames."""
    client = running.client(request_checksum_calculation="when_supported")
    server.quirks = ("checksums of PUT are not implemented",)
    with S3Store(client, bucket=bucket) as store, pytest.raises(StoreRejected, match="NotImplemented"):
        make_conversation(store, 1)
    client.close()


def test_no_checksums_are_sent_unless_configured(server, url):
    with open_store(url) as store:
        config = store._bucket.get_client().meta.config
        assert isinstance(config, Config)
        assert config.request_checksum_calculation == config.response_checksum_validation == "when_required"


def test_a_probe_that_vanishes_proves_nothing(server, client, bucket, url):
    """Somebody cleans up while a store looks at the service: it looks again, and does not refuse it."""
    with open_store(url) as store:
        put = store._bucket.replace
        removed = []

        def replace(name, data, *, etag):
            if not removed and data == b"4":
                removed.append(name)
                client.delete_object(Bucket=bucket, Key=name)
            return put(name, data, etag=etag)

        store._bucket.replace = replace
        assert make_conversation(store, 1).end == 1
        assert removed
        assert store._bucket.service == Service()


def test_what_a_probe_costs(server, url):
    with open_store(url) as store:
        store._ensure_probed()
        assert server.kinds() == ["PUT"] * 5 + ["GET", "PUT", "DELETE", "GET", "DELETE", "GET"]
        store._ensure_probed()
        assert len(server.log) == 11
