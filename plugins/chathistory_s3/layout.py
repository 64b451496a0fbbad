"""What the objects are called. All are below the prefix, and names never end where another one goes on.

    <prefix>c/<scope>/<id>                                           a conversation: its head and newest records
    <prefix>s/<scope>/<id>/<incarnation>/<first position>-<token>    a segment
    <prefix>m/<scope>/<time>/<id>/<incarnation>                      a marker, of no content
    <prefix>probe/<token>                                            a look at the service, for a moment

An *incarnation* is a token made with a conversation: what was left of a deleted one never mixes with the next. A
segment's name is used once. A marker's time is the time that is left until the year 318857: the newest comes first.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from chathistory.errors import InvalidInput
from chathistory.storage.safe_names import safe_name
from chathistory.storage.store import Key

__all__ = ["BUCKET", "Layout", "Marker", "first_of", "is_name", "marker_time", "name_of", "place_of", "token"]

BUCKET = 3_600_000_000
"""Microseconds within which a marker stays where it is: an hour."""

_END_OF_TIME = 10**19 - 1


def token() -> str:
    """Return 16 characters that nobody else has."""
    return secrets.token_hex(8)


def marker_time(updated: int, width: int) -> str:
    """Return the time of a marker: the same within `width` microseconds, the smaller the later."""
    return f"{_END_OF_TIME - min(updated - updated % width, _END_OF_TIME):019d}"


def first_of(segment: str) -> int:
    """Return the first position of the segment with this object key; -1: it is none."""
    digits = segment.rpartition("/")[2].partition("-")[0]
    return int(digits) if digits.isdecimal() else -1


def name_of(part: str) -> str | None:
    """Return the text whose safe name `part` is; None: it is cut (its head knows it), or it is no such name."""
    try:
        text = unquote_to_bytes(part.replace("=", "%")).decode()
        Key(text, text)
    except (UnicodeDecodeError, InvalidInput):
        return None
    return text if safe_name(text) == part else None


@lru_cache(maxsize=4096)
def is_name(part: str) -> bool:
    """Tell whether a part of an object key is a safe name, whole or cut."""
    return name_of(part) is not None or _CUT.fullmatch(part) is not None


def place_of(key: Key) -> str:
    """Return where a conversation is below all of its kinds of object: `<scope>/<id>` in safe names."""
    return f"{safe_name(key.scope)}/{safe_name(key.id)}"


@dataclass(frozen=True, slots=True)
class Marker:
    """One marker: where it stands, and what it is of; `scope` and `id` are safe names."""

    object: str
    scope: str
    time: str
    id: str
    incarnation: str

    @property
    def place(self) -> str:
        """Where it stands within its time: unique, and the order of its names."""
        return f"{self.id}/{self.incarnation}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The names below a prefix, which is empty or ends with a slash."""

    prefix: str

    def head(self, key: Key) -> str:
        """Return the object key of a conversation."""
        return self.heads(None) + place_of(key)

    def heads(self, scope: str | None) -> str:
        """Return what the object keys of all conversations (of a scope) begin with."""
        return f"{self.prefix}c/" if scope is None else f"{self.prefix}c/{safe_name(scope)}/"

    def place(self, object_key: str) -> str | None:
        """Return the place, `<scope>/<id>`, of a conversation's object; None: it is none."""
        place = object_key.removeprefix(self.heads(None))
        return place if _PLACE.fullmatch(place) and all(map(is_name, place.split("/"))) else None

    def key_of(self, object_key: str, scope: str | None = None) -> Key | None:
        """Return whose an object is, as far as its name tells; None: no conversation's, or the name is cut.

        `scope` is the one in whose folder the object was looked for, if it was: that need not be told by the name.
        """
        folder, _, name = (self.place(object_key) or "").partition("/")
        told = scope if scope is not None and safe_name(scope) == folder else name_of(folder) if folder else None
        id_ = name_of(name) if name else None
        return Key(told, id_) if told is not None and id_ is not None else None

    def segments_of(self, scope: str | None) -> str:
        """Return what the object keys of all segments (of a scope) begin with."""
        return f"{self.prefix}s/" if scope is None else f"{self.prefix}s/{safe_name(scope)}/"

    def segments_below(self, place: str) -> str:
        """Return what the object keys of the segments of all incarnations of a place begin with."""
        return f"{self.prefix}s/{place}/"

    def segments(self, key: Key, incarnation: str) -> str:
        """Return what the object keys of all segments of an incarnation begin with."""
        return self.segments_at(place_of(key), incarnation)

    def segments_at(self, place: str, incarnation: str) -> str:
        """Return the same for a place."""
        return f"{self.prefix}s/{place}/{incarnation}/"

    def segment(self, key: Key, incarnation: str, name: str) -> str:
        """Return the object key of a segment."""
        return self.segments(key, incarnation) + name

    def place_of_segment(self, object_key: str) -> str | None:
        """Return the place of the conversation that a segment is of; None: it is no segment."""
        found = _SEGMENT.fullmatch(object_key.removeprefix(f"{self.prefix}s/"))
        return found[1] if found and all(map(is_name, found[1].split("/"))) else None

    def incarnation_of_segment(self, object_key: str) -> str:
        """Return the incarnation that a segment is of, "" if it is no segment."""
        found = _SEGMENT.fullmatch(object_key.removeprefix(f"{self.prefix}s/"))
        return found[2] if found else ""

    def markers(self, scope: str | None) -> str:
        """Return what the object keys of all markers (of a scope) begin with."""
        return f"{self.prefix}m/" if scope is None else f"{self.prefix}m/{safe_name(scope)}/"

    def marker(self, key: Key, time: str, incarnation: str) -> str:
        """Return the object key of a marker."""
        return self.marker_at(place_of(key), time, incarnation)

    def marker_at(self, place: str, time: str, incarnation: str) -> str:
        """Return the same for a place."""
        scope, _, id_ = place.partition("/")
        return f"{self.markers(None)}{scope}/{time}/{id_}/{incarnation}"

    def of(self, marker: Marker) -> str:
        """Return the object key of the conversation that a marker is of."""
        return f"{self.heads(None)}{marker.scope}/{marker.id}"

    def parsed_marker(self, object_key: str) -> Marker | None:
        """Read a marker's object key; None: it is none."""
        found = _MARKER.fullmatch(object_key.removeprefix(self.markers(None)))
        return Marker(object_key, *found.groups()) if found and is_name(found[1]) and is_name(found[3]) else None

    def probes(self) -> str:
        """Return what the object keys of all probes begin with."""
        return f"{self.prefix}probe/"

    def probe(self) -> str:
        """Return the object key of a new probe."""
        return f"{self.probes()}{token()}"

    def is_probe(self, object_key: str) -> bool:
        """Tell whether an object is a probe."""
        return _TOKEN.fullmatch(object_key.removeprefix(self.probes())) is not None


_SAFE = r"[a-z0-9_=][a-z0-9_.=~-]{0,119}"
_CUT = re.compile("[a-z0-9_.=-]{80}~[0-9a-f]{39}")
_PLACE = re.compile(rf"{_SAFE}/{_SAFE}")
_SEGMENT = re.compile(rf"({_SAFE}/{_SAFE})/([0-9a-f]{{16}})/[0-9]{{19}}-[0-9a-f]{{16}}")
_TOKEN = re.compile("[0-9a-f]{16}")
_MARKER = re.compile(rf"({_SAFE})/([0-9]{{19}})/({_SAFE})/([0-9a-f]{{16}})")
