"""Which keys a conversation has.

    PREFIX{TAG}             the scopes of this tag                                               SET
    PREFIX{TAG}:SCOPE       their conversations: ids, by the time of their last append           ZSET
    PREFIX{TAG}:SCOPE:ID    a conversation: its bodies, then its head                            LIST

A scope is written with %3A for a colon and %25 for a percent sign, so that it ends at the first colon: no two
conversations share a key, and each key says whose it is. A prefix has no braces, so none reaches another one's keys.

The head comes last, so that one plain LRANGE gives it together with the newest records.

In a Cluster, a script can only touch keys of one hash slot, and all keys with one tag are in one slot. So a
conversation has the tag of its index: guard, records, head and index change together, in a Cluster as elsewhere. For a
large scope not to fill a single node, it is spread over 16 of 256 tags. Elsewhere there is one tag.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from chathistory.store import Key

__all__ = ["CLUSTER", "PLAIN", "Layout", "Names", "Spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Over how many tags a store, and a scope in it, is spread. To change these is to lose sight of what is stored."""

    tags: int
    per_scope: int


PLAIN = Spread(tags=1, per_scope=1)
CLUSTER = Spread(tags=256, per_scope=16)


class Names(NamedTuple):
    """The keys of one conversation; all have one tag."""

    conversation: bytes
    listing: bytes
    scopes: bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys below one prefix."""

    prefix: str
    spread: Spread = PLAIN

    def names(self, key: Key) -> Names:
        """Return the keys of a conversation."""
        scopes = self._scopes(self._first(key.scope) + zlib.crc32(key.id.encode()) % self.spread.per_scope)
        index = self.index(scopes, key.scope)
        return Names(index + b":" + key.id.encode(), index, scopes)

    def indexes(self, scope: str) -> list[tuple[bytes, bytes]]:
        """Return the keys of the indexes that together list a scope, each with the scopes of its tag."""
        first = self._first(scope)
        scopes = [self._scopes(first + offset) for offset in range(self.spread.per_scope)]
        return [(self.index(each, scope), each) for each in scopes]

    def scopes(self) -> Iterator[bytes]:
        """Yield the keys of the scopes of every tag."""
        return (self._scopes(tag) for tag in range(self.spread.tags))

    @staticmethod
    def index(scopes: bytes, scope: str) -> bytes:
        """Return the key of the index of a scope, beside the scopes of its tag."""
        return scopes + b":" + scope.replace("%", "%25").replace(":", "%3A").encode()

    @staticmethod
    def scope(name: bytes) -> str:
        """Return the scope that is written so in a key."""
        return name.decode().replace("%3A", ":").replace("%25", "%")

    def _first(self, scope: str) -> int:
        return zlib.crc32(scope.encode())

    def _scopes(self, number: int) -> bytes:
        return f"{self.prefix}{{{number % self.spread.tags}}}".encode()
