"""The store: reads, writes and checks. Nearly every call is one script; the comment at the top of its `.lua` file
describes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar, Self

from chathistory.errors import ConfigError, Conflict, CorruptRecord, StoreRejected
from chathistory.storage.base_store import BaseStore
from chathistory.storage.url import Option, StoreURL
from chathistory.storage.values import Cursor, Damaged, Head, Key, Leftovers, Page, ReadResult, Revision, Traits
from chathistory_redis.connection import RedisConnection, ReplicaWait, check_client, read_eviction_policies
from chathistory_redis.errors import translate_errors
from chathistory_redis.listing import Listing
from chathistory_redis.recovery import RedisRecovery
from chathistory_redis.scan import FullScan
from chathistory_redis.schema import (
    Layout,
    decode_head,
    decode_records,
    describe_damage,
    encode_record,
    encode_revision,
    is_damage,
    time_to_live,
)
from chathistory_redis.scripts import APPEND, CHECK, DELETE, FORGET, READ
from chathistory_redis.urls import OPTIONS, Client, ServerAddress, check_prefix

__all__ = ["RedisStore"]

_READ_LIMIT = b"8388608"  # bytes of bodies after which a read ends early
_MAX_NEWEST = 64  # at most this many of the newest records are read in one reply, whatever their size is
_MAX_RECORD_SIZE = 2**29 - 32  # bytes: the longest string of Redis minus the position


class RedisStore(BaseStore):
    """Conversations in a Redis or Valkey server."""

    traits = Traits(
        durable=True,
        shared=True,
        largest_record=_MAX_RECORD_SIZE,
        largest_batch=_MAX_RECORD_SIZE,
        not_reached=("append-only file", "snapshots", "replicas", "backups"),
    )
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(
        self,
        client: Client | RedisConnection,
        *,
        prefix: str = "chathistory:",
        wait: int | None = None,
        wait_fsync: bool = False,
        wait_timeout: float = 2.0,
    ) -> None:
        """Open a store with a client of the caller's; `close` does not close the client.

        Args:
            client: A `redis.Redis` or `redis.RedisCluster`. Its time-outs and retries are used as they are; its
                `decode_responses` does not matter.
            prefix: The beginning of all keys: 1 to 100 characters without blanks and braces.
            wait: The number of replicas that must have an append before it returns.
            wait_fsync: The append must also be on the disks of these replicas and of the primary.
            wait_timeout: Seconds to wait for that; then the append raises `StoreUnavailable`.

        Raises:
            ConfigError: The client or the prefix cannot be used.
        """
        super().__init__()
        if not isinstance(client, RedisConnection):
            check_client(client)
            client = RedisConnection.from_client(client)
        self._connection = client
        self._layout = (Layout.for_cluster if client.is_cluster else Layout)(check_prefix(prefix))
        self._wait = ReplicaWait(wait or 0, wait_fsync, wait_timeout) if wait or wait_fsync else None
        self._listing = Listing(client, self._layout)
        self._full_scan = FullScan(client, self._layout, self._listing)

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        options = {name: option.default for name, option in OPTIONS.items()} | dict(url.options)
        if (options["wait"] or options["wait_fsync"]) and options["wait_timeout"] >= options["socket_timeout"]:
            raise ConfigError(f"{url.scheme}: wait_timeout must be less than socket_timeout")
        return cls(
            RedisConnection.for_address(ServerAddress.from_url(url)),
            prefix=options["prefix"],
            wait=options["wait"],
            wait_fsync=bool(options["wait_fsync"]),
            wait_timeout=options["wait_timeout"],
        )

    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        guard = b"=" if after is None else b"+%s" % after.revision.version.encode()
        args = [time_to_live(revision) + guard, encode_revision(revision)]
        args += [encode_record(at, body) for at, body in enumerate(bodies, first if after is None else after.end)]
        reply = self._connection.run("append", APPEND, self._layout.names(key), args, wait=self._wait)
        with translate_errors("append"):
            if isinstance(reply, list) and not is_damage(reply):
                start, end = map(int, reply[0].split())
                return Head(key, start, end, revision)
            raise Conflict(key, _decode_reply(key, reply))

    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        name = self._layout.names(key).conversation
        if -_MAX_NEWEST <= start < 0 and stop is None:
            elements = self._connection.read_elements("read", name, start - 1, -1)  # faster than a script
            if elements == []:
                return None
            if elements is not None:  # otherwise the key is not a list; the script below describes it
                with translate_errors("read"):
                    *bodies, line = elements
                    head = decode_head(key, line)
                    count = head.end - head.start
                    if len(bodies) != min(-start, count):
                        raise CorruptRecord(key, None, f"its list holds {len(bodies)} records instead of {count}")
                    return ReadResult(head, decode_records(key, head.end - len(bodies), bodies))
        end = b"" if stop is None else b"%d" % stop
        reply = self._connection.run("read", READ, [name], [b"%d" % start, end, _READ_LIMIT])
        if reply is None:
            return None
        with translate_errors("read"):
            if is_damage(reply):
                raise describe_damage(key, reply)
            line, low, *portions = reply
            return ReadResult(decode_head(key, line), decode_records(key, int(low), chain.from_iterable(portions)))

    def _forget_records(self, key: Key, before: int) -> Head | None:
        reply = self._connection.run("forget", FORGET, self._layout.names(key)[:1], [b"%d" % before])
        with translate_errors("forget"):
            return _decode_reply(key, reply)

    def _delete(self, key: Key, version: str | None) -> bool:
        guard = b"" if version is None else b"+%s" % version.encode()
        reply = self._connection.run("delete", DELETE, self._layout.names(key), [guard])
        with translate_errors("delete"):
            if reply is None or reply == 1:
                return reply is not None
            raise Conflict(key, _decode_reply(key, reply))

    def _list_page(self, scope: str, *, after: Cursor | None, limit: int) -> Page[Head]:
        return self._listing.list_page(scope, after, limit)

    def _list_keys(self, scope: str | None) -> Iterator[Key]:
        return self._listing.list_keys(scope)

    def _scan_keys(self, scope: str | None) -> Iterator[Key]:
        return self._full_scan.list_keys(scope)

    def _list_damaged_keys(self, scope: str | None) -> Iterator[Damaged]:
        return self._full_scan.list_damaged(scope)

    def _remove_leftovers(self, scope: str) -> Leftovers:
        return self._full_scan.remove_leftovers(scope)

    def _is_index_complete(self) -> bool:
        """Return True if no primary evicts: each reports `maxmemory-policy noeviction`."""
        policies = self._connection.call("check", read_eviction_policies)
        return all(policy == "noeviction" for policy in policies)

    def get_recovery(self) -> RedisRecovery:
        return RedisRecovery(self._connection, self._layout, self._wait, self._check_open)

    def _check(self) -> None:
        """Check with one script that the server can be reached, and that its user may do all that the store needs.

        Checks with a temporary key that the commands work as in Redis; otherwise raises `StoreRejected`.
        Warns (`UserWarning`) if the server evicts, that is, removes conversations when its memory is full.
        """
        names = self._layout.names(Key("default", "-"))
        reply = self._connection.run("check", CHECK, [*names, names.scopes + b"::"], [])
        with translate_errors("check"):
            denied, evicts, differs = (word.decode() for word in reply)
        if denied:
            raise StoreRejected(f"the user may not use {denied} on the keys of this store; extend its ACL")
        if differs:
            raise StoreRejected(
                f"{differs} does not work on this server as in Redis, so conversations would not be safe; "
                "use Redis or Valkey"
            )
        if evicts:
            words = (
                f"this server evicts ({evicts}): it removes conversations when its memory is full; "
                "set maxmemory-policy to noeviction"
            )
            warnings.warn(words, stacklevel=3)

    def _close(self) -> None:
        self._connection.close()


def _decode_reply(key: Key, reply: Any) -> Head | None:
    """Return the head in a script's reply; None if there is no conversation. Raises the error for reported damage."""
    if is_damage(reply):
        raise describe_damage(key, reply)
    return None if reply is None else decode_head(key, reply)
