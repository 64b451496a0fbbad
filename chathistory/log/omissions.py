"""What is stored and not sent, because the API refused it or somebody left it out; read from the events that say so.

A rewind or a repair carries along what was said of places before it, and a `TurnOpened` with `restored` takes back what
was refused of its turn.
"""

from __future__ import annotations

from collections.abc import Iterable

from chathistory.log.entry import Entry
from chathistory.log.events import ContentOmitted, Repair, Rewind, TurnOpened, TurnRefused
from chathistory.log.places import Omission

__all__ = ["find_omissions", "has_omissions", "is_whole", "list_omissions"]


def list_omissions(entry: Entry) -> list[Omission]:
    """Return what an entry says is not sent; [] for most entries."""
    match entry.event:
        case Rewind() | Repair() as event:
            return list(event.omitted)
        case TurnRefused() as event:
            return [Omission(place, event.why, entry.turn) for place in event.places]
        case ContentOmitted() as event:
            return [Omission(place, event.why) for place in event.places]
    return []


def has_omissions(entry: Entry) -> bool:
    """Whether an entry changes what is not sent of messages before it."""
    return bool(list_omissions(entry)) or (isinstance(entry.event, TurnOpened) and entry.event.restored)


def find_omissions(entries: Iterable[Entry]) -> dict[int, list[Omission]]:
    """Return what is not sent of the entries that the view goes through, by position of the message."""
    found: list[Omission] = []
    for entry in entries:
        if isinstance(entry.event, _KINDS):
            found += list_omissions(entry)
            if isinstance(entry.event, TurnOpened) and entry.event.restored:
                found = [each for each in found if each.turn != entry.turn]
    by_position: dict[int, list[Omission]] = {}
    for each in dict.fromkeys(found):
        by_position.setdefault(each.place.position, []).append(each)
    return by_position


_KINDS = (TurnRefused, ContentOmitted, Rewind, Repair, TurnOpened)


def is_whole(omissions: Iterable[Omission]) -> bool:
    """Whether nothing at all is sent of a message."""
    return any(each.place.block is None for each in omissions)
