"""The redis-py client for an address: without retries, and with time-outs.

redis-py repeats ten times what got no answer: a dead server is then noticed after a minute or two, and a command that
was done but not answered is done twice. The core repeats what may be repeated.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeGuard, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedSSLConnection

from chathistory.checks import class_name, is_coroutine_function
from chathistory.errors import ConfigError
from chathistory_redis.address import Address

__all__ = ["Client", "check_client", "connected", "is_cluster", "sends_once"]

Client: TypeAlias = "redis.Redis | RedisCluster"


def connected(address: Address) -> Client:
    """Return the client of an address. Only that of a Cluster speaks to a server yet, to learn who has what."""
    settings = {**address.settings, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    if address.scheme == "redis+cluster":
        return _of_cluster(address, settings)
    if address.scheme == "redis+sentinel":
        return _of_sentinels(address, settings)
    if address.scheme == "unix":
        pool = _pool(address, settings | {"connection_class": redis.UnixDomainSocketConnection, "path": address.path})
    else:
        kind = redis.SSLConnection if address.tls else redis.Connection
        ((host, port),) = address.hosts
        pool = _pool(address, settings | {"connection_class": kind, "host": host, "port": port})
    return redis.Redis.from_pool(pool)


def _pool(address: Address, settings: dict[str, Any]) -> redis.ConnectionPool:
    if address.path:
        settings = {name: value for name, value in settings.items() if name != "socket_keepalive"}
    if address.max_connections is None:
        return redis.ConnectionPool(**settings)
    patience = address.settings["socket_timeout"]
    return redis.BlockingConnectionPool(max_connections=address.max_connections, timeout=patience, **settings)


def _of_cluster(address: Address, settings: dict[str, Any]) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    settings |= {"ssl": address.tls} if address.tls else {}
    settings |= {} if address.max_connections is None else {"max_connections": address.max_connections}
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **settings)


def _of_sentinels(address: Address, settings: dict[str, Any]) -> redis.Redis:
    own = {**address.sentinel_settings, "retry": settings["retry"], "protocol": 2}
    tls = {"ssl": True} if address.tls else {}
    sentinels = Sentinel(address.hosts, sentinel_kwargs=own | tls)
    settings |= {"connection_class": SentinelManagedSSLConnection} if address.tls else {}
    settings |= {} if address.max_connections is None else {"max_connections": address.max_connections}
    return redis.Redis.from_pool(SentinelConnectionPool(address.service, sentinels, **settings))


def check_client(client: Any) -> None:
    """Raise `ConfigError`, naming module and class, for what is no client that this store can use.

    Known wrong objects are named; any other object that has the methods (a proxy, a fake) is accepted.
    """
    problem = _problem(client)
    if problem is not None:
        raise ConfigError(f"client: must be a redis.Redis or redis.RedisCluster, not {class_name(client)}{problem}")


def _problem(client: Any) -> str | None:
    """Return what is wrong with a client, to be read behind its class; "": it is something else; None: nothing is."""
    if isinstance(client, type) or not (_can(client, "execute_command") and _can(client, "pipeline")):
        return _HINTS.get(type(client), "")
    if is_coroutine_function(client.execute_command) or is_coroutine_function(getattr(client, "execute", None)):
        return ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store, too"
    if _can(client, "execute"):
        return ", a pipeline, which sends nothing until it is told to"
    if type(client).__module__.partition(".")[0] == "valkey":
        return "; redis.Redis speaks to Valkey servers as well"
    return None


_HINTS: dict[type, str] = {str: "; open_store(...) makes a store of a URL", Sentinel: "; use its master_for(...)"}


def _can(client: Any, name: str) -> bool:
    return callable(getattr(client, name, None))


def is_cluster(client: Any) -> TypeGuard[RedisCluster]:
    """Tell whether the client is one of a Cluster, or stands for one."""
    return hasattr(client, "nodes_manager")


def sends_once(client: Client) -> bool:
    """Tell whether the client sends a command at most once."""
    retry = client.retry if is_cluster(client) else cast("redis.Redis", client).get_retry()
    return retry is None or retry.get_retries() == 0
