"""Raw damage, below the interface: every field of every document, with every kind of value, and odd documents."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, encode
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from mongodb_samples import RAW

HEADS, SEGMENTS = "chathistory_conversations", "chathistory_segments"
MARKER = "s3cr3t-marker"


def deep(levels: int) -> Any:
    value: Any = MARKER
    for _ in range(levels):
        value = {"d": value}
    return value


GONE = object()
NO_TEXT = "<no text>"  # replaced by bytes that are not UTF-8, which the driver would not send
VALUES: dict[str, Any] = {
    "gone": GONE,
    "null": None,
    "true": True,
    "text": MARKER,
    "empty text": "",
    "no UTF-8": NO_TEXT,
    "control characters": "a\nb\x00",
    "long text": "x" * 5000,
    "minus one": -1,
    "minus many": Int64(-(2**63)),
    "zero": 0,
    "huge": Int64(2**63 - 1),
    "just too large": Int64(2**53),
    "fraction": 1.5,
    "not a number": float("nan"),
    "infinite": float("inf"),
    "decimal": Decimal128("1E+6000"),
    "list": [],
    "list of odd things": [None, 1, {"x": MARKER}, "y"],
    "document": {},
    "document of others": {"s": MARKER, "i": 5},
    "deep document": deep(120),
    "time": datetime(2020, 1, 1, tzinfo=UTC),
    "time far away": DatetimeMS(2**62),
    "identity": ObjectId(),
    "bytes": Binary(b"\xff\xfe"),
    "pattern": Regex("("),
    "timestamp": Timestamp(1, 1),
    "code": Code("x", {}),
    "least": MinKey(),
    "most": MaxKey(),
}
HEAD_FIELDS = (
    *("format", "scope", "id", "start", "end", "version", "updated", "expires", "info"),
    *("born", "from", "bytes", "tail", "runs", "cleared", "dead", "more"),
)
SEGMENT_FIELDS = ("key", "of", "by", "first", "end", "part", "parts", "bodies", "more")


@dataclass(frozen=True)
class Damage:
    """A change to the documents of a conversation with segments; `blind`: the result looks like another text."""

    name: str
    do: Callable[[Any, dict[str, str]], object]
    blind: bool = False

    def __str__(self) -> str:
        return self.name


def damages() -> Iterator[Damage]:
    """Yield all of it."""
    for field, (name, value) in itertools.product(HEAD_FIELDS, VALUES.items()):
        yield Damage(
            f"head: {field} {name}",
            lambda database, key, field=field, value=value: change(database, HEADS, {"_id": key}, field, value),
            blind=(field, name) == ("tail", "list of odd things"),
        )
    for field, (name, value) in itertools.product(SEGMENT_FIELDS, VALUES.items()):
        yield Damage(
            f"segment: {field} {name}",
            lambda database, key, field=field, value=value: change(database, SEGMENTS, {"key": key}, field, value),
        )
    for place, what in itertools.product((0, 1, -1), ("gone", "doubled", *VALUES)):
        if what != "gone":
            is_text = isinstance(VALUES.get(what), str) and what != "no UTF-8"
            yield Damage(f"tail {place}: {what}", _in_list(HEADS, "tail", place, what), is_text)
            yield Damage(f"bodies {place}: {what}", _in_list(SEGMENTS, "bodies", place, what), is_text)
    for place in (0, 1, -1):
        yield Damage(f"tail {place}: gone", _in_list(HEADS, "tail", place, "gone"))
        yield Damage(f"bodies {place}: gone", _in_list(SEGMENTS, "bodies", place, "gone"))
    yield from _whole()
    yield from _odd_heads()
    yield from _odd_segments()


def change(database: Any, collection: str, only: dict[str, Any], field: str, value: Any) -> None:
    """Set a field of a document to whatever it is, or remove it."""
    raw = database.with_options(codec_options=RAW)[collection]
    document = raw.find_one(only)
    if document is None:
        return
    fields = {name: document[name] for name in document if name != field}
    if value is not GONE:
        fields[field] = value
    _replace(raw, document["_id"], fields)


def _replace(raw: Any, name: Any, fields: dict[str, Any]) -> None:
    data = encode(fields)
    text = NO_TEXT.encode()
    raw.replace_one({"_id": name}, RawBSONDocument(data.replace(text, b"\xff" * len(text)), RAW))


def _in_list(collection: str, field: str, place: int, what: str) -> Callable[[Any, dict[str, str]], object]:
    def do(database: Any, key: dict[str, str]) -> None:
        raw = database.with_options(codec_options=RAW)[collection]
        only = {"_id": key} if collection == HEADS else {"key": key}
        document = raw.find_one(only)
        if document is None or not isinstance(document.get(field), list) or not document[field]:
            return
        items = list(document[field])
        at = place % len(items)
        if what == "gone":
            items.pop(at)
        elif what == "doubled":
            items.insert(at, items[at])
        else:
            items[at] = VALUES[what]
        _replace(raw, document["_id"], {**{name: document[name] for name in document}, field: items})

    return do


def _whole() -> Iterator[Damage]:
    yield Damage("head gone", lambda database, key: database[HEADS].delete_one({"_id": key}))
    for at in (0, 1, -1):
        yield Damage(f"segment {at} gone", lambda database, key, at=at: _without(database, key, [at]))
    yield Damage("all segments gone", lambda database, key: database[SEGMENTS].delete_many({"key": key}))
    yield Damage("segments doubled", _doubled)
    yield Damage("segments of another birth", _created_again)
    yield Damage("segments across others", _across)
    yield Damage(
        "runs forgotten", lambda database, key: database[HEADS].update_one({"_id": key}, {"$set": {"runs": []}})
    )
    yield Damage("all positions moved", _moved, blind=True)
    yield Damage(
        "nothing but the id", lambda database, key: database[HEADS].replace_one({"_id": key}, {"more": MARKER})
    )
    for dead in (1, 2, 3, True, "1", 1.0):
        yield Damage(
            f"dead {dead!r}, without a version",
            lambda database, key, dead=dead: database[HEADS].update_one(
                {"_id": key}, {"$set": {"dead": dead, "expires": Int64(0)}, "$unset": {"version": 1}}
            ),
        )
        yield Damage(
            f"nothing but dead {dead!r}",
            lambda database, key, dead=dead: database[HEADS].replace_one({"_id": key}, {"dead": dead}),
        )


def _segments(database: Any, key: dict[str, str]) -> list[dict[str, Any]]:
    return list(database[SEGMENTS].find({"key": key}).sort("end"))


def _without(database: Any, key: dict[str, str], places: list[int]) -> None:
    found = _segments(database, key)
    for at in places:
        database[SEGMENTS].delete_one({"_id": found[at]["_id"]})


def _doubled(database: Any, key: dict[str, str]) -> None:
    for segment in _segments(database, key):
        database[SEGMENTS].insert_one({**segment, "_id": ObjectId()})


def _created_again(database: Any, key: dict[str, str]) -> None:
    of = ObjectId()
    for segment in _segments(database, key):
        database[SEGMENTS].insert_one({**segment, "_id": ObjectId(), "of": of, "bodies": [MARKER]})


def _across(database: Any, key: dict[str, str]) -> None:
    first, second = _segments(database, key)[:2]
    whole = {"by": None, "first": second["first"] - 1, "end": second["first"], "bodies": first["bodies"][-1:]}
    database[SEGMENTS].insert_one({**first, "_id": ObjectId(), **whole})


def _moved(database: Any, key: dict[str, str]) -> None:
    database[HEADS].update_one({"_id": key}, {"$inc": {"start": 3, "end": 3, "from": 3}})


def _odd_heads() -> Iterator[Damage]:
    scope = {"scope": "default", "id": "odd", "updated": Int64(5)}
    names = {
        "a number": 7,
        "a text": "text",
        "null": None,
        "an identity": ObjectId(),
        "an empty document": {},
        "no id": {"s": "default"},
        "no scope": {"i": "odd"},
        "an id that is a number": {"s": "default", "i": 5},
        "a scope that is a number": {"s": 5, "i": "odd"},
        "the wrong order": {"i": "odd", "s": "default"},
        "more than that": {"s": "default", "i": "odd", "x": 1},
        "an empty id": {"s": "default", "i": ""},
        "an empty scope": {"s": "", "i": "odd"},
        "a long id": {"s": "default", "i": "x" * 300},
        "an id with a line break": {"s": "default", "i": "a\nb"},
        "another name": {"t": "default", "i": "odd"},
        "a deep one": {"s": "default", "i": deep(50)},
    }
    for (name, value), fields in itertools.product(names.items(), ({}, scope)):
        yield Damage(
            f"stray head: {name}{' with fields' if fields else ''}",
            lambda database, key, value=value, fields=fields: database[HEADS].insert_one({"_id": value, **fields}),
        )


def _odd_segments() -> Iterator[Damage]:
    for name, key in {"nobody": None, "a number": 5, "this scope": {"s": "default", "i": 5}, "gone": GONE}.items():
        fields = {} if key is GONE else {"key": key}
        yield Damage(
            f"stray segment: {name}",
            lambda database, _, fields=fields: database[SEGMENTS].insert_one(
                {
                    "of": ObjectId(),
                    "first": 0,
                    "end": 1,
                    "part": 0,
                    "parts": 1,
                    "by": None,
                    "bodies": [MARKER],
                    **fields,
                }
            ),
        )
    yield Damage(
        "segment of a conversation that is gone",
        lambda database, _: database[SEGMENTS].insert_one(
            {"key": {"s": "default", "i": "gone"}, "of": ObjectId(), "first": 0, "end": 1, "bodies": [MARKER]}
        ),
    )


def chosen(seed: int, count: int) -> list[Damage]:
    """Return some damages, two at a time."""
    chance = random.Random(seed)
    every = list(damages())
    pairs = [chance.sample(every, 2) for _ in range(count)]
    return [
        Damage(
            f"{one} + {two}",
            lambda database, key, one=one, two=two: _both(database, key, one, two),
            one.blind or two.blind,
        )
        for one, two in pairs
    ]


def _both(database: Any, key: dict[str, str], one: Damage, two: Damage) -> None:
    one.do(database, key)
    with contextlib.suppress(UnicodeEncodeError, LookupError, TypeError):  # the first may leave nothing to damage
        two.do(database, key)
