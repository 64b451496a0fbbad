"""From a URL to a client, and from a client to the two collections.

The URL is pymongo's, and so are its options; ours is only `prefix`. What matters for safety has a default of ours:
acknowledged by a majority, journalled, and never without a time-out.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import quote_plus

from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.collection import Collection
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri

from chathistory.checks import class_name, is_coroutine_function
from chathistory.errors import ConfigError
from chathistory.storage.url import Option, StoreURL
from chathistory_mongodb.documents import CODEC, Document, Documents
from chathistory_mongodb.indexes import ensure_indexes

__all__ = ["OPTIONS", "PREFIX", "Client", "Link", "Place", "Target", "target_of"]

Client: TypeAlias = MongoClient[Document]

DATABASE = "chathistory"
PREFIX = "chathistory_"
_PREFIX = re.compile(r"(?!system\.)([A-Za-z0-9_-][A-Za-z0-9_.-]{0,99})?")
_DATABASE = re.compile(r'[^/\\. "$*<>:|?\0]{1,63}')
_SAFE = WriteConcern(w="majority", j=True, wtimeout=5000)


@dataclass(frozen=True, slots=True)
class Place:
    """The two collections, twice: as they are now on the primary, and as the client is set up to read.

    heads, segments: every write, and every look that a write depends on. seen_...: what readers asked for.
    """

    heads: Documents
    segments: Documents
    seen_heads: Documents
    seen_segments: Documents


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Where a URL leads: `uri` is for pymongo, and holds the credentials."""

    uri: str
    database: str
    prefix: str


def place_in(client: Client, database: str, prefix: str) -> Place:
    """Return the collections. A write concern that the client sets itself is kept. Raises `ConfigError`."""
    _check_client(client)
    for name, value in (("database", database), ("prefix", prefix)):
        if not isinstance(value, str):
            raise ConfigError(f"{name}: must be text, not {class_name(value)}")
    if not _PREFIX.fullmatch(prefix) or not _DATABASE.fullmatch(database):
        raise ConfigError("mongodb: this is no name of a database, or no prefix of a collection's name")
    concern = _SAFE if client.write_concern.is_server_default else client.write_concern
    if not concern.acknowledged:
        raise ConfigError("mongodb: a client with w=0 never learns what became of a write; at least w=1 is due")
    base = client.get_database(database, codec_options=CODEC, write_concern=concern)
    now: dict[str, Any] = {"read_preference": ReadPreference.PRIMARY, "read_concern": ReadConcern("local")}
    heads, segments = f"{prefix}conversations", f"{prefix}segments"
    return Place(base.get_collection(heads, **now), base.get_collection(segments, **now), base[heads], base[segments])


def _check_client(client: Any) -> None:
    """Raise `ConfigError`, naming module and class, for what is no client that this store can use.

    Known wrong objects are named; any other object that has the methods (a proxy, a fake) is accepted. A `Database`
    has an attribute of every name, which is a `Collection`.
    """
    hint = ""
    if isinstance(client, str):
        hint = "; open_store(...) makes a store of a URL"
    elif not isinstance(client, type) and callable(getattr(client, "get_database", None)):
        if isinstance(client.get_database, _WITHIN):
            hint = "; hand in the client, and the database's name as `database`"
        elif type(client).__module__.startswith("motor") or is_coroutine_function(getattr(client, "close", None)):
            hint = ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store, too"
        elif isinstance(getattr(client, "write_concern", None), WriteConcern):
            return
    raise ConfigError(f"client: must be a pymongo.MongoClient, not {class_name(client)}{hint}")


_WITHIN = (Collection, AsyncCollection)


def target_of(url: StoreURL) -> Target:
    """Check a URL without asking anybody, not even a name server. Raises `ConfigError`, quoting nothing of it."""
    path = url.location.removeprefix("//")
    hosts, _, database = path.partition("/")
    problem = _problem(url, hosts, database)
    if problem:
        raise ConfigError(f"{url.scheme}: {problem}")
    options = {name: value for name, value in url.options.items() if value is not None}
    prefix = options.pop("prefix", PREFIX)
    query = "&".join(f"{name}={quote_plus(value)}" for name, value in options.items())
    if url.scheme == "mongodb" and not _accepted(f"{path}{'' if '/' in path else '/'}?{query}"):
        raise ConfigError("mongodb: these options contradict each other")
    uri = f"{url.scheme}://{hosts}/{database}?{query}"
    return Target(uri, database or DATABASE, prefix)


def _problem(url: StoreURL, hosts: str, database: str) -> str | None:
    """Return what is wrong with the location."""
    if not url.location.startswith("//") or not _accepted(f"{hosts}/"):
        return (
            f"the address is wrong; it reads {url.scheme}://user:password@host/database, with the special characters "
            "of user and password percent-encoded"
        )
    if url.scheme == "mongodb+srv" and re.search(r"[,:]", hosts.rpartition("@")[2]):
        return "the address names one host, without a port: the name server knows the rest"
    if url.scheme == "mongodb+srv" and url.options.get("directConnection") == "true":
        return "directConnection is for one server, and a name server may name many"
    if database and not _DATABASE.fullmatch(database):
        return "the path is the name of a database, and nothing else"
    return None


def _accepted(rest: str) -> bool:
    """Tell whether pymongo would take a URL; its own words may quote a password."""
    try:
        parse_uri(f"mongodb://{rest}", validate=True, warn=False)
    except Exception:  # noqa: BLE001  # whatever pymongo makes of a wrong URL
        return False
    return True


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _pymongos(name: str) -> Callable[[Any], str]:
    def parse(value: object) -> str:
        text = _text(value)
        if not _accepted(f"localhost/?{name}={quote_plus(text)}"):
            raise ValueError("a value that pymongo takes for it is due")
        return text

    return parse


def _acknowledged(value: object) -> str:
    if _text(value) == "0":
        raise ValueError("at least 1 is due, or nobody learns what became of a write")
    return _pymongos("w")(value)


def _prefix(value: object) -> str:
    if not _PREFIX.fullmatch(text := str(value)):
        raise ValueError("up to 100 letters, digits, '_', '-' and '.' are due")
    return text


_DEFAULTS: Mapping[str, tuple[str, str]] = {
    "w": ("majority", "how many members acknowledge a write"),
    "journal": ("true", "whether a write is acknowledged only when it is in the journal"),
    "wTimeoutMS": ("5000", "milliseconds that members may take to acknowledge a write"),
    "connectTimeoutMS": ("5000", "milliseconds for a connection to be made"),
    "socketTimeoutMS": ("10000", "milliseconds that an answer may take"),
    "serverSelectionTimeoutMS": ("5000", "milliseconds to find a server that can do it"),
    "waitQueueTimeoutMS": ("5000", "milliseconds to wait for a free connection"),
    "appName": ("chathistory", "what the server's log calls this client"),
}
_OTHERS = (
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "compressors",
    "directConnection",
    "heartbeatFrequencyMS",
    "loadBalanced",
    "localThresholdMS",
    "maxConnecting",
    "maxIdleTimeMS",
    "maxPoolSize",
    "maxStalenessSeconds",
    "minPoolSize",
    "readConcernLevel",
    "readPreference",
    "readPreferenceTags",
    "replicaSet",
    "retryReads",
    "retryWrites",
    "serverMonitoringMode",
    "ssl",
    "timeoutMS",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames",
    "tlsCAFile",
    "tlsCRLFile",
    "tlsCertificateKeyFile",
    "tlsCertificateKeyFilePassword",
    "tlsDisableOCSPEndpointCheck",
    "tlsInsecure",
    "zlibCompressionLevel",
)
_RESOLVED = ("srvMaxHosts", "srvServiceName")  # pymongo looks at these only when it asks the name server

OPTIONS: Mapping[str, Option] = {
    "prefix": Option(_prefix, PREFIX, "what the names of the two collections begin with"),
    **{name: Option(_pymongos(name), default, words) for name, (default, words) in _DEFAULTS.items()},
    **{name: Option(_pymongos(name), None, "as pymongo documents it") for name in _OTHERS},
    **{name: Option(_text, None, "as pymongo documents it, for mongodb+srv") for name in _RESOLVED},
    "w": Option(_acknowledged, *_DEFAULTS["w"]),
}


class Link:
    """The way to the collections: a client handed in, or one that is made when it is first needed and then owned.

    Making a client for `mongodb+srv` asks the name server, so it is not done when a URL is read.
    """

    def __init__(self, client: Client | Target, *, database: str, prefix: str) -> None:
        self._lock = threading.Lock()
        self._database, self._prefix = database, prefix
        self._target = client if isinstance(client, Target) else None
        self._client: Client | None = None
        self._place = None if isinstance(client, Target) else place_in(client, database, prefix)
        self._ready = False

    def place(self) -> Place:
        """Return the collections, for those who only read."""
        if self._place is None:
            with self._lock:
                self._place = self._place or self._made()
        return self._place

    def _made(self) -> Place:
        assert self._target is not None  # noqa: S101  # else there is a place from the beginning
        self._client = MongoClient(self._target.uri, connect=False)
        return place_in(self._client, self._database, self._prefix)

    def ready(self) -> Place:
        """Return the collections with their indexes, which are looked at once. Raises `Refused`."""
        place = self.place()
        if not self._ready:
            with self._lock:
                if not self._ready:
                    ensure_indexes(place.heads, place.segments)
                    self._ready = True
        return place

    def close(self) -> None:
        """Close the client, if it is owned."""
        with self._lock:
            if self._client is not None:
                self._client.close()
