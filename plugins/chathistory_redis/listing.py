"""Pages of a listing, and names, as the index has them."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chathistory.errors import ChatHistoryError, InvalidInput
from chathistory.storage.store import Cursor, Damaged, Head, Key, Page
from chathistory_redis.damage import damaged_conversation, is_damage, is_wrong_listing, reported, unnamed
from chathistory_redis.faults import reading
from chathistory_redis.heads import decoded_head
from chathistory_redis.layout import Layout
from chathistory_redis.link import Link
from chathistory_redis.scripts import IDS, PAGE, SCOPES

__all__ = ["Listing"]

_AT_ONCE = b"500"  # entries of an index that one step of `keys` looks at
_TIME = re.compile(r"-?(\d{1,400}(\.\d{1,40})?(e[+-]?\d{1,3})?|inf)")


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry of an index: its place in the order, and what is there."""

    time: bytes
    name: bytes
    what: Head | Damaged

    @property
    def order(self) -> tuple[float, bytes]:
        return float(self.time), self.name


@dataclass(frozen=True, slots=True)
class Listing:
    """The index of each scope, which is where it is in a Cluster as well."""

    link: Link
    layout: Layout

    def page(self, scope: str, after: Cursor | None, limit: int) -> Page[Head]:
        """Return a page. The order is that of the index, so that a wrong time in it hides no other conversation."""
        place = [] if after is None else _decoded(after)
        parts = [(names, place) for names in self.layout.indexes(scope)]
        rows: list[_Row] = []
        damaged: list[Damaged] = []
        while parts:
            args = [(names, [b"%d" % (limit + 1), *at]) for names, at in parts]
            replies = zip(parts, self.link.gather("listing", PAGE, args), strict=True)
            parts = []
            for (names, _), reply in replies:
                with reading("listing"):
                    if is_wrong_listing(reply):
                        damaged += [_wrong_index(names[0], reply)] if after is None else []
                        continue
                    found = [self._row(scope, names[0], entry) for entry in reply[2:]]
                    rows += found
                    if reply[0] and sum(isinstance(row.what, Head) for row in found) <= limit:
                        parts.append((names, reply[:2]))
        with reading("listing"):
            rows.sort(key=lambda row: row.order, reverse=True)
        heads = [at for at, row in enumerate(rows) if isinstance(row.what, Head)]
        if len(heads) <= limit:
            return _page(rows, damaged, None)
        last = heads[limit - 1]
        return _page(rows[: last + 1], damaged, _encoded(rows[last]))

    def all_keys(self) -> Iterator[Key]:
        """Yield the keys of all scopes."""
        tags = list(self.layout.scopes())
        replies = self.link.gather("listing", SCOPES, [([tag], []) for tag in tags])
        found: dict[str, list[bytes]] = {}
        with reading("listing"):
            for tag, names in zip(tags, replies, strict=True):
                for scope in () if is_wrong_listing(names) else map(self.layout.scope, names):
                    if scope is not None:
                        found.setdefault(scope, []).append(tag)
        for scope, homes in found.items():
            yield from self._keys(scope, [self.layout.index(tag, scope) for tag in homes])

    def keys(self, scope: str) -> Iterator[Key]:
        """Yield the keys of a scope."""
        return self._keys(scope, [index for index, _ in self.layout.indexes(scope)])

    def _keys(self, scope: str, indexes: Sequence[bytes]) -> Iterator[Key]:
        parts = [([index], [_AT_ONCE]) for index in indexes]
        seen: set[bytes] = set()
        while parts:
            replies = self.link.gather("listing", IDS, parts)
            with reading("listing"):
                walked = [
                    (part, reply) for part, reply in zip(parts, replies, strict=True) if not is_wrong_listing(reply)
                ]
                new = {name for _, reply in walked for name in reply[2:]} - seen
                keys = [self.layout.key(scope, name) for name in new]
                parts = [(names, [_AT_ONCE, *reply[:2]]) for (names, _), reply in walked if reply[0]]
            seen |= new
            yield from (key for key in keys if key is not None)

    def _row(self, scope: str, index: bytes, entry: list[Any]) -> _Row:
        """Return what an entry of an index stands for."""
        name, time, line = entry
        place = b"%s:%s" % (index, name)
        key = self.layout.key(scope, name)
        if key is None or self.layout.names(key).conversation != place:
            return _Row(time, name, unnamed(place, "no conversation of this store has a key of this name"))
        try:
            if is_damage(line):
                raise reported(key, line)
            return _Row(time, name, decoded_head(key, line))
        except ChatHistoryError as error:
            return _Row(time, name, damaged_conversation(key, place, error.with_traceback(None)))


def _page(rows: Sequence[_Row], damaged: Sequence[Damaged], following: Cursor | None) -> Page[Head]:
    heads = [row.what for row in rows if isinstance(row.what, Head)]
    return Page(heads, following, (*damaged, *(row.what for row in rows if isinstance(row.what, Damaged))))


def _wrong_index(index: bytes, reply: list[bytes]) -> Damaged:
    reason = f"the index of the scope is a {reply[2].decode()} instead of a sorted set; remove this key, and run doctor"
    return unnamed(index, reason)


def _encoded(row: _Row) -> Cursor:
    """Return the cursor of the page that ends with a row: its place in the index, exactly as Redis writes it."""
    text = json.dumps([row.time.decode(), row.name.decode()])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(cursor: Cursor) -> list[bytes]:
    """Return the time and the id below which the next page begins. Raises `InvalidInput` for what is no cursor."""
    try:
        time, name = json.loads(base64.b64decode(cursor + "==", altchars=b"-_", validate=False))
        if _TIME.fullmatch(str(time)):
            return [str(time).encode(), name.encode()]
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        pass
    raise InvalidInput("this is not a cursor that a page of this listing gave")
