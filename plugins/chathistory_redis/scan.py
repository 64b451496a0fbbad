"""Complete walks: everything below the prefix, found by the keys themselves and not from an index.

A SCAN returns each key that exists from its beginning to its end. That holds for one server: after a failover, or when
a key moves to a server that was scanned before, it may miss some. So a pass counts only if the same servers answered
from its beginning to its end, over the same connections. If it is unknown whether a slot of a Cluster was being moved,
a pass counts that has found nothing new: a key moves once, so the next pass finds what one pass missed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias, TypeVar

import redis
from redis.cluster import RedisCluster
from redis.exceptions import NoPermissionError, ReadOnlyError, ResponseError

from chathistory.errors import ChatHistoryError, StoreRejected
from chathistory.storage.values import Damaged, Key, Leftovers
from chathistory_redis.connection import RedisConnection, list_primaries
from chathistory_redis.errors import translate_errors
from chathistory_redis.listing import Listing
from chathistory_redis.schema import (
    NOT_A_CONVERSATION,
    Layout,
    ParsedName,
    decode_head,
    is_damaged_index,
    printable_name,
    report_stray,
)
from chathistory_redis.scripts import KEY_TYPES, LIST_PAGE, REINDEX, REMOVE_LEFTOVER
from chathistory_redis.urls import Client

__all__ = ["FullScan", "scan_names"]

_STEP = 500  # conversations that one script examines
_MAX_PARALLEL_SCRIPTS = 32  # scripts that run at the same time, in a Cluster
_TYPES = {"scopes": "set", "index": "zset"}
_COUNT = 1000  # names that the server examines in one step
_MAX_PASSES = 20  # passes before the scan gives up
_MAX_BROKEN_PASSES = 3  # passes with a broken connection before the scan gives up

T = TypeVar("T")
_SendCommand: TypeAlias = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class FullScan:
    """The walks over all keys of a store."""

    connection: RedisConnection
    layout: Layout
    listing: Listing

    def list_keys(self, scope: str | None) -> Iterator[Key]:
        """Yield the key of every conversation of a scope (of all scopes if it is None), and add each to its index."""
        found = [each for each in self._scan_all_names() if each.key is not None and scope in (None, each.scope)]
        for steps in _split_into_chunks(list(_split_by_tag(found)), _MAX_PARALLEL_SCRIPTS):
            parts = [
                ([some[0].scopes], [arg for each in some for arg in (each.index, each.name[len(each.index) + 1 :])])
                for some in steps
            ]
            self.connection.run_many("listing", REINDEX, parts)
            yield from (each.key for some in steps for each in some if each.key is not None)

    def list_damaged(self, scope: str | None) -> Iterator[Damaged]:
        """Yield what belongs to no conversation. If the user may not use SCAN: only what the indexes name.

        Args:
            scope: The scope; None for all scopes.
        """
        try:
            found = self._scan_all_names()
        except StoreRejected:
            indexes = self.listing.find_indexes(scope)
            names = {name for pairs in indexes.values() for pair in pairs for name in pair}
            names.update(self.layout.scopes() if scope is None else ())
            found = [self.layout.parse(name) for name in sorted(names)]
        for each in found:
            if each.kind == "stray" and (scope is None or each.scope in (None, scope)):
                yield report_stray(each.name, NOT_A_CONVERSATION)
        listing = [
            each for each in found if each.kind == "scopes" or (each.kind == "index" and scope in (None, each.scope))
        ]
        for some in _split_by_tag(listing):
            replies = self.connection.run("listing", KEY_TYPES, [some[0].scopes], [each.name for each in some])
            with translate_errors("listing"):
                types = [reply.decode() for _, reply in zip(some, replies, strict=True)]
            for each, type_name in zip(some, types, strict=True):
                if type_name not in (_TYPES[each.kind], "none"):
                    what = "set of the scopes" if each.kind == "scopes" else "index of the scope"
                    reason = f"the key of the {what} holds a {type_name}; remove it and run `chathistory doctor`"
                    yield report_stray(each.name, reason)
        for tag, member in self.listing.read_scopes() if scope is None else ():
            if self.layout.parse_scope(member) is None:
                yield report_stray(
                    b"%s %s" % (tag, member), "this member of the set is not the name of a scope; remove it"
                )

    def remove_leftovers(self, scope: str) -> Leftovers:
        """Remove everything of a scope except readable conversations, and look again.

        Args:
            scope: The scope.

        Returns:
            How many keys were removed, and the names of what is left.
        """
        can_scan = True
        try:
            found = self._find_names(scope, can_scan=True)
        except StoreRejected:
            found, can_scan = self._find_names(scope, can_scan=False), False
        removed = sum(map(self._remove_key, found))
        for index, scopes in self.layout.indexes(scope):
            after: list[bytes] | None = []
            while after is not None:  # each page removes index entries without a conversation
                reply = self.connection.run("erase", LIST_PAGE, [index, scopes], [b"%d" % _STEP, *after])
                with translate_errors("erase"):
                    after = None if is_damaged_index(reply) or not reply[0] else reply[:2]
            # no conversation has an empty id: this only removes the scope's name from `scopes` if nothing is left
            self.connection.run("erase", REMOVE_LEFTOVER, [index + b":", index, scopes], [b"other"])
        left = tuple(printable_name(each.name) for each in self._find_names(scope, can_scan=can_scan))
        return Leftovers(removed, left, can_scan and not left)

    def _scan_all_names(self) -> list[ParsedName]:
        probe = next(self.layout.scopes())
        names = self.connection.call(
            "listing", lambda client: sorted(scan_names(client, self.layout.scan_pattern, probe))
        )
        return [self.layout.parse(name) for name in names]

    def _find_names(self, scope: str, *, can_scan: bool) -> list[ParsedName]:
        """Return the keys of a scope and those of unknown scopes; without SCAN, only the keys that its indexes name."""
        if can_scan:
            return [each for each in self._scan_all_names() if each.scope in (None, scope) and each.kind != "scopes"]
        walked = self.listing.walk_indexes([index for index, _ in self.layout.indexes(scope)])
        names = ([index] if ids is None else [b"%s:%s" % (index, each) for each in ids] for index, ids in walked)
        return [self.layout.parse(name) for name in chain.from_iterable(names)]

    def _remove_key(self, found: ParsedName) -> bool:
        """Remove a key unless it is a readable conversation, or of an unknown scope; return whether it was removed."""
        if found.scope is None:
            return False
        is_stray = found.kind == "stray"  # the keys that would be its index and scopes may be in another slot
        keys = [found.name] * 3 if is_stray else [found.name, found.index, found.scopes]
        kind = b"other" if is_stray else found.kind.encode()
        reply = self.connection.run("erase", REMOVE_LEFTOVER, keys, [kind])
        if isinstance(reply, bytes) and found.key is not None:
            try:
                decode_head(found.key, reply)
            except ChatHistoryError:  # the script checks only a part of the head
                reply = self.connection.run("erase", REMOVE_LEFTOVER, keys, [kind, reply])
        return bool(reply == 1)


def _split_by_tag(found: Iterable[ParsedName]) -> Iterator[Sequence[ParsedName]]:
    """Yield lists of keys that one script may access, of the size for one script."""
    tags: dict[bytes, list[ParsedName]] = defaultdict(list)
    for each in found:
        tags[each.scopes].append(each)
    return chain.from_iterable(_split_into_chunks(every, _STEP) for every in tags.values())


def _split_into_chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def scan_names(client: Client, pattern: bytes, probe: bytes) -> set[bytes]:
    """Return the names of all keys that match a pattern, on all primaries.

    Args:
        client: The client.
        pattern: The pattern for SCAN.
        probe: A key of the store. A server that refuses PERSIST for it is a replica.

    Raises:
        redis.RedisError: A server refuses, or cannot be reached.
    """
    found: set[bytes] = set()
    broken = 0
    for number in range(_MAX_PASSES):
        before = len(found)
        try:
            outcome = _scan_once(client, pattern, probe, found)
        except (redis.ConnectionError, ReadOnlyError):
            broken += 1
            if broken == _MAX_BROKEN_PASSES or len(found) == before:
                raise
            if isinstance(client, redis.Redis):  # a primary that has become a replica: look for the new one
                client.connection_pool.disconnect(inuse_connections=False)
            continue
        if outcome == "steady" or (outcome == "unknown" and number and len(found) == before):
            return found
    raise redis.ConnectionError(f"servers changed during each of {_MAX_PASSES} scans of all keys; try again later")


def _scan_once(
    client: Client, pattern: bytes, probe: bytes, found: set[bytes]
) -> Literal["steady", "changed", "unknown"]:
    """Add the names of one pass to `found`; return whether the servers stayed the same."""
    servers = list_primaries(client)
    owners = _slot_owners(client)
    is_steady = True
    for server in servers:
        with _open_connection(server) as ask:
            if isinstance(client, RedisCluster):
                is_steady &= _moves_no_slot(ask)
            found.update(_scan_server(ask, pattern))
            is_steady &= _moves_no_slot(ask) if isinstance(client, RedisCluster) else _is_primary(ask, probe)
    list_primaries(client)
    if owners != _slot_owners(client):
        return "changed"
    return "steady" if is_steady else "unknown"


def _slot_owners(client: Client) -> dict[int, str]:
    if not isinstance(client, RedisCluster):
        return {}
    return {slot: nodes[0].name for slot, nodes in client.nodes_manager.slots_cache.items()}


@contextmanager
def _open_connection(server: redis.Redis) -> Iterator[_SendCommand]:
    """Yield a function that sends a command over one connection, always the same, and returns the reply."""
    pool = server.connection_pool
    connection = pool.get_connection()

    def ask(*command: Any) -> Any:
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)

    try:
        yield ask
    except ResponseError:  # a complete reply: the connection is still usable
        raise
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _scan_server(ask: _SendCommand, pattern: bytes) -> Iterator[bytes]:
    cursor = b"0"
    while True:
        cursor, names = ask("SCAN", cursor, "MATCH", pattern, "COUNT", _COUNT)
        yield from names
        if cursor == b"0":
            return


def _is_primary(ask: _SendCommand, probe: bytes) -> bool:
    """Return True if a server is known to be a primary; a replica accepts no writes and raises `ReadOnlyError`."""
    try:
        ask("PERSIST", probe)
    except NoPermissionError:
        return False
    return True


def _moves_no_slot(ask: _SendCommand) -> bool:
    """Return True if a server of a Cluster is known to move no slot; it reports its own moves only, in brackets."""
    try:
        nodes: bytes = ask("CLUSTER", "NODES")
    except ResponseError:
        return False
    own = [line for line in nodes.splitlines() if b"myself" in line]
    return bool(own) and b" [" not in own[0]
