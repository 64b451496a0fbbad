"""A new head for a conversation with a damaged head: finding the records, reading them, and ordering them."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord, InvalidInput, StoreUnavailable
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.values import Head, Key, Record
from chathistory_redis.connection import RedisConnection, ReplicaWait
from chathistory_redis.errors import translate_errors
from chathistory_redis.schema import Layout, decode_head, decode_record, encode_revision, time_to_live
from chathistory_redis.scripts import FIND_STORED, POSITION_RUNS, RESTORE

__all__ = ["RedisRecovery"]

_STEP = b"8388608"  # bytes of elements that one script examines
_ATTEMPTS = 10
_UNKNOWN_POSITION = -2  # reported by position_runs.lua for elements without a position (-1: of an earlier form)
_LARGEST_GAP = 1000  # positions that may be missing in one gap, in addition to the number of elements


@dataclass(frozen=True, slots=True, order=True)
class _ElementRun:
    """Consecutive elements of a list, from `index` on, with consecutive positions from `position` on."""

    index: int
    position: int
    count: int


@dataclass(frozen=True, slots=True)
class _FoundRuns(FoundRecords):
    """The records that were found: their places in the list, and how many elements (`size`) it has."""

    size: int = 0
    runs: tuple[_ElementRun, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class RedisRecovery:
    """A `HeadRecovery` for a store of this layout."""

    connection: RedisConnection
    layout: Layout
    wait: ReplicaWait | None
    check_open: Callable[[], None]

    def find_records(self, key: Key) -> _FoundRuns | None:
        """Return the range of sound records under a key; None if nothing is stored there.

        Args:
            key: The conversation.

        Raises:
            StoreUnavailable: The conversation changed during each of several attempts.
        """
        self.check_open()
        name = self.layout.names(key).conversation
        for _ in range(_ATTEMPTS):
            reply = self.connection.run("recovery", FIND_STORED, [name], [])
            if reply is None:
                return None
            with translate_errors("recovery"):
                token, kind, size, last = reply
                runs = self._read_runs(name, token, size) if kind == b"list" else []
                if runs is None:  # the list has changed meanwhile
                    continue
                head, problem = None, None
                if kind != b"list":
                    problem = f"its key holds a {kind.decode()} instead of a list"
                else:
                    try:
                        head = decode_head(key, last)
                    except ChatHistoryError as error:
                        problem = error.reason if isinstance(error, CorruptRecord) else str(error)
                if head and size - 1 != head.end - head.start:
                    problem = f"its list holds {size - 1} records instead of {head.end - head.start}"
                ordered = _order_runs(runs, head, size)
                start = ordered[0].position if ordered else 0
                end = ordered[-1].position + ordered[-1].count if ordered else 0
                if head and ordered and head.start < start <= head.start + size + _LARGEST_GAP:
                    start = head.start  # the head is sound enough to say that there was more
                return _FoundRuns(key, token.decode(), start, end, problem, size, tuple(ordered))
        raise StoreUnavailable("recovery failed: the conversation changed too often meanwhile", outcome="not stored")

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> list[Record]:
        """Return the sound records of the positions [start, stop).

        Args:
            found: The result of `find_records`.
            start: The first position.
            stop: The position after the last one.
        """
        self.check_open()
        known = found if isinstance(found, _FoundRuns) else self.find_records(found.key)
        name = self.layout.names(found.key).conversation
        records: list[Record] = []
        for run in known.runs if known else ():
            low, high = max(start, run.position), min(stop, run.position + run.count)
            if low < high:
                first = run.index + low - run.position
                elements = self.connection.read_elements("recovery", name, first, first + high - low - 1)
                with translate_errors("recovery"):
                    read = [decode_record(position, element) for position, element in enumerate(elements or (), low)]
                records += [record for record in read if isinstance(record, Record)]
        return records

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Store a new head and order the records.

        Args:
            found: The result of `find_records`.
            head: The new head.

        Returns:
            The new head.

        Raises:
            Conflict: The conversation has changed since `find_records`.
        """
        self.check_open()
        key = found.key
        known = found if isinstance(found, _FoundRuns) else self.find_records(key)
        if known is None or known.token != found.token:
            raise Conflict(key, None)
        args = [
            found.token.encode(),
            b"1\n%d\n%d\n%s" % (head.start, head.end, encode_revision(head.revision)),
            b"%d" % head.revision.updated,
            time_to_live(head.revision),
            *_plan_moves(known, head),
        ]
        reply = self.connection.run("recovery", RESTORE, self.layout.names(key), args, wait=self.wait)
        if reply == 1:
            return Head(key, head.start, head.end, head.revision)
        with translate_errors("recovery"):
            try:
                present = decode_head(key, reply[0]) if reply[0] else None
            except ChatHistoryError:
                present = None
            raise Conflict(key, present)

    def _read_runs(self, name: bytes, token: bytes, size: int) -> list[_ElementRun] | None:
        """Return the positions that the elements contain, as runs; None if the list has changed meanwhile."""
        runs: list[_ElementRun] = []
        at = 0
        while at < size:
            reply = self.connection.run("recovery", POSITION_RUNS, [name], [token, b"%d" % at, _STEP])
            if reply is None:
                return None
            at, *numbers = reply
            for run in map(_ElementRun, numbers[0::3], numbers[1::3], numbers[2::3]):
                last = runs[-1] if runs else None
                next_position = None if last is None else last.position + (last.count if last.position >= 0 else 0)
                if last and run.position == next_position:  # it continues the last run of the script before
                    runs[-1] = replace(last, count=last.count + run.count)
                else:
                    runs.append(run)
        return runs


def _order_runs(runs: Sequence[_ElementRun], head: Head | None, size: int) -> list[_ElementRun]:
    """Return the runs of records in order; elements without a position are used where they fit between the others."""

    def is_in_order(one: _ElementRun, other: _ElementRun) -> bool:
        gap = other.position - one.position - one.count
        return 0 <= gap <= other.index - one.index - one.count + size + _LARGEST_GAP

    sure: list[_ElementRun] = []
    for run in sorted(runs, key=lambda run: -run.count):  # of two runs that contradict each other the longer is right
        at = bisect(sure, run)
        neighbours = [*sure[max(at - 1, 0) : at], run, *sure[at : at + 1]]
        if run.position >= 0 and all(is_in_order(one, other) for one, other in pairwise(neighbours)):
            sure.insert(at, run)
    ordered: list[_ElementRun] = []
    if not sure:  # no record contains its position: they are of an earlier form
        position = head.start if head else 0
        for run in runs[:-1] if runs and runs[-1].position == _UNKNOWN_POSITION else runs:  # the last may be a head
            ordered.append(_ElementRun(run.index, position, run.count))
            position += run.count
        return _join_runs(ordered)
    index, position = 0, max(sure[0].position - sure[0].index, 0) if head is None else head.start
    for run in sure:
        if 0 < run.index - index == run.position - position:  # damaged records without a position, which fit exactly
            ordered.append(_ElementRun(index, position, run.index - index))
        ordered.append(run)
        index, position = run.index + run.count, run.position + run.count
    return _join_runs(ordered)


def _join_runs(runs: Iterable[_ElementRun]) -> list[_ElementRun]:
    joined: list[_ElementRun] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last and (run.index - last.index, run.position - last.position) == (last.count, last.count):
            joined[-1] = replace(last, count=last.count + run.count)
        else:
            joined.append(run)
    return joined


def _plan_moves(found: _FoundRuns, head: Head) -> list[bytes]:
    """Return the operations on the elements of a list, from the first on, that bring each record to its place."""
    moves: list[tuple[bytes, int]] = []
    index, position = 0, head.start
    for run in found.runs:
        low, high = max(run.position, head.start), min(run.position + run.count, head.end)
        if low < high:
            first = run.index + low - run.position
            moves += [(b"drop", first - index), (b"fill", low - position), (b"keep", high - low)]
            index, position = first + high - low, high
    moves += [(b"drop", found.size - index), (b"fill", head.end - position)]
    if sum(count for what, count in moves if what == b"fill") > 2 * (found.size + _LARGEST_GAP):
        raise InvalidInput("the new head must not cover many more positions than there are records")
    return [part for what, count in moves if count for part in (what, b"%d" % count)]
