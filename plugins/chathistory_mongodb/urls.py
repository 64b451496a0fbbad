"""URLs: those of pymongo, with pymongo's options and one more, `prefix`.

Options that matter for safety have a default of this store: writes are acknowledged by a majority and journalled, and
every operation has a time-out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote_plus

from pymongo import WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.collection import Collection
from pymongo.uri_parser import parse_uri

from chathistory.checks import class_name, is_coroutine_function
from chathistory.errors import ConfigError
from chathistory.storage.url import Option, StoreURL

__all__ = ["DATABASE", "OPTIONS", "PREFIX", "MongoTarget", "check_client", "is_database_name", "is_prefix", "parse_url"]

DATABASE = "chathistory"
PREFIX = "chathistory_"


@dataclass(frozen=True, slots=True, repr=False)
class MongoTarget:
    """The target of a URL: `uri` is for pymongo and holds the credentials; database name and collection prefix."""

    uri: str
    database: str
    prefix: str


def is_database_name(text: str) -> bool:
    """Return True if a database may have this name."""
    return re.fullmatch(r'[^/\\. "$*<>:|?\0]{1,63}', text) is not None


def is_prefix(text: str) -> bool:
    """Return True if the names of collections may begin with this."""
    return re.fullmatch(r"(?!system\.)([A-Za-z0-9_-][A-Za-z0-9_.-]{0,99})?", text) is not None


def check_client(client: Any) -> None:
    """Check that an object can be used as the client of a store.

    Any object with the methods is accepted (a proxy, a fake), except known wrong ones. A `Database` has an attribute of
    every name, which is a `Collection`.

    Raises:
        ConfigError: It cannot be used. The message has its module and class, and a hint for known wrong objects.
    """
    hint = ""
    if isinstance(client, str):
        hint = "; pass a URL to open_store(...)"
    elif not isinstance(client, type) and callable(getattr(client, "get_database", None)):
        if isinstance(client.get_database, Collection | AsyncCollection):
            hint = "; pass the client itself, and the name of the database as `database`"
        elif type(client).__module__.startswith("motor") or is_coroutine_function(getattr(client, "close", None)):
            hint = ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store as well"
        elif isinstance(getattr(client, "write_concern", None), WriteConcern):
            return
    raise ConfigError(f"client: must be a pymongo.MongoClient, not {class_name(client)}{hint}")


def parse_url(url: StoreURL) -> MongoTarget:
    """Check a URL without any network access, also without a name server.

    Args:
        url: The URL of a store.

    Raises:
        ConfigError: It is invalid. The message quotes nothing of it.
    """
    path, is_service = url.location.removeprefix("//"), url.scheme == "mongodb+srv"
    hosts, _, database = path.partition("/")
    options = {name: value for name, value in url.options.items() if value is not None}
    prefix = options.pop("prefix", PREFIX)
    query = "&".join(f"{name}={quote_plus(value)}" for name, value in options.items())
    problem = None
    if not url.location.startswith("//") or not _is_accepted(f"{hosts}/"):
        problem = (
            f"the address must be {url.scheme}://user:password@host/database, with the special characters of user and "
            "password percent-encoded"
        )
    elif is_service and re.search(r"[,:]", hosts.rpartition("@")[2]):
        problem = "the address must be one host without a port; the name server knows the servers and their ports"
    elif is_service and options.get("directConnection") == "true":
        problem = "directConnection is for a single server; write mongodb: and its host, or leave the option out"
    elif database and not is_database_name(database):
        problem = "the path must be the name of a database, such as mongodb://host/chathistory"
    elif not is_service and not _is_accepted(f"{hosts}/{database}?{query}"):
        problem = "some of these options exclude each other; see pymongo's documentation of its URI options"
    if problem:
        raise ConfigError(f"{url.scheme}: {problem}")
    return MongoTarget(f"{url.scheme}://{hosts}/{database}?{query}", database or DATABASE, prefix)


def _is_accepted(rest: str) -> bool:
    """Return True if pymongo accepts a URL. Its error is dropped, because it may quote a password."""
    try:
        parse_uri(f"mongodb://{rest}", validate=True, warn=False)
    except Exception:  # noqa: BLE001  # pymongo raises errors of many classes for a wrong URL
        return False
    return True


def _parse_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_option(name: str, value: object) -> str:
    text = _parse_text(value)
    if name == "prefix" and not is_prefix(text):
        raise ConfigError("must be up to 100 letters, digits, '_', '-' and '.'")
    if name == "w" and text == "0":
        raise ConfigError("must be at least 1; with 0 the server does not report whether a write failed")
    if name != "prefix" and not _is_accepted(f"localhost/?{name}={quote_plus(text)}"):
        raise ConfigError("must be a value that pymongo accepts for this option")
    return text


_DEFAULTS: Mapping[str, tuple[str, str]] = {
    "prefix": (PREFIX, "the beginning of the names of the two collections"),
    "w": ("majority", "how many members acknowledge a write"),
    "journal": ("true", "whether a write is acknowledged only when it is in the journal"),
    "wTimeoutMS": ("5000", "milliseconds that members may take to acknowledge a write"),
    "connectTimeoutMS": ("5000", "milliseconds to wait for a new connection"),
    "socketTimeoutMS": ("10000", "milliseconds to wait for a reply"),
    "serverSelectionTimeoutMS": ("5000", "milliseconds to find a suitable server"),
    "waitQueueTimeoutMS": ("5000", "milliseconds to wait for a free connection"),
    "appName": ("chathistory", "the name of this client in the server's log"),
}
# pymongo has its options in lower case only; its documentation spells them like this. A test compares.
_PYMONGO_OPTIONS = """
    authMechanism authMechanismProperties authSource compressors directConnection heartbeatFrequencyMS loadBalanced
    localThresholdMS maxConnecting maxIdleTimeMS maxPoolSize maxStalenessSeconds minPoolSize readConcernLevel
    readPreference readPreferenceTags replicaSet retryReads retryWrites serverMonitoringMode ssl timeoutMS tls
    tlsAllowInvalidCertificates tlsAllowInvalidHostnames tlsCAFile tlsCRLFile tlsCertificateKeyFile
    tlsCertificateKeyFilePassword tlsDisableOCSPEndpointCheck tlsInsecure zlibCompressionLevel
"""

OPTIONS: Mapping[str, Option] = {
    **{name: Option(partial(_parse_option, name), *default) for name, default in _DEFAULTS.items()},
    **{
        name: Option(partial(_parse_option, name), None, "as pymongo documents it") for name in _PYMONGO_OPTIONS.split()
    },
    # pymongo reads these only when it queries the name server
    **dict.fromkeys(
        ("srvMaxHosts", "srvServiceName"), Option(_parse_text, None, "as pymongo documents it, for mongodb+srv")
    ),
}
