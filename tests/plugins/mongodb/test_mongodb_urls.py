"""The meaning of a URL, the errors of a wrong one; no network access before the first call."""

import socket

import pymongo
import pytest
from chathistory_mongodb import MongoStore
from mongodb_samples import fill_store, read_all

from chathistory import open_store
from chathistory.errors import ConfigError, StoreUnavailable


def _options(store):
    return store._server.open_collections().heads.database.client.options


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("mongodb://localhost", "chathistory"),
        ("mongodb://localhost/", "chathistory"),
        ("mongodb://localhost:27018/app", "app"),
        ("mongodb://a,b:27018,c/app?replicaSet=rs0", "app"),
        ("mongodb://user:p%40ss%2F@localhost/app?authSource=admin", "app"),
        ("mongodb://[::1]:27017/app", "app"),
    ],
)
def test_the_path_names_the_database(url, database):
    with open_store(url) as store:
        place = store._server.open_collections()
        assert place.heads.full_name == f"{database}.chathistory_conversations"
        assert place.segments.full_name == f"{database}.chathistory_segments"


def test_defaults_are_safe_and_never_without_a_time_out():
    with open_store("mongodb://localhost") as store:
        options = _options(store)
        assert options.write_concern.document == {"w": "majority", "j": True, "wtimeout": 5000}
        assert options.pool_options.connect_timeout == 5
        assert options.pool_options.socket_timeout == 10
        assert options.pool_options.wait_queue_timeout == 5
        assert options.server_selection_timeout == 5


def test_all_of_them_can_be_set():
    url = "mongodb://localhost/app?w=1&journal=false&socketTimeoutMS=700&readConcernLevel=majority&prefix=x."
    with open_store(url, readPreference="secondaryPreferred", retryWrites=False) as store:
        options, place = _options(store), store._server.open_collections()
        assert options.write_concern.document == {"w": 1, "j": False, "wtimeout": 5000}
        assert options.pool_options.socket_timeout == 0.7
        assert options.retry_writes is False
        assert place.preferred_heads.read_preference.mongos_mode == "secondaryPreferred"
        assert place.preferred_heads.read_concern.level == "majority"
        assert place.heads.read_preference.mongos_mode == "primary", "what a write depends on is not read elsewhere"
        assert place.heads.name == "x.conversations"


@pytest.mark.parametrize(
    "url",
    [
        "mongodb:localhost",
        "mongodb://",
        "mongodb:///db",
        "mongodb://user:s3cr3t@word@localhost/db",
        "mongodb://user:s3cr3t%@localhost/db",
        "mongodb://localhost:port/db",
        "mongodb://localhost/db/more",
        "mongodb://localhost/db.collection",
        "mongodb://localhost/?w=0",
        "mongodb://localhost/?w=0&journal=false",
        "mongodb://localhost/?socketTimeoutMS=s3cr3t",
        "mongodb://localhost/?readPreference=s3cr3t",
        "mongodb://localhost/?tls=true&ssl=false",
        "mongodb://a,b/?directConnection=true",
        "mongodb://localhost/?prefix=a$b",
        "mongodb://localhost/?prefix=system.",
        "mongodb://localhost/?sockettimeout=3",
        "mongodb+srv://a,b/db",
        "mongodb+srv://a.example:27017/db",
        "mongodb+srv://a.example/db?directConnection=true",
    ],
)
def test_a_url_that_cannot_be_right_is_refused_without_quoting_it(url):
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    error = caught.value
    assert "s3cr3t" not in f"{error!r}{error.__cause__!r}{error.__context__!r}"


NOT_FOR_A_STORE = {
    *("connect", "datetime_conversion", "tz_aware", "unicode_decode_error_handler", "uuidrepresentation"),  # ours
    *("driver", "server_api"),  # objects
    *("fsync", "waitqueuemultiple"),  # of earlier versions
    *("enableoverloadretargeting", "maxadaptiveretries", "srvallowedhostssuffix"),  # not looked at yet
}
"""Options of pymongo that a store does not take."""


def test_every_option_of_pymongo_is_accepted_or_left_out_on_purpose():
    """A new version of pymongo may have new ones: add them to the options, or above."""
    known = set(pymongo.common.URI_OPTIONS_VALIDATOR_MAP)
    accepted = {name.lower() for name in MongoStore.options} - {"prefix"}
    assert accepted <= known
    assert known - accepted <= NOT_FOR_A_STORE


def test_there_is_no_network_access_before_the_first_call(monkeypatch):
    def refused(*_args, **_words):
        pytest.fail("a URL was opened, and somebody was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr("dns.resolver.resolve", refused)
    with open_store("mongodb+srv://user:s3cr3t@cluster.example/app?srvMaxHosts=2") as store:
        assert "s3cr3t" not in repr(store) + repr(vars(store)) + repr(vars(store._server))
    open_store("mongodb://nowhere.example").close()


def _named_by_dns(monkeypatch, port):
    """Let a name server know one service, and the resolver its host, which is this machine."""
    import dns.resolver  # pymongo's own

    def resolve(name, kind, *_args, **_words):
        if kind == "TXT" or str(name) != "_mongodb._tcp.history.example.test":
            raise dns.resolver.NoAnswer
        answer = f"0 0 {port} member.example.test."
        return [dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.SRV, answer)]

    found = socket.getaddrinfo
    monkeypatch.setattr("dns.resolver.resolve", resolve)
    monkeypatch.setattr("dns.resolver.Resolver.resolve", lambda _self, *args, **words: resolve(*args, **words))
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **words: found("127.0.0.1" if host == "member.example.test" else host, *args, **words),
    )


def test_a_service_that_the_name_server_knows(member, database, monkeypatch):
    """As Atlas gives them out: the hosts are asked for with the first call."""
    _named_by_dns(monkeypatch, member.port)
    url = f"mongodb+srv://history.example.test/{database.name}?tls=false"
    with open_store(url) as store:
        head = fill_store(store, 9)
        assert read_all(store)[0] == head
    with open_store(url.replace("history", "nowhere"), serverSelectionTimeoutMS=500) as store:
        with pytest.raises(StoreUnavailable, match="name server") as caught:
            fill_store(store, 1)
        assert caught.value.outcome == "not stored"


def test_an_unacknowledged_client_or_a_wrong_name_is_refused():
    with pymongo.MongoClient("localhost", connect=False, w=0) as client, pytest.raises(ConfigError):
        MongoStore(client)
    with pymongo.MongoClient("localhost", connect=False) as client:
        for words in ({"database": "a.b"}, {"database": ""}, {"prefix": "$"}):
            with pytest.raises(ConfigError):
                MongoStore(client, **words)
