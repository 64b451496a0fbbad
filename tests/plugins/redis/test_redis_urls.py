"""URLs and options, clients of the caller, TLS, sockets, and waiting for replicas and disks."""

from __future__ import annotations

import signal
import ssl
import threading

import pytest
import redis
import redis.asyncio
import trustme
from chathistory_redis import RedisStore
from chathistory_redis.urls import OPTIONS, ServerAddress, connect
from fault_proxy import FaultProxy
from redis_servers import Pair, Sentinels, Server, ended, free_port, until

from chathistory import Key, StoreURL, open_store
from chathistory.errors import ConfigError, Conflict, StoreUnavailable
from chathistory.testing.contract.checked_reads import read_bodies
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines, make_revision

TIMEOUTS = {name: OPTIONS[name].default for name in ("socket_timeout", "socket_connect_timeout")}
"""As users have them; the tests wait longer (tests/plugins/conftest.py)."""
HOSTS = {
    "redis://": (("localhost", 6379),),
    "redis://host": (("host", 6379),),
    "redis://host:1": (("host", 1),),
    "redis://[::1]:7000/3": (("::1", 7000),),
    "rediss://u:p@host:7000/": (("host", 7000),),
    "redis+sentinel://a,b:2,[::1]/mymaster/1": (("a", 26379), ("b", 2), ("::1", 26379)),
    "redis+cluster://a,b:2/0": (("a", 6379), ("b", 2)),
}
WRONG = [
    *(
        "redis:host",
        "redis://host/x",
        "redis://host/0/1",
        "redis://a,b",
        "redis://host:99999",
        "redis://host:",
        "redis://h:0",
    ),
    *("unix://host/run", "unix:", "redis+sentinel://host", "redis+cluster://host/1", "redis://[::1", "redis://a b"),
    *(
        "redis://host?db=x",
        "redis://host?prefix=",
        "redis://host?prefix={a}",
        "redis://host?prefix=a%20b",
        "redis://host?wait=0",
    ),
    *(
        "redis://host?ssl=true",
        "redis://host?ssl_ca_certs=x",
        "redis+cluster://host?ssl_keyfile=x",
        "rediss://host?ssl_cert_reqs=x",
    ),
    *(
        "redis://host/1?db=2",
        "redis://:secret@host?password=secret",
        "redis://host?wait=1&wait_timeout=9&socket_timeout=9",
        "redis://host?retry=3",
    ),
    *("redis://host?socket_timeout=0", "redis://host?max_connections=0", "redis://host?username="),
]


@pytest.mark.parametrize(("url", "hosts"), HOSTS.items())
def test_where_the_servers_are(url, hosts):
    assert ServerAddress.from_url(StoreURL.parse(url)).location.hosts == hosts


def test_what_a_url_says():
    address = ServerAddress.from_url(StoreURL.parse("redis+sentinel://u%40:p/@a%3Ass@host/my%2Fmaster/2"))
    assert (address.settings["username"], address.settings["password"]) == ("u@", "p/@a:ss")
    assert (address.location.service, address.settings["db"]) == ("my/master", 2)
    timeout = OPTIONS["socket_timeout"].default
    assert address.settings["socket_timeout"] == address.sentinel_settings["socket_timeout"] == timeout
    assert "password" not in address.sentinel_settings
    assert "a:ss" not in repr(address)


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_url_is_refused_without_quoting_it(url):
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p@h:1/2",
        "rediss://h?ssl_cert_reqs=none",
        "unix://u:p@/x?db=1",
        "redis+sentinel://h/m",
        "redis+cluster://h",
    ],
)
def test_open_does_no_input_or_output_and_shows_no_secret(url):
    with open_store(url, max_connections=3, client_name="me", health_check_interval=9) as store:
        assert isinstance(store, RedisStore)
        assert ":p@" not in repr(store)


def test_a_client_has_time_outs_and_no_retries():
    assert list(TIMEOUTS.values()) == [5, 5]
    for url in ("redis://h", "rediss://h", "unix:///x", "redis+sentinel://h/m"):
        client = connect(ServerAddress.from_url(StoreURL.parse(url)))
        settings = client.connection_pool.connection_kwargs
        assert {name: settings[name] for name in TIMEOUTS} == {name: OPTIONS[name].default for name in TIMEOUTS}
        assert client.get_retry().get_retries() == 0
        client.close()


def test_a_socket(valkey, tmp_path, prefix):
    path = tmp_path / "redis.sock"
    with (
        Server("--unixsocket", str(path)),
        open_store(f"unix://{path}?db=3", prefix=prefix, max_connections=1) as store,
    ):
        create_conversation(store)
        assert read_bodies(store, KEY) == make_lines(1)


def test_sentinels(prefix):
    with ended(Sentinels()) as group:
        first, *_ = group.sentinels
        first.stop()
        with open_store(group.url.replace("/mymaster", "/other")) as store, pytest.raises(StoreUnavailable) as caught:
            store.read(KEY)
        assert caught.value.outcome == "not stored"
        with open_store(group.url, prefix=prefix) as store:
            head = append_lines(store, create_conversation(store))
            assert read_bodies(store, KEY) == make_lines(2)
            assert list(store.heads(KEY.scope).items) == [head]
            store.check()
            for sentinel in group.sentinels:
                sentinel.stop()
            assert append_lines(store, head).end == 3, "a call asked a sentinel"


def test_tls(valkey, tmp_path, prefix):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with FaultProxy(valkey.port, tls=context) as proxy:
        url = f"rediss://localhost:{proxy.port}?prefix={prefix}"
        with open_store(url, ssl_ca_certs=str(tmp_path / "ca.pem")) as store:
            create_conversation(store)
            assert read_bodies(store, KEY) == make_lines(1)
        with open_store(url) as store, pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED") as caught:
            store.read(KEY)
        assert caught.value.outcome == "not stored"
        with open_store(url, ssl_cert_reqs="none", ssl_check_hostname=False) as store:
            assert read_bodies(store, KEY) == make_lines(1)


@pytest.mark.parametrize(
    "settings", [{}, {"decode_responses": True}, {"decode_responses": True, "encoding": "latin-1"}]
)
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_client_handed_in_is_used_and_not_closed(valkey, prefix, settings, protocol):
    with valkey.client(protocol=protocol, **settings) as client:
        client.ping()
        with RedisStore(client, prefix=prefix) as store:
            head = store.append(
                Key("ä", "日本"),
                ["é 👋", "\udc00".encode("utf-16-le", "surrogatepass").hex()],
                after=None,
                revision=make_revision(),
            )
            assert read_bodies(store, head.key)[0] == "é 👋"
            assert list(store.heads("ä").items) == [head]
            assert list(store.keys()) == [head.key]
            store.check()
        assert client.connection_pool._available_connections, "the client was closed"
        assert client.connection_pool._available_connections[0]._sock is not None
        client.ping()


def test_a_cluster_client_handed_in(cluster, prefix):
    client = redis.RedisCluster(host="127.0.0.1", port=cluster.masters[0].port, decode_responses=True)
    with open_store(cluster.url, prefix=prefix) as own, RedisStore(client, prefix=prefix) as store:
        head = create_conversation(store)
        assert own.read(KEY).head == head
        assert list(store.heads(KEY.scope).items) == [head]
    assert client.ping() is True
    client.close()


def test_a_client_that_repeats_by_itself_is_never_sure(valkey, prefix):
    """It may have sent the append before the try that could not connect."""
    with FaultProxy(valkey.port) as proxy:
        client = redis.Redis(port=proxy.port, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 1))
        store = RedisStore(client, prefix=prefix)
        proxy.end()
        with pytest.raises(StoreUnavailable) as caught:
            create_conversation(store)
    assert caught.value.outcome == "unknown"
    client.close()


@pytest.mark.parametrize("client", [None, "redis://host", redis.asyncio.Redis()])
def test_only_a_client_can_be_handed_in(client):
    with pytest.raises(ConfigError):
        RedisStore(client)


def test_a_bad_prefix_for_a_client():
    with pytest.raises(ConfigError, match="prefix"):
        RedisStore(redis.Redis(), prefix="{a}")


def test_more_threads_than_connections_wait(valkey, prefix):
    with open_store(valkey.url, prefix=prefix, max_connections=2) as store:
        keys = [Key("default", f"c{number}") for number in range(12)]
        threads = [threading.Thread(target=create_conversation, args=(store, key, 20)) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(store.keys()) == sorted(keys)


class CountingLock:
    """A lock that notes how many have asked for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = threading.Semaphore(0)

    def __enter__(self):
        self._requests.release()
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()

    def wait_for_requests(self, count: int) -> None:
        for _ in range(count):
            assert self._requests.acquire(timeout=600)


def test_threads_that_wait_for_a_cluster_that_is_not_there_wait_once(prefix):
    """The client of a Cluster is made by one thread for all: each does not wait its turn, and then as long again."""
    with open_store(f"redis+cluster://127.0.0.1:{free_port()}", prefix=prefix) as store:
        connection, attempts, errors = store._connection, [], []
        connection._lock = lock = CountingLock()

        def open_client(real=connection._open_client):
            attempts.append("attempt")
            if len(attempts) == 1:
                lock.wait_for_requests(8)
            return real()

        connection._open_client = open_client
        threads = [threading.Thread(target=lambda: errors.append(_error(store))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == ["not stored"] * 8
        assert len(attempts) == 1
        assert _error(store) == "not stored"
        assert len(attempts) == 2, "a later caller tries again"


def _error(store) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        store.read(KEY)
    return caught.value.outcome


def test_waiting_for_a_replica_and_the_disks(prefix):
    with ended(Pair(options=("--appendonly", "yes"))) as pair:
        with pair.master.client() as client:
            until(lambda: client.info("replication").get("slave0", {}).get("state") == "online", what="the replica")
            until(lambda: client.execute_command("WAIT", 1, 1000), what="the copy")
        with open_store(pair.master.url, prefix=prefix, wait=1, wait_fsync=True, wait_timeout=90) as store:
            head = create_conversation(store)
            with open_store(pair.replica.url, prefix=prefix) as copy:
                assert copy.read(KEY).head == head
            head = append_lines(store, head)
        with open_store(pair.master.url, prefix=prefix, wait=1, wait_timeout=0.2) as store:
            pair.replica.stop(signal.SIGSTOP)
            given = make_revision()
            with pytest.raises(StoreUnavailable, match="0 of 1") as caught:
                store.append(KEY, ["alone"], after=head, revision=given)
            assert caught.value.outcome == "unknown"
            with pytest.raises(StoreUnavailable, match="0 of 1"):
                store.append(KEY, ["alone"], after=head, revision=given)
            again = open_store(pair.master.url, prefix=prefix, wait=1, wait_timeout=0.2)  # a connection without writes
            with again, pytest.raises(StoreUnavailable, match="0 of 1"):
                again.append(KEY, ["alone"], after=head, revision=given)
            pair.replica.stop(signal.SIGCONT)
            until(lambda: _repeated(store, head, given), what="the replica again")
            with open_store(pair.replica.url, prefix=prefix) as copy:
                assert read_bodies(copy, KEY) == [*make_lines(2), "alone"]


def _repeated(store, head, given) -> bool:
    """Repeat an append until it is a Conflict with itself: stored, and copied."""
    try:
        store.append(KEY, ["alone"], after=head, revision=given)
    except StoreUnavailable:
        return False
    except Conflict as conflict:
        return conflict.head.revision == given
    return False


def test_waiting_for_a_disk_where_nothing_is_saved(valkey, prefix):
    with open_store(valkey.url, prefix=prefix, wait_fsync=True) as store:
        with pytest.raises(StoreUnavailable) as caught:
            create_conversation(store)
        assert caught.value.outcome == "unknown"
        assert isinstance(caught.value.__cause__, redis.ResponseError)


def test_waiting_in_a_cluster_without_replicas(cluster, prefix):
    with open_store(cluster.url, prefix=prefix, wait=1, wait_timeout=0.1) as store:
        with pytest.raises(StoreUnavailable, match="0 of 1"):
            create_conversation(store)
        assert read_bodies(store, KEY) == make_lines(1)
