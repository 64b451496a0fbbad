"""Pages of a listing, and keys, from the indexes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chathistory.errors import ChatHistoryError
from chathistory.storage.cursors import pack_cursor, unpack_cursor
from chathistory.storage.values import Cursor, Damaged, Head, Key, Page
from chathistory_redis.connection import RedisConnection
from chathistory_redis.errors import translate_errors
from chathistory_redis.schema import (
    NOT_A_CONVERSATION,
    Layout,
    check_bytes,
    decode_head,
    describe_damage,
    is_damage,
    is_damaged_index,
    printable_name,
    report_stray,
)
from chathistory_redis.scripts import LIST_IDS, LIST_PAGE, LIST_SCOPES

__all__ = ["Listing"]

_STEP = b"500"  # entries of an index that one script examines
_TIME = re.compile(r"-?(\d{1,400}(\.\d{1,40})?(e[+-]?\d{1,3})?|inf)")


@dataclass(frozen=True, slots=True)
class _IndexRow:
    """An entry of an index: its time and id there, and the conversation with that id."""

    time: bytes
    id: bytes
    item: Head | Damaged


@dataclass(frozen=True, slots=True)
class Listing:
    """The indexes: one for each scope; in a Cluster sixteen, which are read at the same time."""

    connection: RedisConnection
    layout: Layout

    def list_page(self, scope: str, after: Cursor | None, limit: int) -> Page[Head]:
        """Return a page of the listing, in the order of the index, so that a wrong time there hides no conversation.

        Args:
            scope: The scope.
            after: The cursor of the page before; None for the first page.
            limit: The most heads to return.

        Raises:
            StoreError: The servers could not be read.
        """
        start = [] if after is None else [str(part).encode() for part in unpack_cursor(after, _is_cursor)]
        parts = [(list(names), [b"%d" % (limit + 1), *start]) for names in self.layout.indexes(scope)]
        rows: list[_IndexRow] = []
        damaged: list[Damaged] = []
        while parts:
            replies = self.connection.run_many("listing", LIST_PAGE, parts)
            sent, parts = parts, []
            with translate_errors("listing"):
                for (names, _), reply in zip(sent, replies, strict=True):
                    if is_damaged_index(reply):
                        reason = f"the index of the scope is a {reply[2].decode()} instead of a sorted set"
                        if after is None:
                            damaged.append(
                                report_stray(names[0], f"{reason}; remove this key, and run `chathistory doctor`")
                            )
                        continue
                    found = [self._decode_row(scope, names[0], entry) for entry in reply[2:]]
                    rows += found
                    if reply[0] and sum(isinstance(row.item, Head) for row in found) <= limit:
                        parts.append((names, [b"%d" % (limit + 1), *reply[:2]]))
        with translate_errors("listing"):
            rows.sort(key=lambda row: (float(row.time), row.id), reverse=True)
        heads = [at for at, row in enumerate(rows) if isinstance(row.item, Head)]
        cursor = None
        if len(heads) > limit:
            rows = rows[: heads[limit - 1] + 1]
            cursor = pack_cursor(rows[-1].time.decode(), rows[-1].id.decode())  # exactly as Redis writes them
        items = [row.item for row in rows if isinstance(row.item, Head)]
        return Page(items, cursor, (*damaged, *(row.item for row in rows if isinstance(row.item, Damaged))))

    def _decode_row(self, scope: str, index: bytes, entry: list[Any]) -> _IndexRow:
        """Return the conversation of an entry of an index."""
        name, time, line = entry
        redis_key = b"%s:%s" % (index, name)
        key = self.layout.parse_key(scope, name)
        if key is None or self.layout.names(key).conversation != redis_key:
            return _IndexRow(time, name, report_stray(redis_key, NOT_A_CONVERSATION))
        try:
            if is_damage(line):
                raise describe_damage(key, line)
            return _IndexRow(time, name, decode_head(key, line))
        except ChatHistoryError as error:
            return _IndexRow(time, name, Damaged(key, printable_name(redis_key), error.with_traceback(None)))

    def list_keys(self, scope: str | None) -> Iterator[Key]:
        """Yield the keys of a scope; of all scopes if it is None."""
        for name, pairs in self.find_indexes(scope).items():
            seen: set[bytes] = set()
            for _, ids in self.walk_indexes([index for index, _ in pairs]):
                new = [each for each in ids or () if each not in seen]
                seen.update(new)
                yield from (key for each in new if (key := self.layout.parse_key(name, each)) is not None)

    def find_indexes(self, scope: str | None) -> dict[str, list[tuple[bytes, bytes]]]:
        """Return the index keys of a scope (of all known scopes if it is None), each with the scopes of its tag."""
        if scope is not None:
            return {scope: self.layout.indexes(scope)}
        found: dict[str, list[tuple[bytes, bytes]]] = {}
        for tag, member in self.read_scopes():
            name = self.layout.parse_scope(member)
            if name is not None:
                found.setdefault(name, []).append((self.layout.index(tag, name), tag))
        return found

    def read_scopes(self) -> list[tuple[bytes, bytes]]:
        """Return pairs of a tag and a member of its set of scopes; a damaged set counts as empty."""
        tags = list(self.layout.scopes())
        replies = self.connection.run_many("listing", LIST_SCOPES, [([tag], []) for tag in tags])
        with translate_errors("listing"):
            sets = [() if is_damaged_index(reply) else reply for reply in replies]
            return [(tag, check_bytes(member)) for tag, members in zip(tags, sets, strict=True) for member in members]

    def walk_indexes(self, indexes: Sequence[bytes]) -> Iterator[tuple[bytes, list[bytes] | None]]:
        """Yield each index with some of its ids, repeatedly until all ids were yielded; None instead of ids if damaged.

        Args:
            indexes: The keys of the indexes.
        """
        parts = [([index], [_STEP]) for index in indexes]
        while parts:
            replies = self.connection.run_many("listing", LIST_IDS, parts)
            found: list[tuple[bytes, list[bytes] | None]] = []
            sent, parts = parts, []
            with translate_errors("listing"):
                for (names, _), reply in zip(sent, replies, strict=True):
                    if is_damaged_index(reply):
                        found.append((names[0], None))
                        continue
                    found.append((names[0], [check_bytes(each) for each in reply[2:]]))
                    if reply[0]:
                        parts.append((names, [_STEP, *reply[:2]]))
            yield from found


def _is_cursor(time: Any, name: Any) -> bool:
    """Return True if the parts of a cursor are the time and the id of an entry; may also raise if they are not."""
    return _TIME.fullmatch(str(time)) is not None and isinstance(name.encode(), bytes)
