r"""The keys of a conversation, and the elements of its list.

    PREFIX{TAG}             the scopes of this tag                                               SET
    PREFIX{TAG}:SCOPE       the index of a scope: ids, by the time of their last activity        ZSET
    PREFIX{TAG}:SCOPE:ID    a conversation: its records, then its head                           LIST

    record    BODY \n POSITION
    head      1 \n START \n STOP \n VERSION \n UPDATED \n EXPIRES or nothing \n PAYLOAD

In a scope, %3A is written for a colon and %25 for a percent sign, so that it ends at the first colon: no two
conversations share a key, and each key names its conversation. A prefix has no braces, so no prefix matches the keys of
another one.

In a Cluster, a script can only access keys of one hash slot, and all keys with one tag are in one slot. So a
conversation has the tag of its index: version check, records, head and index change together, in a Cluster as
elsewhere. A large scope must not fill a single node, so it is spread over 16 of 256 tags. Elsewhere there is one tag.

The head comes last, so that one plain LRANGE returns it together with the newest records. Its `1` is the number of this
layout; the scripts parse it as well. Each record contains its position. So missing, duplicate and exchanged records are
noticed, and a list can be understood without its head. A record without a line break is of an earlier form; its place
in the list gives its position.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

from chathistory.errors import ChatHistoryError, CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.storage.values import LARGEST_NUMBER, Damaged, Head, Key, Record, Revision

__all__ = [
    "EXPIRY_MARGIN",
    "NOT_A_CONVERSATION",
    "KeyNames",
    "Layout",
    "ParsedName",
    "check_bytes",
    "decode_head",
    "decode_record",
    "decode_records",
    "describe_damage",
    "encode_record",
    "encode_revision",
    "is_damage",
    "is_damaged_index",
    "printable_name",
    "report_stray",
    "time_to_live",
]

EXPIRY_MARGIN = 3_600_000
"""Milliseconds that a conversation stays on the server after its expiry: clocks may differ by so much."""

NOT_A_CONVERSATION = "the name of this key is not one of this store; move or remove the key"

_NAME = re.compile(rb"(\{[^}]*\})(?::([^:]*)(?::(.*))?)?", re.DOTALL)
_HEAD = re.compile(
    rb"1\n(?P<start>\d{1,16})\n(?P<stop>\d{1,16})\n(?P<version>[ -~]{1,32})\n(?P<updated>\d{1,16})\n"
    rb"(?P<expires>\d{0,16})\n(?P<payload>[^\x00-\x1f]*)"
)
_LAYOUT = re.compile(rb"(\d{1,9})\n(?:(\d{1,16})\n)?")


class KeyNames(NamedTuple):
    """The keys of one conversation; all have one tag."""

    conversation: bytes
    listing: bytes
    scopes: bytes


@dataclass(frozen=True, slots=True)
class ParsedName:
    """The name of a key, parsed.

    Attributes:
        name: The name.
        kind: "stray" for a name that this store gives to no conversation, index or set of scopes.
        scope: The scope; None if the name does not contain it.
        key: The conversation; None for other keys.
        index: The key of the index that this key belongs to; b"" if the name does not contain it.
        scopes: The key of the set of scopes that this key belongs to.
    """

    name: bytes
    kind: Literal["scopes", "index", "conversation", "stray"]
    scope: str | None = None
    key: Key | None = None
    index: bytes = b""
    scopes: bytes = b""


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys below one prefix.

    Attributes:
        prefix: The beginning of all keys.
        tags: The number of tags of the store. Never change it: stored conversations would not be found.
        tags_per_scope: The number of tags of one scope.
    """

    prefix: str
    tags: int = 1
    tags_per_scope: int = 1

    @classmethod
    def for_cluster(cls, prefix: str) -> Self:
        """Return the layout in a Cluster."""
        return cls(prefix, tags=256, tags_per_scope=16)

    def names(self, key: Key) -> KeyNames:
        """Return the keys of a conversation."""
        scopes = self._scopes_of_tag(zlib.crc32(key.scope.encode()) + zlib.crc32(key.id.encode()) % self.tags_per_scope)
        index = self.index(scopes, key.scope)
        return KeyNames(index + b":" + key.id.encode(), index, scopes)

    def indexes(self, scope: str) -> list[tuple[bytes, bytes]]:
        """Return the keys of the indexes that together list a scope, each with the scopes of its tag."""
        first = zlib.crc32(scope.encode())
        scopes = [self._scopes_of_tag(first + offset) for offset in range(self.tags_per_scope)]
        return [(self.index(each, scope), each) for each in scopes]

    def scopes(self) -> Iterator[bytes]:
        """Yield the keys of the scopes of every tag."""
        return (self._scopes_of_tag(tag) for tag in range(self.tags))

    def parse(self, name: bytes) -> ParsedName:
        """Parse the name of a key that begins with the prefix and a brace."""
        found = _NAME.fullmatch(name, len(self.prefix.encode()))
        if not found:
            return ParsedName(name, "stray")
        scopes, index = name[: found.end(1)], name[: found.end(2)]
        if found[2] is None:
            return ParsedName(name, "scopes" if scopes in self.scopes() else "stray", scopes=scopes)
        scope = self.parse_scope(found[2])
        if scope is None:
            return ParsedName(name, "stray")
        if found[3] is None:
            is_index = (index, scopes) in self.indexes(scope)
            return ParsedName(name, "index" if is_index else "stray", scope, None, index, scopes)
        key = self.parse_key(scope, found[3])
        if key is None or self.names(key).conversation != name:
            return ParsedName(name, "stray", scope, None, index, scopes)
        return ParsedName(name, "conversation", scope, key, index, scopes)

    @staticmethod
    def index(scopes: bytes, scope: str) -> bytes:
        """Return the key of the index of a scope, for the set of scopes of its tag."""
        return scopes + b":" + scope.replace("%", "%25").replace(":", "%3A").encode()

    @classmethod
    def parse_scope(cls, name: bytes) -> str | None:
        """Return the scope of an encoded name in a key; None if it is not the encoding of a scope."""
        try:
            scope = name.decode().replace("%3A", ":").replace("%25", "%")
            Key(scope, "-")
        except (UnicodeDecodeError, InvalidInput):
            return None
        return scope if cls.index(b"", scope) == b":" + name else None

    @staticmethod
    def parse_key(scope: str, name: bytes) -> Key | None:
        """Return the key of a conversation from its scope and its encoded id; None if that is not an id."""
        try:
            return Key(scope, name.decode())
        except (UnicodeDecodeError, InvalidInput):
            return None

    @property
    def scan_pattern(self) -> bytes:
        """The pattern for SCAN that matches all keys of the store."""
        return re.sub(rb"([*?\[\]^\\-])", rb"\\\1", self.prefix.encode()) + b"{*"

    def _scopes_of_tag(self, number: int) -> bytes:
        return f"{self.prefix}{{{number % self.tags}}}".encode()


def encode_record(position: int, body: str) -> bytes:
    """Return the list element of a record."""
    return b"%s\n%d" % (body.encode(), position)


def encode_revision(revision: Revision) -> bytes:
    """Return the head from the version on; layout, start and stop come before it."""
    expires = "" if revision.expires is None else revision.expires
    return f"{revision.version}\n{revision.updated}\n{expires}\n{revision.payload}".encode()


def time_to_live(revision: Revision) -> bytes:
    """Return the milliseconds from now after which the server may remove the conversation; b"" for never.

    A duration does not depend on the server's clock, which may be wrong. It counts from now, or from `updated` if that
    is earlier, because a clock may be ahead. So the conversation may stay too long, but never too short.
    """
    if revision.expires is None:
        return b""
    since = min(revision.updated, time.time_ns() // 1000)
    left = min(max(revision.expires - since, 0) // 1000 + EXPIRY_MARGIN, 10**14)  # which is 3,000 years
    return b"%d" % left


def decode_head(key: Key, line: bytes) -> Head:
    """Return the head of a conversation from the last element of its list.

    Args:
        key: The conversation.
        line: The element.

    Raises:
        CorruptRecord: The element is not a valid head.
        UnsupportedRecord: A later version wrote it.
    """
    found = _HEAD.fullmatch(line)
    if found:
        start, stop, updated, expires = (int(found[name] or 0) for name in ("start", "stop", "updated", "expires"))
        payload = _decode_text(found["payload"])
        if payload is not None and start <= stop and max(stop, updated, expires) <= LARGEST_NUMBER:
            revision = Revision(found["version"].decode(), updated, expires if found["expires"] else None, payload)
            return Head(key, start, stop, revision)
    raise _head_error(key, line)


def _head_error(key: Key, line: bytes) -> ChatHistoryError:
    layout = _LAYOUT.match(line)
    if layout and int(layout[1]) > 1:
        return UnsupportedRecord(key, int(layout[2] or 0), int(layout[1]))
    return CorruptRecord(key, None, "the last element of its list is not a head")


def decode_record(position: int, element: Any) -> Record | str:
    """Return the record of a list element, or a sentence that says why it is damaged.

    Args:
        position: The position that the record must have.
        element: The element.
    """
    body, newline, stored_position = element.rpartition(b"\n")
    if element == b"\n":
        return "it is missing"
    if newline and stored_position != b"%d" % position:
        return "another record is stored in its place"
    text = _decode_text(body if newline else element)
    return "it is not UTF-8" if text is None else Record(position, text)


def decode_records(key: Key, first: int, elements: Iterable[bytes]) -> list[Record]:
    """Return the records of consecutive elements.

    Args:
        key: The conversation.
        first: The position of the first element.
        elements: The elements.

    Raises:
        CorruptRecord: At the first damaged record.
    """
    records: list[Record] = []
    for position, element in enumerate(elements, first):
        record = decode_record(position, element)
        if isinstance(record, str):
            raise CorruptRecord(key, position, record)
        records.append(record)
    return records


def _decode_text(line: bytes) -> str | None:
    """Return the text; None if it is not UTF-8. An error raised in the handler would quote the line in its context."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def check_bytes(part: Any) -> bytes:
    """Return a part of a reply. Raises `TypeError` if it is not bytes: no script of this package returns that."""
    if not isinstance(part, bytes):
        raise TypeError
    return part


def is_damage(reply: Any) -> bool:
    """Return True if a reply reports damage: {'!', kind, details}."""
    return isinstance(reply, list) and len(reply) > 0 and reply[0] == b"!"


def is_damaged_index(reply: Any) -> bool:
    """Return True if a reply reports that a key of the listing is damaged. Raises `TypeError` if it is not a list."""
    if not isinstance(reply, list):
        raise TypeError
    return is_damage(reply)


def describe_damage(key: Key, reply: list[bytes]) -> ChatHistoryError:
    """Return the error for damage of a conversation that a script has reported.

    Args:
        key: The conversation.
        reply: The report: b"!", the kind of damage, and details.
    """
    _, kind, details = reply
    if kind == b"type":
        return CorruptRecord(key, None, f"its key holds a {details.decode()} instead of a list")
    if kind == b"length":
        return CorruptRecord(key, None, f"its list holds {details.decode()}")
    return _head_error(key, details)


def report_stray(name: bytes, reason: str) -> Damaged:
    """Return the row of a walk for a key that belongs to no conversation.

    Args:
        name: The name of the key.
        reason: What is wrong, and what to do.
    """
    return Damaged(None, printable_name(name), CorruptRecord(None, None, reason))


def printable_name(name: bytes) -> str:
    """Return the name of a key as text that can be printed."""
    text = name.decode(errors="backslashreplace")
    return text if text.isprintable() else text.encode("unicode_escape").decode()
