"""Which keys a conversation has.

    PREFIX{TAG}             the scopes of this tag                                               SET
    PREFIX{TAG}:SCOPE       their conversations: ids, by the time of their last activity         ZSET
    PREFIX{TAG}:SCOPE:ID    a conversation: its records, then its head                           LIST

A scope is written with %3A for a colon and %25 for a percent sign, so that it ends at the first colon: no two
conversations share a key, and each key says whose it is. A prefix has no braces, so none reaches another one's keys.

The head comes last, so that one plain LRANGE gives it together with the newest records.

In a Cluster, a script can only touch keys of one hash slot, and all keys with one tag are in one slot. So a
conversation has the tag of its index: guard, records, head and index change together, in a Cluster as elsewhere. For a
large scope not to fill a single node, it is spread over 16 of 256 tags. Elsewhere there is one tag.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from chathistory.errors import InvalidInput
from chathistory.storage.store import Key

__all__ = ["CLUSTER", "PLAIN", "Layout", "Named", "Names", "Spread"]

_NAME = re.compile(rb"(\{[^}]*\})(?::([^:]*)(?::(.*))?)?", re.DOTALL)


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
class Named:
    """What the name of a key says.

    kind: "stray" is what no conversation, index or set of scopes of this store can be called. scope: None if not told.
    key: of a conversation. beside: the keys that would be the index and the scopes of this one.
    """

    name: bytes
    kind: Literal["scopes", "index", "conversation", "stray"]
    scope: str | None = None
    key: Key | None = None
    beside: tuple[bytes, bytes] = (b"", b"")


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

    def named(self, name: bytes) -> Named:
        """Return what the name of a key says, which begins with the prefix and a brace."""
        found = _NAME.fullmatch(name, len(self.prefix.encode()))
        if not found:
            return Named(name, "stray")
        scopes = name[: found.end(1)]
        if found[2] is None:
            return Named(name, "scopes" if scopes in self.scopes() else "stray")
        scope = self.scope(found[2])
        index = name[: found.end(2)]
        if scope is None:
            return Named(name, "stray")
        if found[3] is None:
            kind: Literal["index", "stray"] = "index" if (index, scopes) in self.indexes(scope) else "stray"
            return Named(name, kind, scope, None, (index, scopes))
        key = self.key(scope, found[3])
        if key is None or self.names(key).conversation != name:
            return Named(name, "stray", scope, None, (index, scopes))
        return Named(name, "conversation", scope, key, (index, scopes))

    @staticmethod
    def index(scopes: bytes, scope: str) -> bytes:
        """Return the key of the index of a scope, beside the scopes of its tag."""
        return scopes + b":" + scope.replace("%", "%25").replace(":", "%3A").encode()

    @classmethod
    def scope(cls, name: bytes) -> str | None:
        """Return the scope that is written so in a key; None: none is."""
        try:
            scope = name.decode().replace("%3A", ":").replace("%25", "%")
            Key(scope, "-")
        except (UnicodeDecodeError, InvalidInput):
            return None
        return scope if cls.index(b"", scope) == b":" + name else None

    @staticmethod
    def key(scope: str, name: bytes) -> Key | None:
        """Return the key of a conversation whose id is written so; None: that is no id."""
        try:
            return Key(scope, name.decode())
        except (UnicodeDecodeError, InvalidInput):
            return None

    @property
    def pattern(self) -> bytes:
        """The pattern, for a SCAN, of all keys of the store."""
        return re.sub(rb"([*?\[\]^\\-])", rb"\\\1", self.prefix.encode()) + b"{*"

    def _first(self, scope: str) -> int:
        return zlib.crc32(scope.encode())

    def _scopes(self, number: int) -> bytes:
        return f"{self.prefix}{{{number % self.spread.tags}}}".encode()
