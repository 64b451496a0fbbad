"""What the store does, in terms of the rest of the package. Nearly every call is a script, which says what it does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar, Self

from chathistory.errors import ConfigError, Conflict, CorruptRecord, StoreRejected
from chathistory.storage.abilities import HeadRecovery
from chathistory.storage.base_store import BaseStore
from chathistory.storage.store import Cursor, Damaged, Head, Key, Leftovers, Page, ReadResult, Revision, Traits
from chathistory.storage.url import Option, StoreURL
from chathistory_redis.address import OPTIONS, Address, checked_prefix
from chathistory_redis.clients import Client, check_client
from chathistory_redis.damage import is_damage, reported
from chathistory_redis.faults import reading
from chathistory_redis.heads import (
    decoded_head,
    decoded_records,
    encoded_record,
    encoded_stamp,
    time_to_live,
)
from chathistory_redis.layout import CLUSTER, PLAIN, Layout
from chathistory_redis.link import Link, Wait
from chathistory_redis.listing import Listing
from chathistory_redis.recovery import Recovery
from chathistory_redis.scripts import APPEND, CHECK, DELETE, FORGET, READ
from chathistory_redis.walking import Walk

__all__ = ["RedisStore"]

SLICE = b"8388608"  # bytes of bodies after which a slice ends early
_TAIL = 64  # records that are few enough to be read whatever their size
_LARGEST = 2**29 - 32  # what Redis takes as one string, and room for the position


class RedisStore(BaseStore):
    """Conversations in a Redis or Valkey server, reached through a client that stays the caller's.

    client: a `redis.Redis` or `redis.RedisCluster`; its time-outs and retries are used as they are, its
    `decode_responses` does not matter. prefix: what all keys begin with, 1 to 100 characters without blanks and braces.
    wait: replicas that must have an append before it returns; wait_fsync: it must be on disk there, and on the master;
    wait_timeout: seconds that it may take, else `StoreUnavailable`.
    """

    traits = Traits(
        durable=True,
        shared=True,
        largest_record=_LARGEST,
        largest_batch=_LARGEST,
        not_reached=("append-only file", "snapshots", "replicas", "backups"),
    )
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(
        self,
        client: Client | Link,
        *,
        prefix: str = "chathistory:",
        wait: int | None = None,
        wait_fsync: bool = False,
        wait_timeout: float = 2.0,
    ) -> None:
        super().__init__()
        if not isinstance(client, Link):
            check_client(client)
        self._link = client if isinstance(client, Link) else Link.through(client)
        self._layout = Layout(_prefix(prefix), CLUSTER if self._link.cluster else PLAIN)
        self._wait = Wait(wait or 0, wait_fsync, wait_timeout) if wait or wait_fsync else None
        self._listing = Listing(self._link, self._layout)
        self._walk = Walk(self._link, self._layout)
        self._recovery = Recovery(self._link, self._layout, self._wait, self._check_open)

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        options = {name: option.default for name, option in OPTIONS.items()} | dict(url.options)
        if (options["wait"] or options["wait_fsync"]) and options["wait_timeout"] >= options["socket_timeout"]:
            raise ConfigError(f"{url.scheme}: wait_timeout must be below socket_timeout")
        return cls(
            Link.to(Address.of(url)),
            prefix=options["prefix"],
            wait=options["wait"],
            wait_fsync=bool(options["wait_fsync"]),
            wait_timeout=options["wait_timeout"],
        )

    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        position = first if after is None else after.end
        guard = b"=" if after is None else b"+%s" % after.revision.version.encode()
        args = [time_to_live(revision) + guard, encoded_stamp(revision)]
        args += [encoded_record(at, body) for at, body in enumerate(bodies, position)]
        names = self._layout.names(key)
        if self._wait is None:
            reply = self._link.run("append", APPEND, names, args)
        else:
            reply = self._link.run_and_wait("append", APPEND, (names, args), self._wait)
        with reading("append"):
            if isinstance(reply, list) and not is_damage(reply):
                start, end = map(int, reply[0].split())
                return Head(key, start, end, revision)
            raise Conflict(key, _head(key, reply))

    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        if -_TAIL <= start < 0 and stop is None:
            return self._tail(key, -start)
        end = b"" if stop is None else b"%d" % stop
        reply = self._link.run("read", READ, self._layout.names(key)[:1], [b"%d" % start, end, SLICE])
        if reply is None:
            return None
        with reading("read"):
            if is_damage(reply):
                raise reported(key, reply)
            line, low, *portions = reply
            return ReadResult(decoded_head(key, line), decoded_records(key, int(low), chain.from_iterable(portions)))

    def _tail(self, key: Key, most: int) -> ReadResult | None:
        """Read the newest records by a plain command, which is quicker than a script."""
        name = self._layout.names(key).conversation
        elements = self._link.newest("read", name, most + 1)
        if not elements:
            if elements is None:
                raise reported(key, self._link.run("read", READ, [name], [b"0", b"0", SLICE]))
            return None
        with reading("read"):
            *bodies, line = elements
            head = decoded_head(key, line)
            count = head.end - head.start
            if len(bodies) != min(most, count):
                raise CorruptRecord(key, None, f"its list holds {len(bodies)} records instead of {count}")
            return ReadResult(head, decoded_records(key, head.end - len(bodies), bodies))

    def _list_page(self, scope: str, *, after: Cursor | None, limit: int) -> Page[Head]:
        return self._listing.page(scope, after, limit)

    def _list_keys(self, scope: str | None) -> Iterator[Key]:
        return self._listing.all_keys() if scope is None else self._listing.keys(scope)

    def _scan_keys(self, scope: str | None) -> Iterator[Key]:
        """Yield the key of every conversation, found by SCAN on every primary; see `docs/redis.md` for what it costs.

        Enters what it finds into the index, so that `keys` and `heads` have it again.
        """
        return self._walk.keys(scope)

    def _list_damaged_keys(self, scope: str | None) -> Iterator[Damaged]:
        """Yield what is stored below the prefix and belongs to no conversation, found by SCAN where that is allowed."""
        return self._walk.damaged(scope)

    def _is_index_complete(self) -> bool:
        """Return whether no primary evicts: each says `maxmemory-policy noeviction`. One that does not say it may."""
        return all(policy == "noeviction" for policy in self._link.policies("check"))

    def _remove_leftovers(self, scope: str) -> Leftovers:
        return self._walk.remove_leftovers(scope)

    def get_recovery(self) -> HeadRecovery:
        return self._recovery

    def _forget_records(self, key: Key, before: int) -> Head | None:
        reply = self._link.run("forget", FORGET, self._layout.names(key)[:1], [b"%d" % before])
        with reading("forget"):
            return _head(key, reply)

    def _delete(self, key: Key, version: str | None) -> bool:
        """Remove the conversation for good; without a version also what is damaged, whatever it is."""
        guard = b"" if version is None else b"+%s" % version.encode()
        reply = self._link.run("delete", DELETE, self._layout.names(key), [guard])
        with reading("delete"):
            if reply is None or reply == 1:
                return reply is not None
            raise Conflict(key, _head(key, reply))

    def _check(self) -> None:
        """Make one round trip: whether the store can be reached, and its user may do all that it needs.

        Tries, on a key that is gone again afterwards, whether the server does what Redis does; else `StoreRejected`.
        Warns (`UserWarning`) of a server that evicts: one that throws conversations away when its memory is full.
        """
        names = self._layout.names(Key("default", "-"))
        reply = self._link.run("check", CHECK, [*names, names.scopes + b"::"], [])
        with reading("check"):
            denied, evicts, differs = (word.decode() for word in reply)
        if denied:
            raise StoreRejected(f"the user may not use {denied} on the keys of this store")
        if differs:
            raise StoreRejected(
                f"the server does something else than Redis for {differs}, so that nothing is safe there"
            )
        if evicts:
            words = f"this server evicts ({evicts}): when its memory is full, it throws conversations away"
            warnings.warn(words, stacklevel=3)

    def _close(self) -> None:
        self._link.close()


def _prefix(prefix: str) -> str:
    try:
        return checked_prefix(prefix)
    except ValueError as error:
        raise ConfigError(f"the prefix is wrong: {error}") from None


def _head(key: Key, reply: Any) -> Head | None:
    """Return the head that a script replied with; None: there is no conversation. Raises what is damaged."""
    if is_damage(reply):
        raise reported(key, reply)
    return None if reply is None else decoded_head(key, reply)
