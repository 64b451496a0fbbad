"""What stands below the prefix of a store, found in the keys themselves and not in an index that can be lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chathistory.errors import ChatHistoryError, StoreRejected
from chathistory.storage.store import Damaged, Key, Leftovers
from chathistory_redis.damage import is_wrong_listing, place_of, unnamed
from chathistory_redis.faults import reading
from chathistory_redis.heads import decoded_head
from chathistory_redis.layout import Layout, Named
from chathistory_redis.link import Link
from chathistory_redis.scripts import CLEAR, IDS, KINDS, PAGE, REINDEX, SCOPES

__all__ = ["Walk"]

T = TypeVar("T")

_AT_ONCE = 500
_NODES = 32  # scripts on the way at the same time, in a Cluster
_TYPES = {"scopes": "set", "index": "zset"}


@dataclass(frozen=True, slots=True)
class Walk:
    """The walks over everything that a store keeps."""

    link: Link
    layout: Layout

    def keys(self, scope: str | None) -> Iterator[Key]:
        """Yield the key of every conversation of a scope (None: of all), having entered each into its index."""
        tags: dict[bytes, list[Named]] = defaultdict(list)
        for named in self._named():
            if named.key is not None and scope in (None, named.scope):
                tags[named.beside[1]].append(named)
        steps = [(tag, some) for tag, every in tags.items() for some in _chunks(every, _AT_ONCE)]
        for several in _chunks(steps, _NODES):
            parts = [([tag], [part for named in some for part in _entry(named)]) for tag, some in several]
            self.link.gather("listing", REINDEX, parts)
            yield from (named.key for _, some in several for named in some if named.key is not None)

    def damaged(self, scope: str | None) -> Iterator[Damaged]:
        """Yield what belongs to no conversation. Where SCAN is not allowed: only what the index leads to."""
        try:
            found = self._named()
        except StoreRejected:
            found = [self.layout.named(name) for name in self._listing(scope)]
        for named in found:
            if named.kind == "stray" and (scope is None or named.scope in (None, scope)):
                yield unnamed(named.name, "no conversation of this store has a key of this name")
        yield from self._wrong_types([named for named in found if named.kind in _TYPES], scope)
        if scope is None:
            yield from self._wrong_scopes()

    def remove_leftovers(self, scope: str) -> Leftovers:
        """Remove what a scope has beside conversations that can be read, and look again."""
        removed = 0
        try:
            found, complete = self._of(scope), True
        except StoreRejected:
            found, complete = self._indexed(scope), False
        for named in found:
            removed += self._cleared(named)
        for index, scopes in self.layout.indexes(scope):
            self._drain(index, scopes)
            self.link.run("erase", CLEAR, [index + b":", index, scopes], [b"other"])  # the scope's name in `scopes`
        left = tuple(place_of(named.name) for named in (self._of(scope) if complete else self._indexed(scope)))
        return Leftovers(removed, left, complete and not left)

    def _named(self) -> list[Named]:
        names = self.link.scan("listing", self.layout.pattern, next(self.layout.scopes()))
        return [self.layout.named(name) for name in sorted(names)]

    def _of(self, scope: str) -> list[Named]:
        """Return what stands in a scope, and what does not tell in which one it stands."""
        return [named for named in self._named() if named.scope in (None, scope) and named.kind != "scopes"]

    def _indexed(self, scope: str) -> list[Named]:
        """Return the conversations of a scope that its index names, and the index."""
        found: list[Named] = []
        for index, _ in self.layout.indexes(scope):
            place: list[bytes] = []
            while True:
                reply = self.link.run("erase", IDS, [index], [b"%d" % _AT_ONCE, *place])
                with reading("erase"):
                    if is_wrong_listing(reply):
                        found.append(self.layout.named(index))
                        break
                    place = reply[:2]
                    found += [self.layout.named(b"%s:%s" % (index, name)) for name in reply[2:]]
                    if not place[0]:
                        break
        return found

    def _cleared(self, named: Named) -> bool:
        """Remove a key unless it is a conversation that can be read, or does not tell its scope."""
        if named.scope is None:
            return False
        is_stray = named.kind == "stray"  # what would be beside it may be in another slot
        kind = b"other" if is_stray else named.kind.encode()
        keys = [named.name] * 3 if is_stray else [named.name, *named.beside]
        reply = self.link.run("erase", CLEAR, keys, [kind])
        if isinstance(reply, bytes) and named.key is not None:
            try:
                decoded_head(named.key, reply)
            except ChatHistoryError:  # the script did not look at all of it
                reply = self.link.run("erase", CLEAR, keys, [kind, reply])
        return bool(reply == 1)

    def _drain(self, index: bytes, scopes: bytes) -> None:
        """Have the entries of an index removed that lead nowhere, as every listing does."""
        place: list[bytes] = []
        while True:
            reply = self.link.run("erase", PAGE, [index, scopes], [b"%d" % _AT_ONCE, *place])
            with reading("erase"):
                if is_wrong_listing(reply) or not reply[0]:
                    return
                place = reply[:2]

    def _listing(self, scope: str | None) -> list[bytes]:
        """Return the keys of the listing of a scope (None: of those that are known)."""
        if scope is not None:
            return [name for pair in self.layout.indexes(scope) for name in pair]
        found: list[bytes] = []
        for tag, members in self._members():
            known = (self.layout.scope(member) for member in members)
            found += [tag, *(self.layout.index(tag, scope) for scope in known if scope is not None)]
        return found

    def _members(self) -> list[tuple[bytes, list[bytes]]]:
        """Return the keys of the sets of scopes, each with its members as far as it is one."""
        tags = list(self.layout.scopes())
        replies = self.link.gather("listing", SCOPES, [([tag], []) for tag in tags])
        with reading("listing"):
            return [
                (tag, [] if is_wrong_listing(reply) else list(reply)) for tag, reply in zip(tags, replies, strict=True)
            ]

    def _wrong_scopes(self) -> Iterator[Damaged]:
        for tag, members in self._members():
            with reading("listing"):
                wrong = [member for member in members if self.layout.scope(member) is None]
            for member in wrong:
                yield unnamed(b"%s %s" % (tag, member), "this member of the set is not the name of a scope")

    def _wrong_types(self, found: Sequence[Named], scope: str | None) -> Iterator[Damaged]:
        tags: dict[bytes, list[Named]] = defaultdict(list)
        for named in found:
            if named.kind == "scopes" or scope in (None, named.scope):
                tags[named.beside[1] or named.name].append(named)
        for tag, every in tags.items():
            for some in _chunks(every, _AT_ONCE):
                kinds = self.link.run("listing", KINDS, [tag], [named.name for named in some])
                with reading("listing"):
                    damaged = [_wrong_type(named, kind.decode()) for named, kind in zip(some, kinds, strict=True)]
                yield from (each for each in damaged if each is not None)


def _wrong_type(named: Named, kind: str) -> Damaged | None:
    """Return what is wrong with a key of the listing that has this type; None: nothing."""
    if kind in (_TYPES[named.kind], "none"):
        return None
    what = "set of the scopes" if named.kind == "scopes" else "index of the scope"
    return unnamed(named.name, f"the key of the {what} holds a {kind}; remove it, and doctor makes it anew")


def _entry(named: Named) -> list[bytes]:
    """Return the index of a conversation, and its id there."""
    index = named.beside[0]
    return [index, named.name[len(index) + 1 :]]


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))
