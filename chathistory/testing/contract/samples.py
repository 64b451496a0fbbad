"""What the suite stores: revisions, lines, and texts that stores are known to change."""

from __future__ import annotations

import itertools
import json
import uuid

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, Revision

__all__ = [
    "CLOCK_CHANGES",
    "EPOCH",
    "EXACT",
    "FAR",
    "KEY",
    "MARKER",
    "append_lines",
    "check_same_text",
    "create_conversation",
    "make_line",
    "make_lines",
    "make_revision",
    "shorten_text",
]

KEY = Key("scope", "conversation")
MARKER = "s3cr3t-marker"
"""Message text that must not appear in errors, reprs and log lines."""

EPOCH = 1_750_000_000_000_001
FAR = 4_102_444_800_123_457
"""An expiry in the year 2100: no store may remove a conversation before it."""

_HOUR = 3_600_000_000
_CHANGES = (1_743_296_400, 1_759_593_600, 1_761_440_400, 1_762_063_200)
"""Daylight saving changes of 2025, in Unix seconds: Europe in spring, Sydney, Europe in autumn, New York."""

CLOCK_CHANGES = [change * 1_000_000 + part * _HOUR // 2 for change in _CHANGES for part in (-3, -2, -1, 0, 1, 2, 3)]
"""Microseconds around these changes: local time shows some of them twice, and never shows others."""

_SHOWN = 80
_ticks = itertools.count()


def make_revision(*, updated: int | None = None, expires: int | None = None, payload: str = "") -> Revision:
    """Return a revision with a fresh version; without `updated`, each one is a microsecond later than the last."""
    return Revision(uuid.uuid4().hex, EPOCH + next(_ticks) if updated is None else updated, expires, payload)


def make_line(position: object) -> str:
    """Return the body for a position."""
    return f'{{"text": "line {position}"}}'


def make_lines(count: int, *, first: int = 0) -> list[str]:
    """Return the bodies for `count` positions, the first of them `first`."""
    return [make_line(position) for position in range(first, first + count)]


def create_conversation(store: HistoryStore, key: Key = KEY, count: int = 1, *, first: int = 0) -> Head:
    """Create a conversation of `count` lines; return its head."""
    return store.append(key, make_lines(count, first=first), after=None, revision=make_revision(), first=first)


def append_lines(store: HistoryStore, head: Head, count: int = 1) -> Head:
    """Append `count` lines after `head`; return the new head."""
    return store.append(head.key, make_lines(count, first=head.end), after=head, revision=make_revision())


def shorten_text(text: str) -> str:
    """Return the `repr` of a text for a failure message, at most 80 characters of it."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text):,} characters)"


def check_same_text(seen: str, expected: str, what: str) -> None:
    """Check that two texts are equal; a failure shows the first difference and not the whole texts."""
    if seen == expected:
        return
    place = next(
        (at for at, (a, b) in enumerate(zip(seen, expected, strict=False)) if a != b), min(len(seen), len(expected))
    )
    near = slice(max(place - 20, 0), place + 20)
    raise AssertionError(
        f"{what} was changed at character {place}: {seen[near]!r}, expected {expected[near]!r} "
        f"({len(seen):,} characters, expected {len(expected):,})"
    )


EXACT = {
    "empty": "",
    "blank": " ",
    "blanks at both ends": "  inner  ",
    "key order": '{"z": 1, "a": 2, "m": {"y": 1, "b": 2}}',
    "spacing": '{"a":1,  "b" :2}',
    "doubled key": '{"a": 1, "a": 2}',
    "null": '{"a": null, "b": [null]}',
    "just null": "null",
    "large integer": json.dumps({"n": 2**64 + 1, "m": -(2**70)}),
    "integer beyond doubles": json.dumps({"n": 2**53 + 1}),
    "floats": '{"a": -0.0, "b": 5e-324, "c": 1.0, "d": 1e2, "e": 0.1000000000000000055}',
    "numbers alone": "1e0",
    "keys with dots and dollars": '{"a.b": 1, "$set": {"$c": 2}, ".": 3, "": 4}',
    "escaped NUL": '{"a": "\\u0000", "\\u0000": 1}',
    "escaped lone surrogate": '{"a": "\\ud800"}',
    "escapes": '{"a": "\\n \\t \\" \\\\ \\/ \\u00e9"}',
    "line separators": "a\u2028b\u2029c",
    "next line": "a\x85b",
    "delete and C1": "a\x7f\x80\x9fb",
    "no-break blanks at both ends": "\xa0\u3000a\u2003\x85",
    "byte order mark": "\ufeffa\ufeff",
    "emoji": "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u270d\U0001f3fd \u2764\ufe0f",
    "beyond the BMP": "\U0001d518\U00010348\U0010ffff",
    "combining": "e\u0301 \u00e9 \u1100\u1161 \uac00 A\u030a \u00c5 \u212b",
    "noncharacters": "\ufffe\uffff\ufdd0\ufffd",
    "right to left": "\u202eabc\u202c \u05e9\u05dc\u05d5\u05dd",
    "shell and SQL": "'; DROP TABLE records; -- $(rm) `x` %s {0} \\",
    "like a list": '["a", "b"]',
    "like a commit": '{"commit": {"start": 0, "end": 9, "version": "x", "updated": 1, "bytes": 0, "sha256": ""}}',
    "like a head": '{"v": 1, "start": 0, "end": 1, "version": "x", "updated": 1, "expires": null, "info": ""}',
    "like a revision": '{"version": "x", "updated": 1, "expires": null, "info": "", "checksum": "0"}',
    "like a document": '{"_id": "x", "$oid": "0", "tail": [], "segments": []}',
    "like a protocol": "*3 $3 SET +OK -ERR :1",
    "like a comment": "# // -- <!-- ",
    "like a path": "../../etc/passwd",
}
"""Texts that must come back unchanged, by what makes them difficult."""
