"""A new head for a conversation whose head is damaged: finding the records, reading them, and putting them in order."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord, InvalidInput, StoreUnavailable
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.store import Head, Key, Record
from chathistory_redis.faults import reading
from chathistory_redis.heads import decoded_head, decoded_record, encoded_stamp, time_to_live
from chathistory_redis.layout import Layout
from chathistory_redis.link import Link, Wait
from chathistory_redis.scripts import FIND, RESTORE, RUNS

__all__ = ["Recovery"]

_ROOM = b"8388608"  # bytes of elements that one step looks at
_TRIES = 10
_PLAIN, _OTHER = -1, -2  # what runs.lua says of elements that tell no position
_GAP = 1000  # positions that may be missing at one place, beside as many as there are elements


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """Elements of a list that stand one after the other: from which index on, and at which positions."""

    index: int
    position: int
    count: int


@dataclass(frozen=True, slots=True)
class _Found(FoundRecords):
    """Where the records stand in a list, and how many elements it has."""

    size: int = 0
    runs: tuple[Run, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `HeadRecovery` promises, for a store of this layout."""

    link: Link
    layout: Layout
    wait: Wait | None
    check_open: Callable[[], None]

    def find_records(self, key: Key) -> FoundRecords | None:
        """Return what is stored under a key; None: nothing."""
        self.check_open()
        name = self.layout.names(key).conversation
        for _ in range(_TRIES):
            reply = self.link.run("recovery", FIND, [name], [])
            if reply is None:
                return None
            with reading("recovery"):
                runs = self._runs(name, reply[0], reply[2]) if reply[1] == b"list" else []
                if runs is not None:
                    return _found(key, reply, runs)
        raise StoreUnavailable("recovery failed: the conversation changed too often meanwhile", outcome="not stored")

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> list[Record]:
        """Return the sound records of [start, stop)."""
        self.check_open()
        known = found if isinstance(found, _Found) else self.find_records(found.key)
        name = self.layout.names(found.key).conversation
        records: list[Record] = []
        for run in known.runs if isinstance(known, _Found) else ():
            low, high = max(start, run.position), min(stop, run.position + run.count)
            if low < high:
                first = run.index + low - run.position
                elements = self.link.elements("recovery", name, first, first + high - low - 1)
                with reading("recovery"):
                    read = [decoded_record(position, element) for position, element in enumerate(elements, low)]
                records += [record for record in read if isinstance(record, Record)]
        return records

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Store a head and order the records. Raises `Conflict` if something else is there than what was found."""
        self.check_open()
        key = found.key
        known = found if isinstance(found, _Found) else self.find_records(key)
        if not isinstance(known, _Found) or known.token != found.token:
            raise Conflict(key, None)
        revision = encoded_stamp(head.revision)
        args = [
            found.token.encode(),
            b"1\n%d\n%d\n%s" % (head.start, head.end, revision),
            b"%d" % head.revision.updated,
            time_to_live(head.revision),
            *_orders(known, head),
        ]
        names = self.layout.names(key)
        if self.wait is None:
            reply = self.link.run("recovery", RESTORE, names, args)
        else:
            reply = self.link.run_and_wait("recovery", RESTORE, (names, args), self.wait)
        if reply != 1:
            with reading("recovery"):
                raise Conflict(key, _readable(key, reply[0]))
        return Head(key, head.start, head.end, head.revision)

    def _runs(self, name: bytes, token: bytes, size: int) -> list[Run] | None:
        """Return which positions the elements say that they have; None: the list has changed meanwhile."""
        runs: list[Run] = []
        at = 0
        while at < size:
            reply = self.link.run("recovery", RUNS, [name], [token, b"%d" % at, _ROOM])
            if reply is None:
                return None
            at, *numbers = reply
            for run in map(Run, numbers[0::3], numbers[1::3], numbers[2::3]):
                last = runs[-1] if runs else None
                if last and _goes_on(last, run):
                    runs[-1] = replace(last, count=last.count + run.count)
                else:
                    runs.append(run)
        return runs


def _goes_on(last: Run, run: Run) -> bool:
    if run.position < 0:
        return run.position == last.position
    return last.position >= 0 and run.position == last.position + last.count


def _found(key: Key, reply: list[Any], runs: Sequence[Run]) -> _Found:
    token, kind, size, last = reply
    head, problem = _head_in(key, kind, size, last)
    placed = _placed(runs, head, size)
    start = placed[0].position if placed else 0
    end = placed[-1].position + placed[-1].count if placed else 0
    if head and placed and head.start < start <= head.start + size + _GAP:
        start = head.start  # the head is sound enough to say that there was more
    return _Found(key, token.decode(), start, end, problem, size, tuple(placed))


def _head_in(key: Key, kind: bytes, size: int, last: bytes) -> tuple[Head | None, str | None]:
    """Return the head, as far as it can be read, and what is wrong with it."""
    if kind != b"list":
        return None, f"its key holds a {kind.decode()} instead of a list"
    try:
        head = decoded_head(key, last)
    except CorruptRecord as error:
        return None, error.reason
    except ChatHistoryError as error:
        return None, str(error)
    count = head.end - head.start
    return head, None if size - 1 == count else f"its list holds {size - 1} records instead of {count}"


def _placed(runs: Sequence[Run], head: Head | None, size: int) -> list[Run]:
    """Return the runs of records in order, each at its positions; what says no position is taken where it fits."""
    sure: list[Run] = []
    for run in sorted(runs, key=lambda run: -run.count):  # of two that contradict each other the longer one is right
        at = bisect(sure, run)
        neighbours = [*sure[max(at - 1, 0) : at], run, *sure[at : at + 1]]
        if run.position >= 0 and all(_in_order(one, other, size) for one, other in pairwise(neighbours)):
            sure.insert(at, run)
    return _completed(sure, head) if sure else _plain(runs, head.start if head else 0)


def _in_order(one: Run, other: Run, size: int) -> bool:
    gap = other.position - one.position - one.count
    return 0 <= gap <= other.index - one.index - one.count + size + _GAP


def _plain(runs: Sequence[Run], start: int) -> list[Run]:
    """Return the records of a list in which none says its position, as those of an earlier form do not."""
    placed: list[Run] = []
    for run in runs[:-1] if runs and runs[-1].position == _OTHER else runs:  # what is last may be a head
        placed.append(Run(run.index, start, run.count))
        start += run.count
    return _joined(placed)


def _completed(sure: Sequence[Run], head: Head | None) -> list[Run]:
    """Return the sure runs, and between them what fits exactly: a damaged record says no position, but has one."""
    first = sure[0]
    start = max(first.position - first.index, 0) if head is None else head.start
    placed: list[Run] = []
    index, position = 0, start
    for run in sure:
        if 0 < run.index - index == run.position - position:
            placed.append(Run(index, position, run.index - index))
        placed.append(run)
        index, position = run.index + run.count, run.position + run.count
    return _joined(placed)


def _joined(runs: Iterable[Run]) -> list[Run]:
    joined: list[Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last and (run.index - last.index, run.position - last.position) == (last.count, last.count):
            joined[-1] = replace(last, count=last.count + run.count)
        else:
            joined.append(run)
    return joined


def _orders(found: _Found, head: Head) -> list[bytes]:
    """Return what is to be done with the elements of a list, from the first on, to have each record at its place."""
    orders: list[tuple[bytes, int]] = []
    index, position = 0, head.start
    for run in found.runs:
        low, high = max(run.position, head.start), min(run.position + run.count, head.end)
        if low < high:
            first = run.index + low - run.position
            orders += [(b"drop", first - index), (b"fill", low - position), (b"keep", high - low)]
            index, position = first + high - low, high
    orders += [(b"drop", found.size - index), (b"fill", head.end - position)]
    if sum(count for what, count in orders if what == b"fill") > 2 * (found.size + _GAP):
        raise InvalidInput("the head to be restored covers many more positions than have records")
    return [part for what, count in orders if count for part in (what, b"%d" % count)]


def _readable(key: Key, line: Any) -> Head | None:
    try:
        return decoded_head(key, line) if line else None
    except ChatHistoryError:
        return None
