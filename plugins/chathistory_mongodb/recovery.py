"""A new head for a conversation with a damaged or missing head document: find the records, and refer to them again.

Segments contain their positions and the `born` of their head. The bodies of the tail do not contain their positions:
they follow one another from the end of the segments, or according to `from` or `end` of the head.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bson import Int64, ObjectId

from chathistory.errors import Conflict, CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.storage.abilities import LONGEST_GAP, FoundRecords
from chathistory.storage.values import Head, Key, Record
from chathistory_mongodb.read import TOO_FAR
from chathistory_mongodb.schema import (
    SEGMENT_FIELDS,
    Document,
    MongoStoredHead,
    decode_raw,
    head_id,
    is_tombstone,
    make_head_document,
    match_document,
    parse_head,
    parse_segment,
    read_number,
    read_text,
    to_storable,
    with_raw_documents,
)
from chathistory_mongodb.server import Collections
from chathistory_mongodb.write import insert_head

if TYPE_CHECKING:
    from bson.raw_bson import RawBSONDocument

__all__ = ["find_records", "read_found", "restore_head"]


@dataclass(frozen=True, slots=True)
class _SegmentRun:
    """The records of one segment, or one record in several segments, piece by piece.

    Attributes:
        first: The position of the first record.
        end: The position after the last record.
        by: The attempt that wrote it; None once it is marked as committed.
        ids: The `_id`s of the segments, in order.
    """

    first: int
    end: int
    by: ObjectId | None
    ids: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _MongoFoundRecords(FoundRecords):
    """The records that were found: in segments, and then in the tail of the head document.

    Attributes:
        born: The value of `of` in the segments.
        runs: The records in segments, in order.
        unused: The `_id`s of segments that overlap others; they are not used.
        tail_start: The position of the tail's first body.
        tail_count: How many bodies the tail has.
    """

    born: ObjectId = field(default_factory=ObjectId)
    runs: Sequence[_SegmentRun] = field(default=(), repr=False)
    unused: Sequence[Any] = field(default=(), repr=False)
    tail_start: int = 0
    tail_count: int = 0


def find_records(collections: Collections, key: Key) -> FoundRecords | None:
    """Return the range of sound records under a key; None if nothing is stored there.

    Args:
        collections: The collections.
        key: The conversation.
    """
    stored = _load_stored(collections, key)
    document = decode_raw(stored)
    if stored is not None and is_tombstone(document):
        return None
    born = document.get("born")
    if not isinstance(born, ObjectId):  # then use the one of the most records
        counts: Counter[ObjectId] = Counter()
        with collections.segments.find({"key": head_id(key)}, {"of": True, "first": True, "end": True}) as found:
            for each in found:
                first, end = read_number(each.get("first")), read_number(each.get("end"))
                if isinstance(each.get("of"), ObjectId) and first is not None and end is not None:
                    counts[each["of"]] += end - first
        born = max(counts, key=lambda of: (counts[of], of)) if counts else None
        if born is None and stored is None:
            return None
    segments = [] if born is None else list(collections.segments.find({"of": born}, SEGMENT_FIELDS))
    problem = "its head is gone" if stored is None else _try_parse(document)[1]
    return _assign_positions(
        _MongoFoundRecords(key, _hash_document(stored), 0, 0, problem, born=born or ObjectId()), document, segments
    )


def _load_stored(collections: Collections, key: Key) -> RawBSONDocument | None:
    return with_raw_documents(collections.heads).find_one({"_id": head_id(key)})


def _hash_document(stored: RawBSONDocument | None) -> str:
    return hashlib.sha256(stored.raw).hexdigest() if stored else ""


def _try_parse(document: Document) -> tuple[MongoStoredHead | None, str | None]:
    """Return the parsed head document, or what is wrong with it."""
    try:
        return parse_head(document), None
    except CorruptRecord as error:
        return None, error.reason
    except UnsupportedRecord:
        return None, "a later version wrote it"


def _assign_positions(
    found: _MongoFoundRecords, document: Document, segments: Sequence[Document]
) -> _MongoFoundRecords:
    """Return `found` with the positions: those in the head, unless they are impossible."""
    first, end, start, cleared = (read_number(document.get(name)) for name in ("from", "end", "start", "cleared"))
    tail = document["tail"] if document["size"] > 0 else []
    # The tail begins at the position that most of these give: `from`, `end`, and the last segment.
    ends = [number for each in segments if (number := read_number(each.get("end"))) is not None]
    guesses = [first, None if end is None else end - len(tail), max(ends, default=start)]
    known = [guess for guess in guesses if guess is not None and guess >= 0]
    tail_start = max(known, key=lambda guess: (known.count(guess), -known.index(guess)), default=0)
    # Of groups of segments with a large gap between them, the one before the tail counts; without a tail, the largest.
    groups = _chain_runs(document, segments, tail_start)
    runs = groups[-1] if tail else max(groups, key=lambda runs: sum(run.end - run.first for run in runs))
    # A tail far from the segments has wrong positions: it must follow them. The same holds for the start.
    stored_starts = [number for number in (start, cleared) if number is not None]
    before = runs[-1].end if runs else max(stored_starts, default=tail_start)
    is_far = len(groups) > 1 or tail_start - before > LONGEST_GAP
    tail_start = before if tail_start - before > LONGEST_GAP else tail_start
    lowest = runs[0].first if runs else tail_start
    kept_from = next((number for number in stored_starts if lowest - LONGEST_GAP <= number <= tail_start), lowest)
    is_far = is_far or (start is not None and kept_from - start > LONGEST_GAP)
    sound = [at for at, body in enumerate(tail, tail_start + 1) if read_text(body) is not None]
    used = {name for group in groups for run in group for name in run.ids}
    return replace(
        found,
        start=kept_from,
        end=max(kept_from, sound[-1] if sound else max((run.end for run in runs), default=0)),
        problem=found.problem or (TOO_FAR if is_far else None),
        runs=runs,
        unused=[each["_id"] for each in segments if each["_id"] not in used],
        tail_start=tail_start,
        tail_count=len(tail),
    )


def _chain_runs(document: Document, segments: Sequence[Document], tail_start: int) -> list[list[_SegmentRun]]:
    """Return the records in segments, chained from the tail back to the beginning, and split at large gaps.

    Of several runs that end at one position, a run that is certainly committed is preferred, and then the longest one.
    """
    stored_runs = document.get("runs")
    attempts = stored_runs if isinstance(stored_runs, list) else []
    named = {each.get("by") for each in attempts if isinstance(each, Mapping)}
    ends: dict[int, list[_SegmentRun]] = defaultdict(list)
    for run in _find_runs(segments):
        ends[run.end].append(run)
    groups: list[list[_SegmentRun]] = [[]]
    position = tail_start
    for end in sorted(ends, reverse=True):
        if end <= position:
            if groups[0] and position - end > LONGEST_GAP:
                groups.insert(0, [])
            best = min(ends[end], key=lambda run: (run.by is not None and run.by not in named, run.first))
            groups[0].insert(0, best)
            position = best.first
    return groups


def _find_runs(segments: Sequence[Document]) -> list[_SegmentRun]:
    """Return the records in sound segments; a record in pieces only if all pieces are there."""
    runs: list[_SegmentRun] = []
    pieces: dict[tuple[Any, int, int], dict[int, Any]] = defaultdict(dict)
    for document in segments:
        segment, by = parse_segment(document), document.get("by")
        if segment is None or not (by is None or isinstance(by, ObjectId)):
            continue
        same_record = pieces[by, segment.first, segment.parts] if segment.parts > 1 else {}
        same_record[segment.part] = document["_id"]
        if len(same_record) == segment.parts:
            ids = tuple(same_record[part] for part in range(segment.parts))
            runs.append(_SegmentRun(segment.first, segment.end, by, ids))
    return runs


def read_found(collections: Collections, found: FoundRecords, start: int, stop: int) -> list[Record]:
    """Return the sound records of the positions [start, stop).

    Args:
        collections: The collections.
        found: The result of `find_records`.
        start: The first position.
        stop: The position after the last one.
    """
    known = found if isinstance(found, _MongoFoundRecords) else find_records(collections, found.key)
    if not isinstance(known, _MongoFoundRecords):
        return []
    bodies: dict[int, Any] = {}
    for run in known.runs:
        if run.first < stop and start < run.end:
            with collections.segments.find({"_id": {"$in": list(run.ids)}}).sort("part", 1) as documents:
                lists = [each["bodies"] for each in documents if isinstance(each.get("bodies"), list)]
            if len(lists) != len(run.ids):
                continue  # removed meanwhile
            if len(lists) > 1:
                texts = [read_text(piece) for pieces in lists for piece in pieces]
                lists = [[None if None in texts else "".join(map(str, texts))]]
            bodies |= enumerate(lists[0], run.first)
    if max(start, known.tail_start) < min(stop, known.tail_start + known.tail_count):
        stored = _load_stored(collections, known.key)
        if _hash_document(stored) == known.token:
            bodies |= enumerate(decode_raw(stored)["tail"], known.tail_start)
    texts_by_position = ((at, read_text(bodies[at])) for at in sorted(bodies) if start <= at < stop)
    return [Record(at, text) for at, text in texts_by_position if text is not None]


def restore_head(collections: Collections, found: FoundRecords, head: Head) -> Head:
    """Store a new head that refers to the records that were found.

    Args:
        collections: The collections.
        found: The result of `find_records`.
        head: The new head.

    Returns:
        The new head.

    Raises:
        Conflict: The head document has changed since `find_records`.
        InvalidInput: The new head does not end where the records do.
    """
    key = found.key
    known = found if isinstance(found, _MongoFoundRecords) else find_records(collections, key)
    stored = _load_stored(collections, key)
    if not isinstance(known, _MongoFoundRecords) or _hash_document(stored) != found.token:
        raise Conflict(key, _parse_current(stored))
    old = decode_raw(stored)
    first = min(max(known.tail_start, head.start), head.end)
    if any(run.end > head.end for run in known.runs) or head.end - first > known.tail_count + LONGEST_GAP:
        raise InvalidInput("the new head must end where the records do")
    # Each body of the tail stays at its position; a missing body becomes a damaged one.
    bodies = list(map(to_storable, old["tail"])) if old["size"] > 0 else []
    tail = bodies[first - known.tail_start : head.end - known.tail_start] if bodies else []
    tail += [None] * (head.end - first - len(tail))
    attempts = {run.by: run.first for run in reversed(known.runs) if run.by is not None}
    runs = [{"by": by, "first": Int64(at)} for by, at in attempts.items()]
    lowest = min([head.start, *(run.first for run in known.runs)])
    document = {**make_head_document(head, known.born, tail, runs), "cleared": Int64(lowest)}
    if stored is not None:
        is_done = collections.heads.replace_one(match_document(stored), document).matched_count == 1
    else:
        is_done = insert_head(collections, document)
    if not is_done:
        raise Conflict(key, _parse_current(_load_stored(collections, key)))
    if known.unused:
        collections.segments.delete_many({"_id": {"$in": list(known.unused)}})
    return Head(key, head.start, head.end, head.revision)


def _parse_current(stored: RawBSONDocument | None) -> Head | None:
    """Return the stored head; None if it cannot be read."""
    current = None if stored is None else _try_parse(decode_raw(stored))[0]
    return current.head if current else None
