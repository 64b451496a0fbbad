"""What can be read of a damaged conversation, as one that can be stored anywhere.

Each position that cannot be read is a record of its own, of the kind `lost`: so all others keep their positions, and
whoever reads the conversation later sees that something was there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, encode
from chathistory.log.events import RecordLost
from chathistory.log.read_damaged import Lost, Sound
from chathistory.operations.restore import Remains, find_remains, rebuild
from chathistory.storage.values import Head, Record, Revision

__all__ = ["Salvaged", "mark_lost", "salvaged"]


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A parcel of what can be read of a conversation. lost: how many positions cannot be read."""

    head: Head
    lost: int
    remains: Remains

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines from `start` on."""
        return (each.record.body for each in _marked(self.remains) if each.position >= start)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries."""
        return (each.entry for each in _marked(self.remains))


def salvaged(log: ConversationLog) -> Salvaged | None:
    """Return what can be read of a conversation; None: it is not there, or nothing of it can be read.

    Raises what `restoring.salvage` raises.
    """
    remains = find_remains(log)
    if remains is None:
        return None
    count, lost = remains.end - remains.start, 0

    def counted() -> Iterator[Sound]:
        nonlocal lost
        for each in _marked(remains):
            lost += isinstance(each.entry.event, RecordLost)
            yield each

    rebuilt = rebuild(counted())
    if rebuilt is None or lost == count:
        return None
    revision = remains.revision
    updated, expires = (revision.updated, revision.expires) if revision else (rebuilt.updated, None)
    made = Revision(rebuilt.version, updated, expires, rebuilt.state.encode())
    return Salvaged(Head(log.key, remains.start, remains.end, made), lost, remains)


def mark_lost(lost: Lost, at: int) -> Sound:
    """Return the record that says that one stood here which cannot be read; at: the time of the one before it."""
    entry: Entry = Entry(RecordLost(lost.reason), id=f"lost{lost.position}", at=at, position=lost.position)
    return Sound(Record(lost.position, encode(entry)), entry)


def _marked(remains: Remains) -> Iterator[Sound]:
    """Yield each position, with a record that says so in the place of each that cannot be read."""
    at = 0
    for each in remains.read():
        if isinstance(each, Lost):
            yield mark_lost(each, at)
        else:
            at = each.entry.at or at
            yield each
