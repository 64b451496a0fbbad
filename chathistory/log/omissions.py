"""What is stored and not sent, because the API refused it or somebody left it out; read from the entries that say so.

An entry of the kind "refused" or "omitted" names places: `[position, block, inner]`, where block and inner are indexes
or null. `[7, null, null]` is the message at position 7; `[7, 1, null]` its second content block; `[7, 1, 0]` the first
block inside of that one, which is a tool result. The indexes are those of what is stored. A rewind or a mend carries
along what was said of places before it, and an "opened" entry with `restored` takes back what was refused of its turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from chathistory.log.entry import Entry

__all__ = ["Omission", "is_whole", "omissions_in", "places_of", "to_data"]


class Omission(NamedTuple):
    """A place of which nothing is sent. block None: the whole message; inner None: the whole block.

    why: what the API said of it, in words of this library. turn: the turn that was refused; None: left out by hand.
    """

    position: int
    block: int | None = None
    inner: int | None = None
    why: str = ""
    turn: str | None = None

    @property
    def place(self) -> list[int | None]:
        """The place as it is stored."""
        return [self.position, self.block, self.inner]


def places_of(entry: Entry) -> list[Omission]:
    """Return what an entry says is not sent; [] for most entries."""
    if entry.kind in ("rewind", "mend"):
        return [_made(place, why, turn) for place, why, turn in entry.data.get("omitted", ())]
    if entry.kind not in ("refused", "omitted"):
        return []
    turn = entry.turn if entry.kind == "refused" else None
    return [_made(place, entry.data.get("why", ""), turn) for place in entry.data["places"]]


def _made(place: list[Any], why: str, turn: str | None) -> Omission:
    position, block, inner = place
    return Omission(position, block, inner, why, turn)


def omissions_in(entries: Iterable[Entry]) -> dict[int, list[Omission]]:
    """Return what is not sent of the entries that the view goes through, by position."""
    found: list[Omission] = []
    for entry in entries:
        if entry.kind in _KINDS:
            found += places_of(entry)
            if entry.data.get("restored"):
                found = [each for each in found if each.turn != entry.turn]
    by_position: dict[int, list[Omission]] = {}
    for each in dict.fromkeys(found):
        by_position.setdefault(each.position, []).append(each)
    return by_position


_KINDS = frozenset({"refused", "omitted", "rewind", "mend", "opened"})


def is_whole(omissions: Iterable[Omission]) -> bool:
    """Whether nothing at all is sent of a message."""
    return any(each.block is None for each in omissions)


def to_data(omissions: Iterable[Omission]) -> list[Any]:
    """Return omissions for the data of a rewind, from which `places_of` reads them again."""
    return [[each.place, each.why, each.turn] for each in omissions]
