"""Run scripts on the server that has their keys, and wait for replicas and disks.

A script and its WAIT are sent together, in one round trip, and so are scripts for several nodes of a Cluster. Without a
Cluster, several scripts run one after another. A script that the server does not know is sent again with its source.
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
    """The confirmations that an append waits for.

    Attributes:
        replicas: How many replicas must have the append.
        fsync: It must be on the disks of these replicas, and on the disk of the primary.
        timeout: Seconds to wait.
    """

    replicas: int
    fsync: bool
    timeout: float

    @property
    def command(self) -> tuple[str | int, ...]:
        """The Redis command that waits, with its arguments."""
        milliseconds = max(int(self.timeout * 1000), 1)
        return ("WAITAOF", 1, self.replicas, milliseconds) if self.fsync else ("WAIT", self.replicas, milliseconds)

    def check_reply(self, reply: Any) -> None:
        """Check the reply to `command`.

        Args:
            reply: The reply, or the server's error.

        Raises:
            StoreUnavailable: Too few replicas or disks have the append.
        """
        if isinstance(reply, Exception):
            raise StoreUnavailable(
                "stored, but the server cannot confirm replicas or disks (it refused WAIT or WAITAOF)",
                outcome="unknown",
            ) from reply
        on_disk, replicas = reply if self.fsync else (1, reply)
        if replicas < self.replicas or not on_disk:
            disk = "" if on_disk else ", and not on the disk of the primary"
            raise StoreUnavailable(
                f"stored, but not confirmed by enough replicas in time ({replicas} of {self.replicas}{disk})",
                outcome="unknown",
            )


class RedisConnection:
    """A redis-py client, and the methods to run scripts with it.

    Attributes:
        is_cluster: Whether the client is one for a Cluster.
    """

    def __init__(self, open_client: Callable[[], Client], *, is_cluster: bool, owns_client: bool) -> None:
        """Prepare a connection; sends nothing.

        Args:
            open_client: Returns the client; called at the first use.
            is_cluster: Whether the client is one for a Cluster.
            owns_client: Whether `close` closes the client.
        """
        self.is_cluster = is_cluster
        self._owns_client = owns_client
        self._open_client = open_client
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._failures: tuple[int, Exception | None] = (0, None)  # the number of failed attempts, and the last error

    @classmethod
    def for_address(cls, address: ServerAddress) -> Self:
        """Return a connection to an address, with a client of its own that `close` closes."""
        return cls(lambda: connect(address), is_cluster=address.scheme == "redis+cluster", owns_client=True)

    @classmethod
    def from_client(cls, client: Client) -> Self:
        """Return a connection with a client of the caller's, which `close` leaves open."""
        return cls(lambda: client, is_cluster=_is_cluster(client), owns_client=False)

    def call(self, operation: str, use: Callable[[Client], T]) -> T:
        """Call `use` with the client, return its result, and translate the errors of redis-py.

        Args:
            operation: The word for the call in errors.
            use: Called with the client.

        Raises:
            StoreError: See `translate_errors`.
        """
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
                    # a primary that has become a replica: the next connections must go to the new primary
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
        """Run a script on the server that has its keys, and return its reply.

        Args:
            operation: The word for the call in errors.
            script: The script.
            keys: Its keys, all of one slot.
            args: Its arguments.
            wait: Replicas and disks to wait for, on the same connection.

        Raises:
            StoreError: See `translate_errors` and `ReplicaWait.check_reply`.
        """

        def send(client: Client) -> Any:
            arguments = (len(keys), *keys, *args)
            try:
                return _execute_command(client, ("EVALSHA", script.sha, *arguments), wait)
            except NoScriptError:
                return _execute_command(client, ("EVAL", script.source, *arguments), wait)

        return self.call(operation, send)

    def run_many(self, operation: str, script: Script, parts: Sequence[_KeysAndArgs]) -> list[Any]:
        """Run a script once per part: in parallel on a Cluster, otherwise one after another.

        Args:
            operation: The word for the call in errors.
            script: The script.
            parts: Keys and arguments of each run.

        Returns:
            The replies, in the order of the parts.
        """
        if not self.is_cluster or len(parts) == 1:
            return [self.run(operation, script, keys, args) for keys, args in parts]
        commands = [("EVALSHA", script.sha, len(keys), *keys, *args) for keys, args in parts]
        replies = self.call(operation, lambda client: _send_to_nodes(client, commands))
        return [  # repeat on a node that lacked the script, or has lost the slot
            self.run(operation, script, *part) if isinstance(reply, Exception) else reply
            for part, reply in zip(parts, replies, strict=True)
        ]

    def read_elements(self, operation: str, name: bytes, first: int, last: int) -> list[bytes] | None:
        """Return the elements of a list from index `first` to `last`, as LRANGE does; None if the key is not a list.

        Args:
            operation: The word for the call in errors.
            name: The key.
            first: The index of the first element; negative from the end.
            last: The index of the last element, included.
        """

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
            if self._owns_client and self._client is not None:
                self._client.close()

    def _connect_once(self) -> Client:
        """Connect in one thread: threads that waited during a failed attempt get its error, and do not try again."""
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
    """Return True if the client is one for a Cluster, or an object that wraps one."""
    return hasattr(client, "nodes_manager")


def _execute_command(client: Client, command: _Command, wait: ReplicaWait | None = None) -> Any:
    """Send a command to the server of its key, wait for replicas if asked to, and return the reply as bytes."""
    if wait is None:
        execute: Callable[..., Any] = client.execute_command
        return execute(*command, **_AS_BYTES)
    with _refresh_topology(client):
        reply, waited = _send_pair(_server_of(client, command), command, wait)
        if isinstance(reply, MovedError) and _is_cluster(client):
            client.nodes_manager.initialize()
            reply, waited = _send_pair(_server_of(client, command), command, wait)
        if isinstance(reply, AskError) and _is_cluster(client):  # the key has already moved, the slot has not yet
            client.nodes_manager.initialize()
            node = client.get_node(host=reply.host, port=reply.port)
            if node is None:
                raise reply
            reply, waited = _send_pair(client.get_redis_connection(node), command, wait, asking=True)
        if isinstance(reply, Exception):
            raise reply
    wait.check_reply(waited)
    return reply


_AS_BYTES: dict[str, Any] = {NEVER_DECODE: True}  # also with a client that has decode_responses=True


def _send_pair(server: redis.Redis, command: _Command, wait: ReplicaWait, *, asking: bool = False) -> tuple[Any, Any]:
    """Send a command and the command that waits for it over one connection, and return both replies."""
    with server.pipeline(transaction=False) as pipe:
        if asking:
            pipe.execute_command("ASKING")
        pipe.execute_command(*command, **_AS_BYTES)
        pipe.execute_command(*wait.command)
        reply, waited = pipe.execute(raise_on_error=False)[-2:]
    return reply, waited


def _server_of(client: Client, command: _Command) -> redis.Redis:
    """Return the client of the server that has the first key of a script, the fourth part of its command."""
    if not _is_cluster(client):
        return cast("redis.Redis", client)
    node = client.get_node_from_key(command[3])
    if node is None:
        raise SlotNotCoveredError("no known node has the slot")
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
    """Send each command to the node of its key, and then read all replies; return replies and refusals in order.

    redis-py's own pipeline does this as well, but repeats each command of a node that does not respond, one after the
    other, and waits each time. Raises the first error of a connection; then the outcome of all commands is unknown.
    """
    indexes: dict[redis.Redis, list[int]] = {}
    for at, command in enumerate(commands):
        indexes.setdefault(_server_of(client, command), []).append(at)
    replies: list[Any] = [None] * len(commands)
    connections: dict[redis.Redis, Any] = {}
    with _refresh_topology(client):
        try:
            for server in indexes:
                connections[server] = server.connection_pool.get_connection()
            for server, connection in connections.items():
                connection.send_packed_command(connection.pack_commands([commands[at] for at in indexes[server]]))
            for server, connection in connections.items():
                for at in indexes[server]:
                    try:
                        replies[at] = connection.read_response(disable_decoding=True)
                    except ResponseError as refusal:
                        replies[at] = refusal
        except BaseException:
            for connection in connections.values():
                connection.disconnect()  # unread replies may still arrive on it
            raise
        finally:
            for server, connection in connections.items():
                server.connection_pool.release(connection)
    return replies


def list_primaries(client: Client) -> list[redis.Redis]:
    """Return the clients of all primaries; refreshes the topology of a Cluster first.

    Raises:
        redis.RedisError: A Cluster cannot be reached, or some slots have no server.
    """
    if not _is_cluster(client):
        return [cast("redis.Redis", client)]
    client.nodes_manager.initialize()
    if len(client.nodes_manager.slots_cache) < _SLOTS:
        raise ClusterDownError("some slots have no server")
    return [client.get_redis_connection(node) for node in client.get_primaries()]


def read_eviction_policies(client: Client) -> list[str]:
    """Return the `maxmemory-policy` of every primary; "" for one that does not report it."""
    policies: list[str] = []
    for server in list_primaries(client):
        try:
            policies.append(str(server.info("memory").get("maxmemory_policy", "")))
        except ResponseError:
            policies.append("")
    return policies


def check_client(client: Any) -> None:
    """Check that an object can be used as the client of a store.

    Any object with the methods is accepted (a proxy, a fake), except known wrong ones.

    Raises:
        ConfigError: It cannot be used. The message has its module and class, and a hint for known wrong objects.
    """
    execute, pipeline = getattr(client, "execute_command", None), getattr(client, "pipeline", None)
    if isinstance(client, type) or not (callable(execute) and callable(pipeline)):
        hints: dict[type, str] = {
            str: "; pass a URL to open_store(...)",
            Sentinel: "; pass what its master_for(...) returns",
        }
        hint = hints.get(type(client), "")
    elif is_coroutine_function(execute) or is_coroutine_function(getattr(client, "execute", None)):
        hint = ", which is for asyncio; AsyncHistory and AsyncChatEngine use a synchronous store as well"
    elif callable(getattr(client, "execute", None)):
        hint = ", a pipeline, which sends nothing until execute(); pass the client itself"
    elif type(client).__module__.partition(".")[0] == "valkey":
        hint = "; redis.Redis works with Valkey servers as well"
    else:
        return
    raise ConfigError(f"client: must be a redis.Redis or redis.RedisCluster, not {class_name(client)}{hint}")
