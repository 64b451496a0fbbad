"""Run scripts on the server that has their keys, and wait for replicas and disks.

Each call is one round trip: a script and its WAIT go out together, and so do scripts for several nodes of a Cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeGuard, TypeVar, cast

import redis
from redis.client import NEVER_DECODE
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisClusterException,
    ResponseError,
    SlotNotCoveredError,
)
from redis.sentinel import Sentinel

from chathistory.checks import class_name, is_coroutine_function
from chathistory.errors import ConfigError, StoreUnavailable
from chathistory_redis.errors import code_of, translate_errors
from chathistory_redis.scripts import Script
from chathistory_redis.urls import Client, ServerAddress, connect

if TYPE_CHECKING:
    from redis.cluster import RedisCluster

__all__ = ["RedisConnection", "ReplicaWait", "check_client", "list_primaries", "read_eviction_policies"]

T = TypeVar("T")
_KeysAndArgs: TypeAlias = tuple[Sequence[bytes], Sequence[bytes]]
_Command: TypeAlias = tuple[Any, ...]

_SLOTS = 16384


@dataclass(frozen=True, slots=True)
class ReplicaWait:
    """What an append waits for.

    Attributes:
        replicas: How many replicas must have it.
        fsync: It must be on their disks, and on that of the master.
        timeout: Seconds that this may take.
    """

    replicas: int
    fsync: bool
    timeout: float

    @property
    def command(self) -> tuple[str | int, ...]:
        """The command that waits."""
        milliseconds = max(int(self.timeout * 1000), 1)
        return ("WAITAOF", 1, self.replicas, milliseconds) if self.fsync else ("WAIT", self.replicas, milliseconds)

    def check_reply(self, reply: Any) -> None:
        """Raise `StoreUnavailable` unless the reply says that all is done."""
        if isinstance(reply, Exception):
            raise StoreUnavailable("stored, but the server cannot confirm how safely", outcome="unknown") from reply
        on_disk, replicas = reply if self.fsync else (1, reply)
        if replicas < self.replicas or not on_disk:
            disk = "" if on_disk else ", and not on the disk of the master"
            raise StoreUnavailable(
                f"stored, but not confirmed by enough replicas in time ({replicas} of {self.replicas}{disk})",
                outcome="unknown",
            )


class RedisConnection:
    """A client of redis-py, and the ways to run a script with it.

    Attributes:
        is_cluster: Whether it is the client of a Cluster.
    """

    def __init__(self, open_client: Callable[[], Client], *, is_cluster: bool, owned: bool) -> None:
        """Prepare a connection; nothing is sent yet.

        Args:
            open_client: Returns the client; called when it is first needed.
            is_cluster: Whether that is the client of a Cluster.
            owned: Whether `close` closes it.
        """
        self.is_cluster = is_cluster
        self._owned = owned
        self._open_client = open_client
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._failures: tuple[int, Exception | None] = (0, None)  # how many there were, and the last

    @classmethod
    def to_address(cls, address: ServerAddress) -> Self:
        """Return a connection to an address, with a client of its own."""
        return cls(lambda: connect(address), is_cluster=address.scheme == "redis+cluster", owned=True)

    @classmethod
    def through_client(cls, client: Client) -> Self:
        """Return a connection through a client that stays the caller's."""
        return cls(lambda: client, is_cluster=_is_cluster(client), owned=False)

    def call(self, operation: str, use: Callable[[Client], T]) -> T:
        """Return what `use` returns for the client, with the errors of redis-py translated."""
        client = self._client
        if client is None:
            with translate_errors(operation, sent=False):
                client = self._connect_once()
        retry = client.retry if _is_cluster(client) else cast("redis.Redis", client).get_retry()
        with translate_errors(operation, once=retry is None or retry.get_retries() == 0):
            try:
                return use(client)
            except ResponseError as error:
                if code_of(error) == "READONLY" and not _is_cluster(client):
                    # a master that has become a replica: let the next connections be made to the new master
                    cast("redis.Redis", client).connection_pool.disconnect(inuse_connections=False)
                raise

    def run(
        self,
        operation: str,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes],
        *,
        wait: ReplicaWait | None = None,
    ) -> Any:
        """Run a script on the server of its keys, and return its reply.

        Args:
            operation: The word for it in errors.
            script: The script.
            keys: Its keys, all of one slot.
            args: Its arguments.
            wait: What to wait for, on the same connection.
        """

        def send(client: Client) -> Any:
            arguments = (len(keys), *keys, *args)
            try:
                return _execute_command(client, ("EVALSHA", script.sha, *arguments), wait)
            except NoScriptError:
                return _execute_command(client, ("EVAL", script.source, *arguments), wait)

        return self.call(operation, send)

    def run_many(self, operation: str, script: Script, parts: Sequence[_KeysAndArgs]) -> list[Any]:
        """Run a script once for each part, all at the same time, and return their replies."""
        if not self.is_cluster or len(parts) == 1:
            return [self.run(operation, script, keys, args) for keys, args in parts]
        commands = [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in parts]
        replies = self.call(operation, lambda client: _send_to_nodes(client, commands))
        return [  # a node that lacks the script, or has lost a slot, is asked again
            self.run(operation, script, *part) if isinstance(reply, Exception) else reply
            for part, reply in zip(parts, replies, strict=True)
        ]

    def read_elements(self, operation: str, name: bytes, first: int, last: int) -> list[bytes] | None:
        """Return some elements of a list; None if there is something else under that name."""

        def send(client: Client) -> list[bytes] | None:
            try:
                return list(_execute_command(client, ("LRANGE", name, first, last)))
            except ResponseError as error:
                if code_of(error) == "WRONGTYPE":
                    return None
                raise

        return self.call(operation, send)

    def close(self) -> None:
        """Close the client, unless it is the caller's."""
        with self._lock:
            if self._owned and self._client is not None:
                self._client.close()

    def _connect_once(self) -> Client:
        """Connect, one thread for all: those that waited while that failed get its error, and do not try themselves."""
        known, _ = self._failures
        with self._lock:
            count, last = self._failures
            if count > known and last is not None:
                raise last.with_traceback(None)
            try:
                self._client = self._client or self._open_client()
            except (redis.RedisError, RedisClusterException) as error:
                self._failures = (count + 1, error)
                raise
            return self._client


def _is_cluster(client: Any) -> TypeGuard[RedisCluster]:
    """Whether the client is that of a Cluster, or stands for one."""
    return hasattr(client, "nodes_manager")


def _execute_command(client: Client, command: _Command, wait: ReplicaWait | None = None) -> Any:
    """Send a command to the server of its key, and return the reply as bytes; `wait`: having waited for replicas."""
    if wait is None:
        execute: Callable[..., Any] = client.execute_command
        return execute(*command, **_AS_BYTES)
    with _refresh_topology(client):
        reply, waited = _send_pair(_server_of(client, command), command, wait)
        if isinstance(reply, MovedError) and _is_cluster(client):
            client.nodes_manager.initialize()
            reply, waited = _send_pair(_server_of(client, command), command, wait)
        if isinstance(reply, AskError) and _is_cluster(client):  # a key that has moved before the rest of its slot
            client.nodes_manager.initialize()
            node = client.get_node(host=reply.host, port=reply.port)
            if node is None:
                raise reply
            reply, waited = _send_pair(client.get_redis_connection(node), command, wait, asking=True)
        if isinstance(reply, Exception):
            raise reply
    wait.check_reply(waited)
    return reply


_AS_BYTES: dict[str, Any] = {NEVER_DECODE: True}  # whatever the client is set to


def _send_pair(server: redis.Redis, command: _Command, wait: ReplicaWait, *, asking: bool = False) -> tuple[Any, Any]:
    """Send a command and what waits for it over one connection, and return both replies."""
    with server.pipeline(transaction=False) as pipe:
        if asking:
            pipe.execute_command("ASKING")
        pipe.execute_command(*command, **_AS_BYTES)
        pipe.execute_command(*wait.command)
        reply, waited = pipe.execute(raise_on_error=False)[-2:]
    return reply, waited


def _server_of(client: Client, command: _Command) -> redis.Redis:
    """Return the client of the server that has the first key of a script, which is the fourth part of its command."""
    if not _is_cluster(client):
        return cast("redis.Redis", client)
    node = client.get_node_from_key(command[3])
    if node is None:
        raise SlotNotCoveredError("no node is known that has the slot")
    return client.get_redis_connection(node)


@contextmanager
def _refresh_topology(client: Client) -> Iterator[None]:
    """Refresh the topology of a Cluster when a node does not respond: it may have been replaced."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError):
        if _is_cluster(client):
            with suppress(redis.RedisError, RedisClusterException):
                client.nodes_manager.initialize()
        raise


def _send_to_nodes(client: Client, commands: Sequence[_Command]) -> list[Any]:
    """Send each command to the node of its key, all before the first answer is awaited; return replies and refusals.

    redis-py's own pipeline does so, too, but then repeats each command of a node that does not answer, one after the
    other, and waits each time. Raises the first error of a connection: then nothing is known of any of them.
    """
    places: dict[redis.Redis, list[int]] = {}
    for at, command in enumerate(commands):
        places.setdefault(_server_of(client, command), []).append(at)
    replies: list[Any] = [None] * len(commands)
    connections: dict[redis.Redis, Any] = {}
    with _refresh_topology(client):
        try:
            for server in places:
                connections[server] = server.connection_pool.get_connection()
            for server, connection in connections.items():
                connection.send_packed_command(connection.pack_commands([commands[at] for at in places[server]]))
            for server, connection in connections.items():
                for at in places[server]:
                    try:
                        replies[at] = connection.read_response(disable_decoding=True)
                    except ResponseError as refusal:
                        replies[at] = refusal
        except BaseException:
            for connection in connections.values():
                connection.disconnect()  # there may be answers on the way that nobody waits for
            raise
        finally:
            for server, connection in connections.items():
                server.connection_pool.release(connection)
    return replies


def list_primaries(client: Client) -> list[redis.Redis]:
    """Return the clients of all primaries, having asked a Cluster anew who they are."""
    if not _is_cluster(client):
        return [cast("redis.Redis", client)]
    client.nodes_manager.initialize()
    if len(client.nodes_manager.slots_cache) < _SLOTS:
        raise ClusterDownError("some slots have no server")
    return [client.get_redis_connection(node) for node in client.get_primaries()]


def read_eviction_policies(client: Client) -> list[str]:
    """Return the `maxmemory-policy` of every primary; "" of one that does not say it."""
    policies: list[str] = []
    for server in list_primaries(client):
        try:
            policies.append(str(server.info("memory").get("maxmemory_policy", "")))
        except ResponseError:
            policies.append("")
    return policies


def check_client(client: Any) -> None:
    """Raise `ConfigError`, naming module and class, for what is no client that this store can use.

    Known wrong objects are named; any other object that has the methods (a proxy, a fake) is accepted.
    """
    execute, pipeline = getattr(client, "execute_command", None), getattr(client, "pipeline", None)
    if isinstance(client, type) or not (callable(execute) and callable(pipeline)):
        hints: dict[type, str] = {
            str: "; open_store(...) makes a store of a URL",
            Sentinel: "; use its master_for(...)",
        }
        hint = hints.get(type(client), "")
    elif is_coroutine_function(execute) or is_coroutine_function(getattr(client, "execute", None)):
        hint = ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store, too"
    elif callable(getattr(client, "execute", None)):
        hint = ", a pipeline, which sends nothing before execute()"
    elif type(client).__module__.partition(".")[0] == "valkey":
        hint = "; redis.Redis speaks to Valkey servers as well"
    else:
        return
    raise ConfigError(f"client: must be a redis.Redis or redis.RedisCluster, not {class_name(client)}{hint}")
