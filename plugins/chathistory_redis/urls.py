"""Store URLs: the addresses of the servers, the options (with redis-py's own names), and the client for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedSSLConnection

from chathistory.errors import ConfigError
from chathistory.storage.url import Option, StoreURL, parse_boolean, parse_seconds

__all__ = ["OPTIONS", "Client", "Location", "ServerAddress", "check_prefix", "connect"]

Client: TypeAlias = "redis.Redis | RedisCluster"

_PREFIX = re.compile(r"[^\s{}\x00-\x1f\x7f]{1,100}")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:\[\]/\s]*))(?::(?P<port>\d{1,5}))?")


def check_prefix(value: object) -> str:
    """Return a prefix of keys. Raises `ConfigError` if it cannot be one."""
    if not (isinstance(value, str) and _PREFIX.fullmatch(value)):
        raise ConfigError("prefix: must be 1 to 100 characters without blanks and braces")
    return value


def _parse_count(value: str | int) -> int:
    if int(value) < 1:
        raise ConfigError("must be at least 1")
    return int(value)


def _parse_text(value: object) -> str:
    if not (isinstance(value, str) and value):
        raise ConfigError("must be text")
    return value


def _parse_cert_reqs(value: str) -> str:
    if value not in {"required", "optional", "none"}:
        raise ConfigError("must be required, optional or none")
    return value


OPTIONS: Mapping[str, Option] = {
    "prefix": Option(check_prefix, "chathistory:", "the beginning of all keys"),
    "wait": Option(_parse_count, None, "replicas that must have an append before it returns (WAIT)"),
    "wait_fsync": Option(parse_boolean, None, "the append must be on disk before it returns (WAITAOF, from 7.2 on)"),
    "wait_timeout": Option(parse_seconds, 2.0, "seconds that an append waits for replicas and disks"),
    "db": Option(int, None, "number of the database, if it is not in the path"),
    "username": Option(_parse_text, None, "user of the server's ACL, if not before the @"),
    "password": Option(_parse_text, None, "password, if not before the @"),
    "sentinel_username": Option(_parse_text, None, "user on the sentinels"),
    "sentinel_password": Option(_parse_text, None, "password on the sentinels"),
    "socket_timeout": Option(parse_seconds, 5.0, "seconds to wait for a reply"),
    "socket_connect_timeout": Option(parse_seconds, 5.0, "seconds to wait for a new connection"),
    "socket_keepalive": Option(parse_boolean, None, "TCP keepalive, to detect dead connections; true unless given"),
    "health_check_interval": Option(int, 0, "seconds after which an idle connection is tested before use; 0: never"),
    "max_connections": Option(_parse_count, None, "connections at once; more callers wait for one"),
    "client_name": Option(_parse_text, None, "the name of the connections on the server"),
    "ssl": Option(parse_boolean, None, "TLS, with redis+sentinel and redis+cluster"),
    "ssl_ca_certs": Option(_parse_text, None, "file with the trusted certificate authorities"),
    "ssl_ca_path": Option(_parse_text, None, "folder with the trusted certificate authorities"),
    "ssl_certfile": Option(_parse_text, None, "file with the client's certificate"),
    "ssl_keyfile": Option(_parse_text, None, "file with the key of that certificate"),
    "ssl_password": Option(_parse_text, None, "password of `ssl_keyfile`"),
    "ssl_cert_reqs": Option(_parse_cert_reqs, None, "required (unless given), optional or none"),
    "ssl_check_hostname": Option(parse_boolean, None, "whether the certificate must name the host; true unless given"),
}
_STORE_OPTIONS = {"prefix", "wait", "wait_fsync", "wait_timeout", "max_connections", "ssl"}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}
_EXAMPLES = {
    "unix": "unix:///run/redis.sock?db=0",
    "redis+sentinel": "redis+sentinel://host:26379,host:26379/mymaster/0",
    "redis+cluster": "redis+cluster://host:6379,host:6379",
}


@dataclass(frozen=True, slots=True)
class Location:
    """The address in a URL, without user and password.

    Attributes:
        hosts: Names and ports; empty for a socket.
        path: The path of a socket.
        service: The name of the primary in the configuration of the sentinels.
        db: The number of a database; None if the URL has none.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int | None = None

    @classmethod
    def parse(cls, scheme: str, text: str) -> Self:
        """Parse the address in a URL, without user and password.

        Args:
            scheme: The scheme of the URL.
            text: The address.

        Raises:
            ConfigError: It is invalid. The message quotes nothing of it.
        """
        if scheme == "unix" and text.startswith("/"):
            return cls(path=unquote(text))
        names, *rest = text.split("/")
        service = unquote(rest.pop(0)) if scheme == "redis+sentinel" and rest else ""
        db = rest.pop(0) if rest else ""
        found = [_HOST.fullmatch(name) for name in names.split(",")]
        default_port = 26379 if scheme == "redis+sentinel" else 6379
        hosts = tuple(
            (each["six"] or unquote(each["host"]) or "localhost", int(each["port"] or default_port))
            for each in found
            if each
        )
        is_right = (
            len(hosts) == len(found)
            and all(0 < port < 65536 for _, port in hosts)  # noqa: PLR2004 - the range of ports
            and scheme != "unix"
            and not rest
            and (not db or db.isdecimal())
            and (scheme != "redis+cluster" or db in {"", "0"})
            and (scheme != "redis+sentinel" or service)
            and (len(hosts) == 1 or "+" in scheme)
        )
        if not is_right:
            raise _invalid_url(scheme)
        return cls(hosts, "", service, int(db) if db and scheme != "redis+cluster" else None)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The addresses of the servers, and the settings for connections to them.

    Attributes:
        scheme: The scheme of the URL.
        location: Hosts, socket, service.
        use_tls: Whether the connections use TLS.
        max_connections: The most connections at once; None for no limit.
        settings: The settings of the connections, by redis-py's names. Not in `repr`, because they hold secrets.
        sentinel_settings: The settings of the connections to the sentinels.
    """

    scheme: str
    location: Location
    use_tls: bool
    max_connections: int | None
    settings: Mapping[str, Any] = field(repr=False)
    sentinel_settings: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        """Parse a URL.

        Args:
            url: The URL of a store.

        Raises:
            ConfigError: It is invalid. The message quotes nothing of it.
        """
        if not url.location.startswith("//"):
            raise _invalid_url(url.scheme)
        userinfo, _, address = url.location.removeprefix("//").rpartition("@")
        user, _, password = userinfo.partition(":")
        location = Location.parse(url.scheme, address)
        options = {name: option.default for name, option in OPTIONS.items()} | dict(url.options)
        settings = {name: value for name, value in options.items() if name not in _STORE_OPTIONS and value is not None}
        sentinel_login = {
            name.removeprefix("sentinel_"): settings.pop(name) for name in _SENTINEL_OPTIONS & settings.keys()
        }
        given = {"username": unquote(user) or None, "password": unquote(password) or None, "db": location.db}
        for name, value in given.items():
            if value is not None:
                if name in settings:
                    part = "path" if name == "db" else "part before the @"
                    raise ConfigError(
                        f"{url.scheme}: {name} is given twice, in the URL's {part} and as an option; leave one out"
                    )
                settings[name] = value
        if options["ssl"] is not None and "+" not in url.scheme:
            raise ConfigError(f"{url.scheme}: has no option ssl; for TLS write rediss:")
        use_tls = bool(options["ssl"]) or url.scheme == "rediss"
        if not use_tls and any(name.startswith("ssl_") for name in settings):
            tls = "ssl=true" if "+" in url.scheme else "the scheme rediss:"
            raise ConfigError(f"{url.scheme}: has options for TLS, but does not use TLS; add {tls}, or leave them out")
        common = {name: value for name, value in settings.items() if name.startswith(("socket_", "ssl_"))}
        return cls(url.scheme, location, use_tls, options["max_connections"], settings, common | sentinel_login)


def _invalid_url(scheme: str) -> ConfigError:
    example = _EXAMPLES.get(scheme, f"{scheme}://user:password@host:6379/0")
    return ConfigError(f"{scheme}: invalid URL; expected {example}")


def connect(address: ServerAddress) -> Client:
    """Return a redis-py client without retries. Only the client of a Cluster connects at once, to read its slots.

    By default, redis-py repeats a command without a reply ten times: a dead server is then noticed after a minute or
    two, and a command that was done but got no reply is done twice. The core repeats calls where that is safe.

    Args:
        address: The servers and settings.

    Raises:
        redis.RedisError: A Cluster cannot be reached.
    """
    location = address.location
    common: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "protocol": 2}
    settings = {**address.settings, **common}
    tls: dict[str, Any] = {"ssl": True} if address.use_tls else {}
    limit: dict[str, Any] = {} if address.max_connections is None else {"max_connections": address.max_connections}
    if address.scheme == "redis+cluster":
        nodes = [ClusterNode(host, port) for host, port in location.hosts]
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **settings, **tls, **limit)
    if address.scheme == "redis+sentinel":
        sentinels = Sentinel(location.hosts, sentinel_kwargs={**address.sentinel_settings, **common, **tls})
        settings |= {"connection_class": SentinelManagedSSLConnection} if tls else {}
        return redis.Redis.from_pool(SentinelConnectionPool(location.service, sentinels, **settings, **limit))
    if address.scheme == "unix":
        settings.pop("socket_keepalive", None)
        settings |= {"connection_class": redis.UnixDomainSocketConnection, "path": location.path}
    else:
        ((host, port),) = location.hosts
        settings |= {"connection_class": redis.SSLConnection if tls else redis.Connection, "host": host, "port": port}
    if not limit:
        return redis.Redis.from_pool(redis.ConnectionPool(**settings))
    timeout = address.settings["socket_timeout"]  # seconds to wait for a free connection
    return redis.Redis.from_pool(redis.BlockingConnectionPool(timeout=timeout, **settings, **limit))
