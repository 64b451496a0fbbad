"""Commands for several nodes of a Cluster, all sent before the first answer is awaited.

redis-py's own pipeline does so, too, but then repeats each command of a node that does not answer, one after the other,
and waits each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError, SlotNotCoveredError

if TYPE_CHECKING:
    import redis
    from redis.cluster import RedisCluster

__all__ = ["node_of", "on_all_nodes"]


def node_of(client: RedisCluster, key: bytes) -> redis.Redis:
    """Return the client of the node that has a key."""
    node = client.get_node_from_key(key)
    if node is None:
        raise SlotNotCoveredError("no node is known that has the slot")
    return client.get_redis_connection(node)


def on_all_nodes(client: RedisCluster, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send each command to the node of its first key, which is its fourth part; return replies and refusals, as bytes.

    Raises the first error of a connection: then nothing is known of any of them.
    """
    nodes: dict[int, tuple[redis.Redis, list[int]]] = {}
    for at, command in enumerate(commands):
        server = node_of(client, command[3])
        nodes.setdefault(id(server), (server, []))[1].append(at)
    replies: list[Any] = [None] * len(commands)
    held: list[tuple[redis.ConnectionPool, Any, list[int]]] = []
    try:
        for server, places in nodes.values():
            pool = server.connection_pool
            held.append((pool, pool.get_connection(), places))
        for _, connection, places in held:
            connection.send_packed_command(connection.pack_commands([commands[at] for at in places]))
        for _, connection, places in held:
            for at in places:
                replies[at] = _reply(connection)
    except BaseException:
        for _, connection, _ in held:
            connection.disconnect()  # there may be answers on the way that nobody waits for
        raise
    finally:
        for pool, connection, _ in held:
            pool.release(connection)
    return replies


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as refusal:
        return refusal
