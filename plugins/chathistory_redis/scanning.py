"""A walk over all keys of a store: SCAN on every primary, begun again until nothing can have been missed.

A SCAN gives each key that is there from its beginning to its end. That holds for one server: a failover in between, or
a key that moves to a server which was looked through before, would let it miss some. So one pass counts only if the
same servers answered from its beginning to its end, over the same connections. Where it cannot be told whether a slot
of a Cluster was being moved, a pass counts that has found nothing new: a key moves once, so what one pass misses the
next one finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import redis
from redis.cluster import RedisCluster
from redis.exceptions import ClusterDownError, NoPermissionError, ReadOnlyError, ResponseError

from chathistory_redis.clients import Client

__all__ = ["primaries", "scanned_names"]

_COUNT = 1000  # names that the server looks at in one step
_PASSES = 20
_BROKEN = 3  # passes in which a connection broke
_SLOTS = 16384
_Pass: TypeAlias = Literal["steady", "changed", "unknown"]
_Ask: TypeAlias = Callable[..., Any]


def scanned_names(client: Client, pattern: bytes, probe: bytes) -> set[bytes]:
    """Return the names of all keys of a pattern.

    Args:
        client: Through which every primary is asked.
        pattern: Of SCAN.
        probe: A key of the store; a server that may not remove its time to live is a replica.

    Raises:
        redis.RedisError: A server refuses, or cannot be reached.
    """
    found: set[bytes] = set()
    broken = 0
    for number in range(_PASSES):
        before = len(found)
        try:
            outcome = _pass(client, pattern, probe, found)
        except (redis.ConnectionError, ReadOnlyError):
            broken += 1
            if broken == _BROKEN or len(found) == before:
                raise
            if isinstance(client, redis.Redis):  # a master that has become a replica: look for the new one
                client.connection_pool.disconnect(inuse_connections=False)
            continue
        if outcome == "steady" or (outcome == "unknown" and number and len(found) == before):
            return found
    raise redis.ConnectionError(f"servers changed during each of {_PASSES} walks over all keys")


def primaries(client: Client) -> list[redis.Redis]:
    """Return the clients of all primaries, having asked a Cluster anew who they are."""
    if not isinstance(client, RedisCluster):
        return [client]
    client.nodes_manager.initialize()
    if len(client.nodes_manager.slots_cache) < _SLOTS:
        raise ClusterDownError("some slots have no server")
    return [client.get_redis_connection(node) for node in client.get_primaries()]


def _pass(client: Client, pattern: bytes, probe: bytes, found: set[bytes]) -> _Pass:
    """Add the names of one pass to `found`; return whether the servers stayed what they were."""
    servers = primaries(client)
    owners = _owners(client)
    moves: list[_Pass] = []
    for server in servers:
        with _connection(server) as ask:
            if isinstance(client, RedisCluster):
                moves.append(_moves(ask))
            found.update(_names(ask, pattern))
            moves.append(_moves(ask) if isinstance(client, RedisCluster) else _role(ask, probe))
    primaries(client)
    if owners != _owners(client):
        return "changed"
    return "unknown" if "unknown" in moves else "steady"


def _owners(client: Client) -> dict[int, str]:
    if not isinstance(client, RedisCluster):
        return {}
    return {slot: nodes[0].name for slot, nodes in client.nodes_manager.slots_cache.items()}


@contextmanager
def _connection(server: redis.Redis) -> Iterator[_Ask]:
    """Yield a function that sends a command over one connection, the same one each time, and returns the reply."""
    pool = server.connection_pool
    connection = pool.get_connection()

    def ask(*command: Any) -> Any:
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)

    try:
        yield ask
    except ResponseError:  # a whole answer
        raise
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _names(ask: _Ask, pattern: bytes) -> Iterator[bytes]:
    cursor = b"0"
    while True:
        cursor, names = ask("SCAN", cursor, "MATCH", pattern, "COUNT", _COUNT)
        yield from names
        if cursor == b"0":
            return


def _role(ask: _Ask, probe: bytes) -> _Pass:
    """Return whether a server is a master; it raises if it is a replica, which takes no writes."""
    try:
        ask("PERSIST", probe)
    except NoPermissionError:
        return "unknown"
    return "steady"


def _moves(ask: _Ask) -> _Pass:
    """Return whether a server of a Cluster is moving no slot; it says so only for itself, in brackets."""
    try:
        nodes: bytes = ask("CLUSTER", "NODES")
    except ResponseError:
        return "unknown"
    own = [line for line in nodes.splitlines() if b"myself" in line]
    return "unknown" if not own or b" [" in own[0] else "steady"
