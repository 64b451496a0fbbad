"""Raw damage, below the interface: every kind of key, every part of it, with every invalid value."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

MARKER = b"s3cr3t-marker"
DAY = 86_400_000

OTHER_TYPES: dict[str, Callable[[Any, bytes], object]] = {
    "text": lambda client, name: client.set(name, MARKER),
    "number": lambda client, name: client.set(name, 7),
    "bytes": lambda client, name: client.set(name, b"\xff\xfe\x00"),
    "bitmap": lambda client, name: client.setbit(name, 100_000, 1),
    "list of text": lambda client, name: client.rpush(name, MARKER, b"two"),
    "list of bytes": lambda client, name: client.rpush(name, b"\xff", b"\xfe"),
    "list of one empty text": lambda client, name: client.rpush(name, b""),
    "hash": lambda client, name: client.hset(name, "field", MARKER),
    "set": lambda client, name: client.sadd(name, MARKER, b"\xff"),
    "sorted set": lambda client, name: client.zadd(name, {MARKER: 1, b"\xff": 2}),
    "stream": lambda client, name: client.xadd(name, {"field": MARKER}),
    "nothing": lambda client, name: None,
}
VALUES = {
    "missing": b"",
    "text": b"abc",
    "negative": b"-1",
    "fraction": b"1.5",
    "exponent": b"1e3",
    "huge": b"9" * 30,
    "just too large": b"9007199254740992",
    "thousands of digits": b"9" * 5000,
    "other digits": "٣".encode(),
    "signed": b"+5",
    "blank before": b" 5",
    "underscore": b"1_0",
    "hexadecimal": b"0x10",
    "infinite": b"inf",
    "not a number": b"nan",
    "not UTF-8": b"\xff\xfe",
    "NUL": b"\x00",
    "escape": b"\x1b[31m",
    "long": b"x" * 40,
}
FIELDS = ("layout", "start", "stop", "version", "updated", "expires", "payload")
NAMES = (b"\xff", b"", b"\x00", b"a\nb", b"x" * 300, b"\xed\xa0\x80", b"gone", b"a:b:c", b"{x}", b"\x1b[2J", b"%", b"{")
SCORES = ("inf", "-inf", "-5", "0.5", "1e300", "-1e300", "9007199254740993", "1750000000000000.5")


@dataclass(frozen=True)
class Damage:
    """A change to the keys of one conversation; `seed` is for changes with random choices."""

    name: str
    do: Callable[[Any, Any], object]

    def __str__(self) -> str:
        return self.name


def damages() -> Iterator[Damage]:
    """Yield all of it."""
    yield from _types()
    yield from _fields()
    yield from _elements()
    yield from _indexes()
    yield from _scopes()
    yield from _strays()
    yield from _lifetimes()


def _replaced(client: Any, name: bytes, make: Callable[[Any, bytes], object]) -> None:
    client.delete(name)
    make(client, name)


def _types() -> Iterator[Damage]:
    for place, (kind, make) in itertools.product(("conversation", "listing", "scopes"), OTHER_TYPES.items()):
        yield Damage(
            f"{place}: {kind}",
            lambda client, names, place=place, make=make: _replaced(client, getattr(names, place), make),
        )


def changed_head(head: bytes, field: str, value: bytes | None) -> bytes:
    parts = head.split(b"\n")
    at = FIELDS.index(field)
    parts[at : at + 1] = [] if value is None else [value]
    return b"\n".join(parts)


def _set_field(client: Any, names: Any, field: str, value: bytes | None) -> None:
    head = client.lindex(names.conversation, -1)
    client.lset(names.conversation, -1, changed_head(head, field, value))


def _fields() -> Iterator[Damage]:
    for field, (name, value) in itertools.product(FIELDS, {**VALUES, "gone": None}.items()):
        yield Damage(
            f"head: {field} {name}",
            lambda client, names, field=field, value=value: _set_field(client, names, field, value),
        )
    for layout in (b"0", b"2", b"17", b"99999999999999999999"):
        yield Damage(
            f"head: layout {layout.decode()}",
            lambda client, names, layout=layout: _set_field(client, names, "layout", layout),
        )
    yield Damage("head: start and stop far away", _far_away)
    for name, value in {
        "junk": b"garbage",
        "empty": b"",
        "bytes": b"\xff\x00",
        "half": None,
        "upper case": None,
    }.items():
        yield Damage(
            f"head: {name}", lambda client, names, name=name, value=value: _odd_head(client, names, name, value)
        )


def _far_away(client: Any, names: Any) -> None:
    parts = client.lindex(names.conversation, -1).split(b"\n")
    count = int(parts[2]) - int(parts[1])
    parts[1:3] = [b"%d" % 10**20, b"%d" % (10**20 + count)]
    client.lset(names.conversation, -1, b"\n".join(parts))


def _odd_head(client: Any, names: Any, name: str, value: bytes | None) -> None:
    head = client.lindex(names.conversation, -1)
    made = {"half": head[: len(head) // 2], "upper case": head.replace(b"\n", b"\r")}.get(name, value)
    client.lset(names.conversation, -1, made)


def _elements() -> Iterator[Damage]:
    """Every change of a list: an element that goes, comes, changes or moves, at every kind of place."""
    for place in (0, 1, 4, -3, -2, -1):
        for name in ("gone", "doubled", "junk", "bytes", "empty", "bit", "cut", "wrong position", "no position", "far"):
            yield Damage(
                f"element {place}: {name}",
                lambda client, names, place=place, name=name: _odd_element(client, names, place, name),
            )
    for name in ("reversed", "first two exchanged", "first half gone", "second half gone", "all records gone"):
        yield Damage(f"elements: {name}", lambda client, names, name=name: _odd_list(client, names, name))
    for name, text in {
        "before": b"x",
        "behind": b"more",
        "another head behind": None,
        "record behind": b"a\n9",
    }.items():
        yield Damage(
            f"elements: one {name}", lambda client, names, name=name, text=text: _added(client, names, name, text)
        )


def _odd_element(client: Any, names: Any, place: int, name: str) -> None:
    elements = client.lrange(names.conversation, 0, -1)
    at = place % len(elements)
    element = elements[at]
    body = element.rpartition(b"\n")[0]
    values = {
        "junk": b"garbage",
        "bytes": b"\xff\xfe",
        "empty": b"",
        "bit": bytes([element[0] ^ 0x80]) + element[1:],
        "cut": element[: len(element) // 2],
        "wrong position": b"%s\n%d" % (body, 77),
        "no position": b"%s\n" % body,
        "far": b"%s\n%d" % (body, 10**14),
    }
    if name == "gone":
        elements.pop(at)
    elif name == "doubled":
        elements.insert(at, element)
    else:
        elements[at] = values[name]
    _stored(client, names, elements)


def _odd_list(client: Any, names: Any, name: str) -> None:
    *bodies, head = client.lrange(names.conversation, 0, -1)
    half = len(bodies) // 2
    bodies = {
        "reversed": bodies[::-1],
        "first two exchanged": [bodies[1], bodies[0], *bodies[2:]],
        "first half gone": bodies[half:],
        "second half gone": bodies[:half],
        "all records gone": [],
    }[name]
    _stored(client, names, [*bodies, head])


def _added(client: Any, names: Any, name: str, text: bytes | None) -> None:
    elements = client.lrange(names.conversation, 0, -1)
    text = elements[-1] if text is None else text
    _stored(client, names, [text, *elements] if name == "before" else [*elements, text])


def _stored(client: Any, names: Any, elements: list[bytes]) -> None:
    client.delete(names.conversation)
    if elements:
        client.rpush(names.conversation, *elements)


def _indexes() -> Iterator[Damage]:
    yield Damage("index: entry gone", lambda client, names: client.zrem(names.listing, _id(names)))
    for name in NAMES:
        yield Damage(f"index: entry {name!r}", lambda client, names, name=name: client.zadd(names.listing, {name: 5}))
        yield Damage(
            f"index: entry {name!r} and its key", lambda client, names, name=name: _with_key(client, names, name)
        )
    for score in SCORES:
        yield Damage(
            f"index: time {score}", lambda client, names, score=score: client.zadd(names.listing, {_id(names): score})
        )
        yield Damage(
            f"index: entry without a conversation at {score}",
            lambda client, names, score=score: client.zadd(names.listing, {b"nobody": score}),
        )


def _id(names: Any) -> bytes:
    return names.conversation[len(names.listing) + 1 :]


def _with_key(client: Any, names: Any, name: bytes) -> None:
    client.zadd(names.listing, {name: 10**18})
    client.set(names.listing + b":" + name, MARKER)


def _scopes() -> Iterator[Damage]:
    scope = lambda names: names.listing[len(names.scopes) + 1 :]  # noqa: E731
    yield Damage("scopes: member gone", lambda client, names: client.srem(names.scopes, scope(names)))
    for name in NAMES:
        yield Damage(f"scopes: member {name!r}", lambda client, names, name=name: client.sadd(names.scopes, name))


STRAYS = (
    b"{",
    b"{}",
    b"{x}",
    b"{999}",
    b"{00}",
    b"{-1}:scope:a",
    b"{x}:scope:a",
    b"{}:scope:a",
    b"{0}:",
    b"{0}::",
    b"{0}:scope:",
    b"{0}:scope:\xff",
    b"{0}:scope:" + b"y" * 300,
    b"{0}:%3a:x",
    b"{0}:\xff:x",
    b"{0}:" + b"s" * 300 + b":x",
    b"{0}:a\x00b:x",
    b"{300}:scope",
    b"{0}text",
)


def _strays() -> Iterator[Damage]:
    for name, kind in itertools.product(STRAYS, ("text", "list of bytes", "hash")):
        yield Damage(
            f"stray: {name!r} {kind}",
            lambda client, names, name=name, kind=kind: OTHER_TYPES[kind](client, names.scopes.split(b"{")[0] + name),
        )


def _lifetimes() -> Iterator[Damage]:
    for place in ("conversation", "listing", "scopes"):
        yield Damage(
            f"time to live: {place}", lambda client, names, place=place: client.pexpire(getattr(names, place), DAY)
        )
        yield Damage(f"expired: {place}", lambda client, names, place=place: client.pexpire(getattr(names, place), -1))


def chosen(seed: int, count: int) -> list[Damage]:
    """Return pairs of damages, combined at random."""
    generator = random.Random(seed)
    every = list(damages())
    pairs = [generator.sample(every, 2) for _ in range(count)]
    return [
        Damage(f"{one} + {two}", lambda client, names, one=one, two=two: _both(client, names, one, two))
        for one, two in pairs
    ]


def _both(client: Any, names: Any, one: Damage, two: Damage) -> None:
    one.do(client, names)
    with contextlib.suppress(redis.ResponseError, AttributeError, LookupError, ValueError, ZeroDivisionError):
        two.do(client, names)  # the first one may leave nothing to damage
