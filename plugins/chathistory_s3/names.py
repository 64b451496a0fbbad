"""The names of the objects. All are below the prefix, and no name is the beginning of another one.

    <prefix>c/<scope>/<id>                                           a conversation: its head and newest records
    <prefix>s/<scope>/<id>/<incarnation>/<first position>-<token>    a segment
    <prefix>m/<scope>/<time>/<id>/<incarnation>                      a marker, without content
    <prefix>probe/<token>                                            a probe of the service, removed after it

The *place* of a conversation is `<scope>/<id>`, in safe names. An *incarnation* is a token that is created with a
conversation: leftovers of a deleted one never mix with the next one. The name of a segment is used once. The time of a
marker counts down to the year 318857, so that the newest marker comes first.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from chathistory.errors import InvalidInput
from chathistory.storage.safe_names import safe_name
from chathistory.storage.values import Key

__all__ = [
    "HOUR",
    "UNKNOWN_TIME",
    "Marker",
    "ObjectNames",
    "SegmentName",
    "is_name",
    "marker_time",
    "new_token",
    "object_path",
]

HOUR = 3_600_000_000
"""Microseconds within which a marker does not move, unless recency is exact."""
UNKNOWN_TIME = "0" * 19
"""The time of an unknown marker."""

_END_OF_TIME = 10**19 - 1
_SAFE = r"[a-z0-9_=][a-z0-9_.=~-]{0,119}"
_CUT = re.compile("[a-z0-9_.=-]{80}~[0-9a-f]{39}")
_PLACE = re.compile(rf"{_SAFE}/{_SAFE}")
_SEGMENT = re.compile(rf"({_SAFE}/{_SAFE})/([0-9a-f]{{16}})/([0-9]{{19}})-[0-9a-f]{{16}}")
_TOKEN = re.compile("[0-9a-f]{16}")
_MARKER = re.compile(rf"({_SAFE})/([0-9]{{19}})/({_SAFE})/([0-9a-f]{{16}})")


def new_token() -> str:
    """Return 16 random hexadecimal digits, which nobody else has."""
    return secrets.token_hex(8)


def marker_time(updated: int, width: int) -> str:
    """Return the time in the name of a marker, which is smaller for later times.

    Args:
        updated: The time of the last write, in microseconds since 1970 UTC.
        width: Microseconds within which the result does not change.
    """
    return f"{_END_OF_TIME - min(updated - updated % width, _END_OF_TIME):019d}"


def object_path(key: Key) -> str:
    """Return the place of a conversation, which the names of all its objects contain: `<scope>/<id>` in safe names."""
    return f"{safe_name(key.scope)}/{safe_name(key.id)}"


def _decode_name(part: str) -> str | None:
    """Return the text that a safe name encodes; None if it is shortened, or not a safe name."""
    try:
        text = unquote_to_bytes(part.replace("=", "%")).decode()
        Key(text, text)
    except (UnicodeDecodeError, InvalidInput):
        return None
    return text if safe_name(text) == part else None


@lru_cache(maxsize=4096)
def is_name(part: str) -> bool:
    """Return True if a part of an object name is a safe name, whole or shortened."""
    return _decode_name(part) is not None or _CUT.fullmatch(part) is not None


@dataclass(frozen=True, slots=True)
class SegmentName:
    """The parts of the name of a segment; `first` is the position of its first record."""

    name: str
    place: str
    incarnation: str
    first: int


@dataclass(frozen=True, slots=True)
class Marker:
    """The parts of the name of a marker; `scope` and `id` are safe names."""

    name: str
    scope: str
    time: str
    id: str
    incarnation: str

    @property
    def place(self) -> str:
        """The place of its conversation."""
        return f"{self.scope}/{self.id}"

    @property
    def suffix(self) -> str:
        """The end of its name: unique within its time, and the order there."""
        return f"{self.id}/{self.incarnation}"


@dataclass(frozen=True, slots=True)
class ObjectNames:
    """The names below a prefix, which is empty or ends with a slash."""

    prefix: str

    def heads(self, scope: str | None = None) -> str:
        """Return the beginning of the names of all conversations (of a scope)."""
        return f"{self.prefix}c/" if scope is None else f"{self.prefix}c/{safe_name(scope)}/"

    def segments(self, scope: str | None = None) -> str:
        """Return the beginning of the names of all segments (of a scope)."""
        return f"{self.prefix}s/" if scope is None else f"{self.prefix}s/{safe_name(scope)}/"

    def markers(self, scope: str | None = None) -> str:
        """Return the beginning of the names of all markers (of a scope)."""
        return f"{self.prefix}m/" if scope is None else f"{self.prefix}m/{safe_name(scope)}/"

    def probes(self) -> str:
        """Return the beginning of the names of all probes."""
        return f"{self.prefix}probe/"

    def head(self, key: Key) -> str:
        """Return the name of a conversation's object."""
        return self.head_at(object_path(key))

    def head_at(self, place: str) -> str:
        """Return the name of the object of the conversation at a place."""
        return f"{self.heads()}{place}"

    def segments_at(self, place: str, incarnation: str | None = None) -> str:
        """Return the beginning of the names of the segments at a place (of all incarnations if it is None)."""
        return f"{self.segments()}{place}/" if incarnation is None else f"{self.segments()}{place}/{incarnation}/"

    def marker(self, place: str, time: str, incarnation: str) -> str:
        """Return the name of a marker."""
        scope, _, id_ = place.partition("/")
        return f"{self.markers()}{scope}/{time}/{id_}/{incarnation}"

    def parse_head(self, name: str) -> str | None:
        """Return the place in the name of a conversation's object; None if it is not such a name."""
        place = name.removeprefix(self.heads())
        return place if _PLACE.fullmatch(place) and all(map(is_name, place.split("/"))) else None

    def parse_segment(self, name: str) -> SegmentName | None:
        """Parse the name of a segment; None if it is not such a name."""
        found = _SEGMENT.fullmatch(name.removeprefix(self.segments()))
        if found is None or not all(map(is_name, found[1].split("/"))):
            return None
        return SegmentName(name, found[1], found[2], int(found[3]))

    def parse_marker(self, name: str) -> Marker | None:
        """Parse the name of a marker; None if it is not such a name."""
        found = _MARKER.fullmatch(name.removeprefix(self.markers()))
        return Marker(name, *found.groups()) if found and is_name(found[1]) and is_name(found[3]) else None

    def is_probe(self, name: str) -> bool:
        """Return True if an object is a probe."""
        return _TOKEN.fullmatch(name.removeprefix(self.probes())) is not None

    def key_of(self, name: str, scope: str | None = None) -> Key | None:
        """Return the key of a conversation from the name of its object.

        Args:
            name: The name of the object.
            scope: The scope of the folder with the object, if known; needed if its name is shortened.

        Returns:
            None if it is not the object of a conversation, or its name is shortened.
        """
        folder, _, part = (self.parse_head(name) or "").partition("/")
        if not part:
            return None
        known_scope = scope if scope is not None and safe_name(scope) == folder else _decode_name(folder)
        id_ = _decode_name(part)
        return Key(known_scope, id_) if known_scope is not None and id_ is not None else None
