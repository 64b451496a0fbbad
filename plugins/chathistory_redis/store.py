"""What the store does, in terms of the rest of the package. Nearly every call is a script, which says what it does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, NoReturn, Self

from chathistory.cursor import decode_cursor, encode_cursor
from chathistory.errors import ConfigError, Conflict, CorruptRecord, InvalidInput, StoreRejected
from chathistory.lifeline import Lifeline
from chathistory.store import Cursor, Head, HistoryStore, Key, Page, Slice, Stamp, Traits, check_append
from chathistory.url import Option, StoreURL
from chathistory_redis.address import OPTIONS, Address, checked_prefix
from chathistory_redis.clients import Client, check_client
from chathistory_redis.heads import decoded_head, decoded_records, encoded_stamp, time_to_live
from chathistory_redis.layout import CLUSTER, PLAIN, Layout
from chathistory_redis.link import Link, Wait
from chathistory_redis.scripts import APPEND, CHECK, DELETE, FORGET, IDS, PAGE, READ, SCOPES

__all__ = ["RedisStore"]

SLICE = b"8388608"  # bytes of bodies after which a slice ends early
_TAIL = 64  # records that are few enough to be read whatever their size
_LARGEST = 2**29  # what Redis takes as one string
_AT_ONCE = b"500"  # entries of an index that one step of `keys` looks at
_EXACT = 2**53  # up to here the index keeps times to the microsecond


class RedisStore(HistoryStore):
    """Conversations in a Redis or Valkey server, reached through a client that stays the caller's.

    client: a `redis.Redis` or `redis.RedisCluster`; its time-outs and retries are used as they are, its
    `decode_responses` does not matter. prefix: what all keys begin with, 1 to 100 characters without blanks and braces.
    wait: replicas that must have an append before it returns; wait_fsync: it must be on disk there, and on the master;
    wait_timeout: seconds that it may take, else `StoreUnavailable`.
    """

    traits: ClassVar[Traits] = Traits(durable=True, shared=True, largest_record=_LARGEST, largest_batch=_LARGEST)
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
        if not isinstance(client, Link):
            check_client(client)
        self._link = client if isinstance(client, Link) else Link.through(client)
        self._layout = Layout(_prefix(prefix), CLUSTER if self._link.cluster else PLAIN)
        self._wait = Wait(wait or 0, wait_fsync, wait_timeout) if wait or wait_fsync else None
        self._lifeline = Lifeline()

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        options = {name: option.default for name, option in OPTIONS.items()} | dict(url.options)
        if (options["wait"] or options["wait_fsync"]) and options["wait_timeout"] >= options["socket_timeout"]:
            msg = f"{url.scheme}: wait_timeout must be below socket_timeout"
            raise ConfigError(msg)
        return cls(
            Link.to(Address.of(url)),
            prefix=options["prefix"],
            wait=options["wait"],
            wait_fsync=bool(options["wait_fsync"]),
            wait_timeout=options["wait_timeout"],
        )

    def append(self, key: Key, bodies: Sequence[str], *, after: Head | None, stamp: Stamp, first: int = 0) -> Head:
        self._lifeline.check()
        batch = check_append(bodies, stamp, self.traits, first=first)
        if max(stamp.updated, first + len(batch)) >= _EXACT:
            msg = "times and positions must be below 2**53"
            raise InvalidInput(msg)
        seen = f"={first}" if after is None else f"+{after.stamp.version}"
        args = [seen.encode(), encoded_stamp(stamp), time_to_live(stamp), *(body.encode() for body in batch)]
        names = self._layout.names(key)
        if self._wait is None:
            reply = self._link.run("append", APPEND, names, args)
        else:
            reply = self._link.run_and_wait("append", APPEND, (names, args), self._wait)
        if isinstance(reply, list):
            start, end = map(int, reply[0].split())
            return Head(key, start, end, stamp)
        raise Conflict(key, _head(key, reply))

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Slice | None:
        self._lifeline.check()
        if (start == 0 and stop == 0) or (-_TAIL <= start < 0 and stop is None):
            return self._tail(key, -start)
        end = b"" if stop is None else b"%d" % stop
        reply = self._link.run("read", READ, self._layout.names(key)[:1], [b"%d" % start, end, SLICE])
        if not isinstance(reply, list):
            _head(key, reply)
            return None
        line, low, *portions = reply
        return Slice(decoded_head(key, line), decoded_records(key, int(low), chain.from_iterable(portions)))

    def _tail(self, key: Key, count: int) -> Slice | None:
        """Read the newest records by a plain command, which is quicker than a script; 0: the head alone."""
        reply = self._link.newest("read", self._layout.names(key).conversation, count + 1)
        if not reply:
            return None if reply == [] else _damaged(key)
        *bodies, line = reply
        head = decoded_head(key, line)
        if len(bodies) != min(count, head.end - head.start):
            _damaged(key)
        return Slice(head, decoded_records(key, head.end - len(bodies), bodies))

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        self._lifeline.check()
        if limit < 1:
            msg = "a page has at least one item"
            raise InvalidInput(msg)
        below = [] if after is None else _place(*decode_cursor(after))
        parts = [(names, below) for names in self._layout.indexes(scope)]
        heads: list[Head] = []
        while parts:
            replies = self._link.gather("listing", PAGE, [(names, [b"%d" % (limit + 1), *at]) for names, at in parts])
            heads += [head for reply in replies for head in _listed(scope, reply)]
            parts = [
                (names, reply[:2])
                for (names, _), reply in zip(parts, replies, strict=True)
                if reply[0] and len(reply) < 2 * limit + 4
            ]
        heads.sort(key=lambda head: (head.stamp.updated, head.key.id), reverse=True)
        return Page(heads[:limit], encode_cursor(heads[limit - 1]) if len(heads) > limit else None)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        self._lifeline.check()
        return self._all_keys() if scope is None else self._keys(scope, self._layout.indexes(scope))

    def _all_keys(self) -> Iterator[Key]:
        tags = list(self._layout.scopes())
        replies = self._link.gather("listing", SCOPES, [([tag], []) for tag in tags])
        found: dict[str, list[bytes]] = {}
        for tag, names in zip(tags, replies, strict=True):
            for name in names:
                found.setdefault(self._layout.scope(name), []).append(tag)
        for scope, homes in found.items():
            yield from self._keys(scope, [(self._layout.index(tag, scope), tag) for tag in homes])

    def _keys(self, scope: str, indexes: Sequence[tuple[bytes, bytes]]) -> Iterator[Key]:
        parts = [([index], [_AT_ONCE]) for index, _ in indexes]
        seen: set[bytes] = set()
        while parts:
            self._lifeline.check()
            replies = self._link.gather("listing", IDS, parts)
            new = {name for reply in replies for name in reply[2:]} - seen
            seen |= new
            yield from (Key(scope, name.decode()) for name in new)
            pairs = zip(parts, replies, strict=True)
            parts = [(names, [_AT_ONCE, *reply[:2]]) for (names, _), reply in pairs if reply[0]]

    def forget(self, key: Key, *, before: int) -> Head | None:
        self._lifeline.check()
        return _head(key, self._link.run("forget", FORGET, self._layout.names(key)[:1], [b"%d" % before]))

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self._lifeline.check()
        due = "" if version is None else f"+{version}"
        reply = self._link.run("delete", DELETE, self._layout.names(key), [due.encode()])
        if reply in {1, None}:
            return reply is not None
        raise Conflict(key, _head(key, reply))

    def check(self) -> None:
        """Make one round trip: whether the store can be reached, and its user may do all that it needs.

        Warns (`UserWarning`) of a server that evicts: one that throws conversations away when its memory is full.
        """
        self._lifeline.check()
        denied, evicts = self._link.run("check", CHECK, self._layout.names(Key("default", "-")), [])
        if denied:
            msg = f"the user may not use {denied.decode()} on the keys of this store"
            raise StoreRejected(msg)
        if evicts:
            words = f"this server evicts ({evicts.decode()}): when its memory is full, it throws conversations away"
            warnings.warn(words, stacklevel=2)

    def close(self) -> None:
        if self._lifeline.cut():
            self._link.close()


def _prefix(prefix: str) -> str:
    try:
        return checked_prefix(prefix)
    except ValueError as error:
        msg = f"the prefix is wrong: {error}"
        raise ConfigError(msg) from None


def _head(key: Key, reply: Any) -> Head | None:
    """Return the head that a script replied with; None: there is no conversation. Raises `CorruptRecord`."""
    if reply == 0:
        _damaged(key)
    return None if reply is None else decoded_head(key, reply)


def _damaged(key: Key) -> NoReturn:
    raise CorruptRecord(key, None, "its key holds something else, or other records than the head says")


def _place(updated: int, name: str) -> list[bytes]:
    try:
        return [b"%d" % updated, name.encode()]
    except UnicodeEncodeError:
        pass
    msg = "this is not a cursor that a page of this listing gave"
    raise InvalidInput(msg)


def _listed(scope: str, reply: list[Any]) -> Iterator[Head]:
    for name, line in zip(reply[2::2], reply[3::2], strict=True):
        key = Key(scope, name.decode())
        yield decoded_head(key, line) if line else _damaged(key)
