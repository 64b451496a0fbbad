"""What a store URL says: where the servers are, and the options that go to redis-py under its own names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import unquote

from chathistory.errors import ConfigError
from chathistory.storage.url import Option, StoreURL, boolean, seconds

__all__ = ["OPTIONS", "Address", "checked_prefix"]

_PREFIX = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,100}")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:\[\]/\s]*))(?::(?P<port>\d{1,5}))?")
_TLS = ("rediss",)


def checked_prefix(value: object) -> str:
    """Read what all keys begin with: 1 to 100 characters without blanks and braces."""
    if not (isinstance(value, str) and _PREFIX.fullmatch(value)):
        raise ValueError("1 to 100 characters without blanks and braces are due")
    return value


def _count(value: str | int) -> int:
    number = int(value)
    if number < 1:
        raise ValueError("a number above 0 is due")
    return number


def _text(value: object) -> str:
    if not (isinstance(value, str) and value):
        raise ValueError("a text is due")
    return value


def _demand(value: str) -> str:
    if value not in {"required", "optional", "none"}:
        raise ValueError("required, optional or none is due")
    return value


OPTIONS: Mapping[str, Option] = {
    "prefix": Option(checked_prefix, "chathistory:", "what all keys begin with"),
    "wait": Option(_count, None, "replicas that must have an append before it returns (WAIT)"),
    "wait_fsync": Option(boolean, None, "the append must be on disk before it returns (WAITAOF, from 7.2 on)"),
    "wait_timeout": Option(seconds, 2.0, "seconds that an append waits for that"),
    "db": Option(int, None, "number of the database, if not in the path"),
    "username": Option(_text, None, "user of the server's access list, if not before the @"),
    "password": Option(_text, None, "password, if not before the @"),
    "sentinel_username": Option(_text, None, "user on the sentinels"),
    "sentinel_password": Option(_text, None, "password on the sentinels"),
    "socket_timeout": Option(seconds, 5.0, "seconds that a server has for its answer"),
    "socket_connect_timeout": Option(seconds, 5.0, "seconds that a connection may take to be made"),
    "socket_keepalive": Option(boolean, None, "let the system find out about dead connections; true unless given"),
    "health_check_interval": Option(int, 0, "seconds after which an idle connection is tried first; 0: never"),
    "max_connections": Option(_count, None, "connections at once; more callers wait for one"),
    "client_name": Option(_text, None, "the name of the connections on the server"),
    "ssl": Option(boolean, None, "TLS, with redis+sentinel and redis+cluster"),
    "ssl_ca_certs": Option(_text, None, "file of the authorities that are trusted"),
    "ssl_ca_path": Option(_text, None, "folder of the authorities that are trusted"),
    "ssl_certfile": Option(_text, None, "file of the client's certificate"),
    "ssl_keyfile": Option(_text, None, "file of its key"),
    "ssl_password": Option(_text, None, "password of that file"),
    "ssl_cert_reqs": Option(_demand, None, "required (unless given), optional or none"),
    "ssl_check_hostname": Option(boolean, None, "whether the certificate must name the host; true unless given"),
}
_OURS = {"prefix", "wait", "wait_fsync", "wait_timeout", "max_connections", "ssl"}
_SENTINELS = {"sentinel_username", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the servers are.

    hosts: (name, port); empty for a socket. path: of the socket. service: what the sentinels call the master.
    settings: of the connections, by redis-py's names; `repr` hides them, for there are secrets among them.
    sentinel_settings: those for the sentinels.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    tls: bool = False
    max_connections: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sentinel_settings: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, url: StoreURL) -> Self:
        """Read a URL. Raises `ConfigError`, quoting nothing of it."""
        options = {name: option.default for name, option in OPTIONS.items()} | dict(url.options)
        place, credentials = _credentials(url)
        hosts, path, service, db = _place(url.scheme, place)
        given = {name: value for name, value in options.items() if name not in _OURS and value is not None}
        sentinels = {name.removeprefix("sentinel_"): given.pop(name) for name in _SENTINELS & given.keys()}
        settings = _joined(url.scheme, given, credentials | ({} if db is None else {"db": db}))
        tls = _tls(url.scheme, ssl=options["ssl"], settings=settings)
        common = {name: value for name, value in settings.items() if name.startswith(("socket_", "ssl_"))}
        return cls(url.scheme, hosts, path, service, tls, options["max_connections"], settings, common | sentinels)


def _credentials(url: StoreURL) -> tuple[str, dict[str, str]]:
    userinfo, at, place = url.location.removeprefix("//").rpartition("@")
    user, _, password = userinfo.partition(":")
    if not url.location.startswith("//"):
        raise _wrong(url.scheme)
    given = {"username": unquote(user), "password": unquote(password)} if at else {}
    return place, {name: value for name, value in given.items() if value}


def _place(scheme: str, place: str) -> tuple[tuple[tuple[str, int], ...], str, str, int | None]:
    """Return hosts, path of a socket, name of a service, number of a database."""
    if scheme == "unix":
        if not place.startswith("/"):
            raise _wrong(scheme)
        return (), unquote(place), "", None
    names, *rest = place.split("/")
    service = unquote(rest.pop(0)) if scheme == "redis+sentinel" and rest else ""
    hosts = tuple(_host(scheme, name) for name in names.split(","))
    db = rest.pop(0) if rest else ""
    wrong = rest or (db and not db.isdecimal()) or (scheme == "redis+cluster" and db not in {"", "0"})
    if wrong or (scheme == "redis+sentinel" and not service) or (len(hosts) > 1 and "+" not in scheme):
        raise _wrong(scheme)
    return hosts, "", service, int(db) if db and scheme != "redis+cluster" else None


def _host(scheme: str, name: str) -> tuple[str, int]:
    found = _HOST.fullmatch(name)
    port = int(found["port"] or (26379 if scheme == "redis+sentinel" else 6379)) if found else 0
    if not found or not 0 < port < 65536:  # noqa: PLR2004  # the ports there are
        raise _wrong(scheme)
    return found["six"] or unquote(found["host"]) or "localhost", port


def _joined(scheme: str, options: dict[str, Any], location: dict[str, Any]) -> dict[str, Any]:
    for name in location:
        if name in options:
            raise ConfigError(f"{scheme}: {name} is given twice, in the location and as an option")
    return options | location


def _tls(scheme: str, *, ssl: bool | None, settings: Mapping[str, Any]) -> bool:
    if ssl is not None and "+" not in scheme:
        raise ConfigError(f"{scheme}: knows no option ssl; write rediss: for TLS")
    tls = bool(ssl) or scheme in _TLS
    if not tls and any(name.startswith("ssl_") for name in settings):
        raise ConfigError(f"{scheme}: has options for TLS, but does not use it")
    return tls


_EXAMPLES = {
    "unix": "unix:///run/redis.sock?db=0",
    "redis+sentinel": "redis+sentinel://host:26379,host:26379/mymaster/0",
    "redis+cluster": "redis+cluster://host:6379,host:6379",
}


def _wrong(scheme: str) -> ConfigError:
    example = _EXAMPLES.get(scheme, f"{scheme}://user:password@host:6379/0")
    return ConfigError(f"{scheme}: does not say where the server is in the way of {example!r}")
