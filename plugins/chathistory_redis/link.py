"""How a script reaches the server that has its keys, and how an append waits for replicas and disks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast

import redis
from redis.client import NEVER_DECODE
from redis.exceptions import AskError, MovedError, NoScriptError, RedisClusterException, ResponseError

from chathistory_redis.address import Address
from chathistory_redis.clients import Client, connected, is_cluster, sends_once
from chathistory_redis.cluster import node_of, on_all_nodes
from chathistory_redis.faults import Unsettled, code_of, faults
from chathistory_redis.scanning import primaries, scanned_names
from chathistory_redis.scripts import Script

if TYPE_CHECKING:
    from redis.cluster import RedisCluster

__all__ = ["Link", "Wait"]

_RAW: dict[str, Any] = {NEVER_DECODE: True}  # replies are bytes, whatever the client is set to
_Part = tuple[Sequence[bytes], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Wait:
    """What an append waits for: so many replicas; with `fsync` the disks, the master's included. timeout: seconds."""

    replicas: int = 0
    fsync: bool = False
    timeout: float = 2.0

    @property
    def command(self) -> tuple[str | int, ...]:
        """The command that waits."""
        milliseconds = max(int(self.timeout * 1000), 1)
        if self.fsync:
            return "WAITAOF", 1, self.replicas, milliseconds
        return "WAIT", self.replicas, milliseconds

    def check(self, reply: Any) -> None:
        """Raise `Unsettled` unless the reply says that all is done."""
        if isinstance(reply, Exception):
            raise Unsettled("the server could not say whether it is") from reply
        local, replicas = reply if self.fsync else (0, reply)
        if replicas < self.replicas or (self.fsync and not local):
            raise Unsettled(
                f"{replicas} of {self.replicas} replicas had it in time" + ("" if local else ", on no disk yet")
            )


class Link:
    """A client, and the ways to run a script with it.

    cluster: whether it is one of a Cluster. owned: whether it is ours to close.
    """

    def __init__(self, connect: Callable[[], Client], *, cluster: bool, owned: bool) -> None:
        """Call `connect` for the client when it is first needed."""
        self.cluster = cluster
        self._owned = owned
        self._connect = connect
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._failures: tuple[int, Exception | None] = (0, None)

    @classmethod
    def to(cls, address: Address) -> Self:
        """Return a link to an address, with a client of its own."""
        return cls(lambda: connected(address), cluster=address.scheme == "redis+cluster", owned=True)

    @classmethod
    def through(cls, client: Client) -> Self:
        """Return a link through a client that stays the caller's."""
        return cls(lambda: client, cluster=is_cluster(client), owned=False)

    def run(self, doing: str, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> Any:
        """Run a script on the server of its keys, and return its reply."""
        client = self._connected(doing)
        with faults(doing, once=sends_once(client)):
            execute: Callable[..., Any] = client.execute_command
            try:
                return execute("EVALSHA", script.sha, len(keys), *keys, *args, **_RAW)
            except NoScriptError:
                return execute("EVAL", script.source, len(keys), *keys, *args, **_RAW)
            except ResponseError as error:
                _look_anew(client, error)
                raise

    def newest(self, doing: str, name: bytes, count: int) -> Any:
        """Return the last elements of a list; None if there is something else under that name."""
        client = self._connected(doing)
        execute: Callable[..., Any] = client.execute_command
        with faults(doing, once=sends_once(client)):
            try:
                return list(execute("LRANGE", name, -count, -1, **_RAW))
            except ResponseError as error:
                if code_of(error) == "WRONGTYPE":
                    return None
                raise

    def elements(self, doing: str, name: bytes, first: int, last: int) -> list[bytes]:
        """Return some elements of a list; none if there is something else under that name."""
        client = self._connected(doing)
        execute: Callable[..., Any] = client.execute_command
        with faults(doing, once=sends_once(client)):
            try:
                return list(execute("LRANGE", name, first, last, **_RAW))
            except ResponseError as error:
                if code_of(error) == "WRONGTYPE":
                    return []
                raise

    def scan(self, doing: str, pattern: bytes, probe: bytes) -> set[bytes]:
        """Return the names of all keys of a pattern, on all servers."""
        client = self._connected(doing)
        with faults(doing, once=sends_once(client)):
            return scanned_names(client, pattern, probe)

    def policies(self, doing: str) -> list[str]:
        """Return the `maxmemory-policy` of every primary; '' of one that does not say it."""
        client = self._connected(doing)
        with faults(doing, once=sends_once(client)):
            return [_policy(server) for server in primaries(client)]

    def run_and_wait(self, doing: str, script: Script, part: _Part, wait: Wait) -> Any:
        """Run a script, wait on the same connection, and return the reply of the script."""
        client = self._connected(doing)
        with faults(doing, once=sends_once(client)), _learning(client):
            reply, waited = _pair(client, _command(script, part), wait)
            if isinstance(reply, NoScriptError):
                reply, waited = _pair(client, ("EVAL", script.source, len(part[0]), *part[0], *part[1]), wait)
            if isinstance(reply, ResponseError):
                _look_anew(client, reply)
            if isinstance(reply, Exception):
                raise reply
            wait.check(waited)
            return reply

    def gather(self, doing: str, script: Script, parts: Sequence[_Part]) -> list[Any]:
        """Run a script once for each part, all at the same time, and return their replies."""
        client = self._connected(doing)
        if not is_cluster(client) or len(parts) == 1:
            return [self.run(doing, script, keys, args) for keys, args in parts]
        with faults(doing, once=sends_once(client)), _learning(client):
            replies = on_all_nodes(client, [_command(script, part) for part in parts])
        pairs = zip(parts, replies, strict=True)  # a node that lacks the script, or has lost a slot, is asked again
        return [self.run(doing, script, *part) if isinstance(reply, Exception) else reply for part, reply in pairs]

    def close(self) -> None:
        """Close the client, if there is one that is ours."""
        with self._lock:
            if self._owned and self._client is not None:
                self._client.close()

    def _connected(self, doing: str) -> Client:
        if self._client is not None:
            return self._client
        known, _ = self._failures
        with faults(doing, once=True, asked=False):
            return self._made(known)

    def _made(self, known: int) -> Client:
        """Make the client, one thread for all: who waited while that failed does not wait for a try of its own."""
        with self._lock:
            count, why = self._failures
            if count > known and why is not None:
                raise why.with_traceback(None)
            try:
                self._client = self._client or self._connect()
            except (redis.RedisError, RedisClusterException) as error:
                self._failures = (count + 1, error)
                raise
            return self._client


def _look_anew(client: Client, error: ResponseError) -> None:
    """Drop idle connections to a master that has become a replica, so that the next ones are made to the new master."""
    if code_of(error) == "READONLY" and not is_cluster(client):
        cast("redis.Redis", client).connection_pool.disconnect(inuse_connections=False)


def _policy(server: redis.Redis) -> str:
    """Return what a server evicts when its memory is full; '' if it does not say so."""
    try:
        return str(server.info("memory").get("maxmemory_policy", ""))
    except ResponseError:
        return ""


@contextmanager
def _learning(client: Client) -> Generator[None]:
    """Let the client of a Cluster learn anew who has what, if a node does not answer: it may have been replaced."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError):
        if is_cluster(client):
            with suppress(redis.RedisError, RedisClusterException):
                client.nodes_manager.initialize()
        raise


def _command(script: Script, part: _Part) -> tuple[Any, ...]:
    return "EVALSHA", script.sha, len(part[0]), *part[0], *part[1]


def _pair(client: Client, command: tuple[Any, ...], wait: Wait) -> tuple[Any, Any]:
    if not is_cluster(client):
        return _pair_on(cast("redis.Redis", client), command, wait)
    reply, waited = _pair_on(node_of(client, command[3]), command, wait)
    if isinstance(reply, MovedError):
        client.nodes_manager.initialize()
        reply, waited = _pair_on(node_of(client, command[3]), command, wait)
    if isinstance(reply, AskError):  # the slot is being moved: what is not here any more is there, for who asks so
        client.nodes_manager.initialize()
        reply, waited = _pair_on(_server(client, reply), command, wait, asking=True)
    return reply, waited


def _server(client: RedisCluster, told: AskError) -> redis.Redis:
    node = client.get_node(host=told.host, port=told.port)
    if node is None:
        raise told
    return client.get_redis_connection(node)


def _pair_on(server: redis.Redis, command: tuple[Any, ...], wait: Wait, *, asking: bool = False) -> tuple[Any, Any]:
    with server.pipeline(transaction=False) as pipe:
        if asking:
            pipe.execute_command("ASKING")
        pipe.execute_command(*command, **_RAW)
        pipe.execute_command(*wait.command)
        reply, waited = pipe.execute(raise_on_error=False)[-2:]
    return reply, waited
