"""Connections that break anywhere, in headers and bodies: a typed error, and another try."""

import http.client
import http.server
import itertools
import os
import random
import ssl
import threading
import zlib
from dataclasses import dataclass

import botocore.awsrequest
import botocore.exceptions
import botocore.parsers
import pytest
import urllib3.exceptions
import urllib3.response
from chathistory_s3 import S3Store
from chathistory_s3.bucket import Service
from s3_proxy import CuttingProxy
from s3_samples import KEY, bodies, head_of, make_conversation, open_s3_store, revision, texts

from chathistory import Key, open_store
from chathistory.errors import CorruptRecord, StoreUnavailable
from chathistory.storage.values import Head

pytestmark = pytest.mark.wide

SIZE = 10_000
_numbers = itertools.count()


@dataclass(frozen=True)
class Work:
    """An operation through the proxy: the content before it, and a check of the result."""

    records: int
    do: object
    check: object = None


def _same(expected):
    def check(store, head, result):
        assert result == expected, "another result than without a cut"

    return check


def _is(end):
    def check(store, head, result):
        assert result.end == end
        assert bodies(store) == texts(0, end, SIZE), "a record is lost, doubled or altered"

    return check


def _append(store, head, count):
    end = head.end if head else 0
    return store.append(KEY, texts(end, end + count, SIZE), after=head, revision=revision())


def _check_forgotten(store, head, result):
    assert (result.start, bodies(store)) == (7, texts(7, 30, SIZE))


def _check_deleted(store, head, result):
    assert result is True
    assert head_of(store) is None


def _restored(store, head):
    found = store.find_records(KEY)
    records = store.read_found(found, start=0, stop=30)
    assert [record.body for record in records] == texts(0, 30, SIZE)
    return store.restore_head(found, Head(KEY, 0, found.end, revision()))


def _swept(store, head):
    done = store.sweep(now=0)
    return done.expired, done.damaged


def _probed(store, head):
    store._is_probed = False
    store._ensure_probed()
    return store._bucket.service


def _left(store, head):
    report = store.remove_leftovers("unknown")
    return report.left, report.complete


WORKS = {
    "read the tail": Work(9, lambda store, head: bodies(store), _same(texts(0, 9, SIZE))),
    "read segments": Work(40, lambda store, head: bodies(store), _same(texts(0, 40, SIZE))),
    "look at the head": Work(9, lambda store, head: store.read(KEY, stop=0).head.end, _same(9)),
    "page": Work(
        1,
        lambda store, head: [row.key.id for row in store.heads("pages", limit=3).items],
        _same(["c6", "c5", "c4"]),
    ),
    "keys": Work(
        1, lambda store, head: sorted(key.id for key in store.keys("pages")), _same([f"c{at}" for at in range(7)])
    ),
    "scan": Work(
        1, lambda store, head: sorted(key.id for key in store.scan_keys("pages")), _same([f"c{at}" for at in range(7)])
    ),
    "damaged keys": Work(1, lambda store, head: list(store.damaged_keys("pages")), _same([])),
    "sweep": Work(1, _swept, _same((0, 0))),
    "probe": Work(1, _probed, _same(Service())),
    "leftovers": Work(1, _left, _same(((), True))),
    "create": Work(0, lambda store, head: _append(store, head, 2), _is(2)),
    "create a large one": Work(0, lambda store, head: _append(store, head, 20), _is(20)),
    "append": Work(9, lambda store, head: _append(store, head, 2), _is(11)),
    "append that spills and absorbs": Work(26, lambda store, head: _append(store, head, 12), _is(38)),
    "forget": Work(30, lambda store, head: store.forget(KEY, before=7), _check_forgotten),
    "delete": Work(30, lambda store, head: store.delete(KEY, version=head.revision.version), _check_deleted),
    "restore": Work(30, _restored, _is(30)),
}
READS = {"probe", "read the tail", "read segments", "look at the head", "page", "keys", "scan", "damaged keys", "sweep",
         "leftovers"}  # fmt: skip


class Place:
    """A prefix with what a work needs, for as many times as it is done."""

    def __init__(self, client, bucket, proxied):
        self.client, self.bucket, self.proxied = client, bucket, proxied

    def prepared(self, name):
        """Return a store through the proxy, one without it, and the current head."""
        work = WORKS[name]
        where = {"bucket": self.bucket, "prefix": f"p{next(_numbers)}"}
        truth = open_s3_store(self.client, **where)
        head = make_conversation(truth, work.records, size=SIZE, batch=6) if work.records else None
        for at in range(7 if name in READS else 0):
            make_conversation(truth, 1, key=Key("pages", f"c{at}"))
        store = open_s3_store(self.proxied, **where)
        return work, store, truth, head


@pytest.fixture(scope="module")
def proxy(running):
    with CuttingProxy(int(running.url.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def place(client, bucket, server, proxy):
    port, server.url = server.url, proxy.url
    proxied = server.client()
    server.url = port
    proxy.begin()
    server.page = 3
    yield Place(client, bucket, proxied)
    proxy.begin()
    proxied.close()


def chosen(chance, sizes):
    """Return an answer and how much of it comes: all places of its bytes are as likely, and both of its ends more."""
    number = chance.randrange(len(sizes))
    size = sizes[number]
    return number, chance.choice((chance.randrange(size), chance.randrange(size), size - 1, max(size - 20, 0)))


def campaign(place, proxy, name, count, *, first=0):
    """Do a work until so many answers were cut, one each time; return how many were.

    Where answers come side by side, another one may have the number that was chosen, and end before the cut.
    """
    work, store, truth, head = place.prepared(name)
    proxy.begin()
    work.check(truth, head, work.do(store, head))
    sizes = list(proxy.sizes)
    assert sizes
    before = proxy.cuts
    for seed in range(first, first + 4 * count):
        if proxy.cuts - before >= count:
            break
        chance = random.Random(f"{name} {seed}")
        if name not in READS:
            work, store, truth, head = place.prepared(name)
        number, offset = chosen(chance, sizes)
        how = chance.choice(("close", "reset"))
        proxy.begin((number, offset, how))
        result = work.do(store, head)
        proxy.begin()
        try:
            work.check(truth, head, result)
        except AssertionError as error:
            raise AssertionError(f"{name}: answer {number} of {sizes} cut after {offset} bytes by {how}") from error
        assert [key.id for key in truth.keys(KEY.scope)] == ([] if name == "delete" else [KEY.id])
    return proxy.cuts - before


@pytest.mark.parametrize("name", WORKS)
def test_answers_that_are_cut_at_any_byte(place, proxy, name):
    count = 10 if name in READS else 4
    assert campaign(place, proxy, name, count) >= count


@pytest.mark.stress
@pytest.mark.parametrize("name", WORKS)
def test_many_answers_that_are_cut_at_any_byte(place, proxy, name):
    """2,000 in all, or CUTS of each work."""
    count = int(os.environ.get("CUTS", "125"))
    assert campaign(place, proxy, name, count, first=1000) >= count


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_an_answer_that_stays_away_is_given_up(bucket, client, running, proxy, share):
    """The rest of a body never comes: that is reported after the time that the store waits."""
    with open_s3_store(client, bucket, "hang") as truth:
        make_conversation(truth, 9, size=SIZE)
    place = f"s3://{bucket}/hang?endpoint_url={proxy.url}"
    with open_store(place) as store, open_store(f"{place}&timeout=1") as hasty:
        proxy.begin()
        bodies(store)
        proxy.begin((0, int(proxy.sizes[0] * share), "hang"))
        with pytest.raises(StoreUnavailable):
            bodies(hasty)
        proxy.begin()
        assert bodies(store) == texts(0, 9, SIZE)


def _of_http():
    url = "http://host/key"
    return {
        "ProtocolError": urllib3.exceptions.ProtocolError("Connection broken", ConnectionResetError(104, "reset")),
        "IncompleteRead of urllib3": urllib3.exceptions.IncompleteRead(10, 20),
        "InvalidChunkLength": urllib3.exceptions.ProtocolError("Response ended prematurely"),
        "DecodeError": urllib3.exceptions.DecodeError("Received response with content-encoding: gzip"),
        "ReadTimeoutError of urllib3": urllib3.exceptions.ReadTimeoutError(None, url, "Read timed out."),
        "SSLError of urllib3": urllib3.exceptions.SSLError("bad record mac"),
        "IncompleteRead": http.client.IncompleteRead(b"SECRET-TEXT", 20),
        "RemoteDisconnected": http.client.RemoteDisconnected("closed without response"),
        "BadStatusLine": http.client.BadStatusLine("x"),
        "LineTooLong": http.client.LineTooLong("header line"),
        "SSLError": ssl.SSLError(1, "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
        "SSLEOFError": ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        "SSLWantReadError": ssl.SSLWantReadError(2, "not done"),
        "timeout": TimeoutError("timed out"),
        "ConnectionResetError": ConnectionResetError(104, "reset"),
        "ConnectionAbortedError": ConnectionAbortedError(103, "aborted"),
        "BrokenPipeError": BrokenPipeError(32, "pipe"),
        "OSError": OSError(5, "input/output error"),
        "EOFError": EOFError(),
        "zlib.error": zlib.error("incomplete data"),
        "ValueError": ValueError("I/O operation on closed file."),
        "AttributeError": AttributeError("'NoneType' object has no attribute 'readinto'"),
        "ResponseStreamingError": botocore.exceptions.ResponseStreamingError(error="broken"),
        "ReadTimeoutError": botocore.exceptions.ReadTimeoutError(endpoint_url=url, error="slow"),
        "IncompleteReadError": botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        "ConnectionClosedError": botocore.exceptions.ConnectionClosedError(endpoint_url=url, request="SECRET-TEXT"),
        "HTTPClientError": botocore.exceptions.HTTPClientError(
            error="x", request="SECRET-TEXT", response="SECRET-TEXT"
        ),
        "ResponseParserError": botocore.parsers.ResponseParserError("invalid XML received: SECRET-TEXT"),
    }


ERRORS = _of_http()


class Injected:
    """Raises an error within a client library: from the `skip`-th read of a body on, as often as `times` says."""

    def __init__(self, monkeypatch, error):
        self.error, self.skip, self.times, self.reads = error, 0, 0, 0
        self._whole = botocore.awsrequest.AWSResponse.content.fget
        part = urllib3.response.HTTPResponse.read

        def read(response, *args, **kwargs):
            self._raise()
            return part(response, *args, **kwargs)

        monkeypatch.setattr(botocore.awsrequest.AWSResponse, "content", property(self._content))
        monkeypatch.setattr(urllib3.response.HTTPResponse, "read", read)

    def begin(self, skip, times):
        self.skip, self.times, self.reads = skip, times, 0

    def _raise(self):
        self.reads += 1
        if self.reads > self.skip and self.times:
            self.times -= 1
            raise self.error

    def _content(self, response):
        if response._content is None:
            self._raise()
        return self._whole(response)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_of_any_library_at_any_read(place, monkeypatch, kind):
    """Once it is tried again; if it persists it is reported as ours, and nothing of a body goes with it."""
    injected = Injected(monkeypatch, ERRORS[kind])
    turn = list(ERRORS).index(kind)
    for name in (["read segments", "keys", "page"][turn % 3], ["append that spills and absorbs", "delete"][turn % 2]):
        work, store, truth, head = place.prepared(name)
        injected.begin(0, 0)
        work.check(truth, head, work.do(store, head))
        reads = min(injected.reads, 4)
        for skip in sorted({turn % reads, (turn + 1) % reads}):  # each of the first four, in turn
            if name not in READS:
                work, store, truth, head = place.prepared(name)
            injected.begin(skip, 1)
            result = work.do(store, head)
            injected.begin(0, 0)
            work.check(truth, head, result)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_that_stays_is_ours_and_silent(client, bucket, server, monkeypatch, kind):
    with open_s3_store(client, bucket, "stays", timeout=0.01) as store:
        head = make_conversation(store, 14, size=SIZE)
        injected = Injected(monkeypatch, ERRORS[kind])
        calls = (
            lambda: bodies(store),
            lambda: store.heads(KEY.scope),
            lambda: list(store.keys()),
            lambda: S3Store(client, bucket=bucket, timeout=0.01).append(KEY, ["x"], after=None, revision=revision()),
            lambda: store.forget(KEY, before=3),
            lambda: store.find_records(KEY),
        )
        for call in calls[list(ERRORS).index(kind) % 2 :: 2]:
            injected.begin(0, 10**6)
            with pytest.raises(StoreUnavailable) as caught:
                call()
            assert _texts(caught.value).isdisjoint({"SECRET-TEXT"})
        injected.begin(0, 0)
        assert bodies(store) == texts(0, head.end, SIZE)


def _texts(error):
    """Return the secrets that are found in an error and its causes."""
    found, rest, done = set(), [error], set()
    while rest:
        each = rest.pop()
        if id(each) in done:
            continue
        done.add(id(each))
        if isinstance(each, BaseException):
            assert getattr(each, "request", None) is None, "it carries the request, with its body and credentials"
            rest += [each.__cause__, each.__context__, each.args, vars(each), str(each)]
            rest += [getattr(each, name, None) for name in ("partial", "request", "response", "kwargs")]
        elif isinstance(each, dict):
            rest += each.values()
        elif isinstance(each, tuple | list):
            rest += each
        elif "SECRET-TEXT" in repr(each):
            found.add("SECRET-TEXT")
    return found


def test_an_error_of_a_write_carries_no_body(place, client, bucket, server):
    """boto3's errors of the connection have the request with them, and with that the credentials and the text."""
    with open_s3_store(client, bucket, "write", timeout=0.01) as store:
        head = make_conversation(store, 1)
        server.fail("reset before", times=100)
        with pytest.raises(StoreUnavailable) as caught:
            store.append(KEY, ["SECRET-TEXT"], after=head, revision=revision())
        assert not _texts(caught.value)


def test_a_body_without_its_end_never_counts_as_damage(place, proxy):
    """A head or a segment that came only in part must not be reported as `CorruptRecord`, or somebody may repair it."""
    work, store, _, head = place.prepared("read segments")
    for seed in range(15):
        proxy.begin()
        work.do(store, head)
        number, offset = chosen(random.Random(seed), proxy.sizes)
        proxy.begin((number, offset, "close"))
        try:
            assert work.do(store, head) == texts(0, 40, SIZE)
        except CorruptRecord as error:
            raise AssertionError(f"a cut after {offset} bytes was taken for damage") from error


class KeepAliveHandler(http.server.BaseHTTPRequestHandler):
    """Keeps its connections, which the server of the other tests does not, and gives the same object each time."""

    protocol_version = "HTTP/1.1"
    accepted = 0

    def setup(self):
        KeepAliveHandler.accepted += 1
        super().setup()

    def do_GET(self):
        body = b"x" * 3_000_000
        self.send_response(200)
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_connections_are_used_again():
    """Reading a body to its end gives the connection back: a new one for each request would cost round trips."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), KeepAliveHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_store(f"s3://bucket/x?endpoint_url=http://127.0.0.1:{server.server_port}&addressing=path") as store:
            for _ in range(5):
                assert len(store._bucket.get("x")[0]) == 3_000_000
        server.shutdown()
    assert KeepAliveHandler.accepted == 1
