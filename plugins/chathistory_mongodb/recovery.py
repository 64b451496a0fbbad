"""A new head for a conversation whose head document is damaged, or gone: finding the records, and naming them anew.

Segments say their positions, and of which `born` they are. The bodies of the tail do not say theirs: they stand one
after the other, from where the segments end, or where `from` or `end` of the head say.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import Int64, ObjectId, decode
from bson.raw_bson import RawBSONDocument
from pymongo.errors import DuplicateKeyError

from chathistory.errors import Conflict, InvalidInput
from chathistory.storage.recovery import LONGEST_GAP, FoundRecords
from chathistory.storage.store import Head, Key, Record
from chathistory_mongodb.connection import Place
from chathistory_mongodb.documents import (
    CODEC,
    Document,
    exactly,
    identity,
    is_dead,
    new_head,
    state_of,
    storable,
    text_of,
    weight,
    whole_number,
)
from chathistory_mongodb.faults import Damage
from chathistory_mongodb.reading import COUNTED, TOO_FAR, place_of

__all__ = ["find", "read", "restore"]

_RAW = CODEC.with_options(document_class=RawBSONDocument)


@dataclass(frozen=True, slots=True)
class _Run:
    """Records that stand in one segment, or one record in several pieces."""

    first: int
    end: int
    by: ObjectId | None
    ids: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Found(FoundRecords):
    """Where the records stand: segments in order, and behind them the tail of the head document.

    unused: the ids of segments that lie across others; they count for nothing.
    """

    born: ObjectId = field(default_factory=ObjectId)
    runs: tuple[_Run, ...] = field(default=(), repr=False)
    unused: tuple[Any, ...] = field(default=(), repr=False)
    tail_first: int = 0
    tail_count: int = 0


def find(place: Place, key: Key) -> FoundRecords | None:
    """Return what is stored under a key; None: nothing."""
    stored = _stored(place, key)
    document = decode(stored.raw, CODEC) if stored else {}
    if is_dead(document):
        return None
    born = document.get("born")
    if not isinstance(born, ObjectId):
        born = _likeliest_owner(place, key)
        if born is None and stored is None:
            return None
    tail = document.get("tail")
    bodies = tail if isinstance(tail, list) else []
    named = _named_attempts(document)
    segments = [] if born is None else list(place.segments.find({"of": born}, COUNTED))
    highest = max((number for each in segments if (number := whole_number(each.get("end"))) is not None), default=None)
    told_first = _tail_first(document, bodies, highest)
    chain, unused = _chain(segments, named, told_first)
    runs = _connected(chain, has_tail=bool(bodies))
    tail_first = _near(document, runs, told_first)
    start = _start(document, runs, tail_first)
    is_apart = tail_first != told_first or runs != chain or start - _said_start(document, start) > LONGEST_GAP
    sound = [at for at, body in enumerate(bodies) if text_of(body) is not None]
    end = tail_first + sound[-1] + 1 if sound else max((run.end for run in runs), default=start)
    return _Found(
        key,
        _token(stored),
        start,
        max(start, end),
        (_problem(document, bodies) or (TOO_FAR if is_apart else None)) if stored else "its head is gone",
        born=born or ObjectId(),
        runs=tuple(runs),
        unused=tuple(unused),
        tail_first=tail_first,
        tail_count=len(bodies),
    )


def _stored(place: Place, key: Key) -> RawBSONDocument | None:
    raw: Any = place.heads.with_options(codec_options=_RAW)
    found: RawBSONDocument | None = raw.find_one({"_id": identity(key)})
    return found


def _token(stored: RawBSONDocument | None) -> str:
    return hashlib.sha256(stored.raw).hexdigest() if stored else ""


def _problem(document: Document, bodies: Sequence[Any]) -> str | None:
    try:
        state = state_of(document | {"size": len(bodies) if isinstance(document.get("tail"), list) else -1})
        if state:
            state.check_tail()
    except Damage as damage:
        return damage.reason
    return None


def _likeliest_owner(place: Place, key: Key) -> ObjectId | None:
    """Return the `born` of the segments of a conversation whose head does not say it: that of most records."""
    counts: Counter[ObjectId] = Counter()
    with place.segments.find({"key": identity(key)}, {"of": True, "first": True, "end": True}) as segments:
        for each in segments:
            first, end = whole_number(each.get("first")), whole_number(each.get("end"))
            if isinstance(each.get("of"), ObjectId) and first is not None and end is not None:
                counts[each["of"]] += end - first
    return max(counts, key=lambda of: (counts[of], of)) if counts else None


def _named_attempts(document: Document) -> set[Any]:
    runs = document.get("runs")
    return {run.get("by") for run in runs if isinstance(run, Mapping)} if isinstance(runs, list) else set()


def _tail_first(document: Document, bodies: Sequence[Any], highest: int | None) -> int:
    """Return the position of the tail's first body: what most of those say that can know."""
    first, end, start = (whole_number(document.get(name)) for name in ("from", "end", "start"))
    said = [first, None if end is None else end - len(bodies), start if highest is None else highest]
    known = [each for each in said if each is not None and each >= 0]
    if not known:
        return highest or 0
    counts = Counter(known)
    return max(counts, key=lambda each: (counts[each], -known.index(each)))


def _chain(segments: Sequence[Document], named: set[Any], tail_first: int) -> tuple[list[_Run], list[Any]]:
    """Return the segments that lead from the tail back to the beginning, in order, and the ids of the others.

    Of several that end at the same position one is taken that counts for certain; then one that begins furthest back.
    """
    ends: dict[int, list[_Run]] = defaultdict(list)
    for run in _runs(segments):
        ends[run.end].append(run)
    chosen: list[_Run] = []
    position = tail_first
    for end in sorted(ends, reverse=True):
        if end <= position:
            best = min(ends[end], key=lambda run: (run.by is not None and run.by not in named, run.first))
            chosen.append(best)
            position = best.first
    used = {name for run in chosen for name in run.ids}
    unused = [each["_id"] for each in segments if each["_id"] not in used]
    return chosen[::-1], unused


def _connected(chain: Sequence[_Run], *, has_tail: bool) -> list[_Run]:
    """Return the runs that no gap parts which is too long: those before the tail; where it is empty, the most records.

    The others stay where they are, and count for nothing.
    """
    groups: list[list[_Run]] = [[]]
    for run in chain:
        if groups[-1] and run.first - groups[-1][-1].end > LONGEST_GAP:
            groups.append([])
        groups[-1].append(run)
    return groups[-1] if has_tail else max(groups, key=lambda runs: sum(run.end - run.first for run in runs))


def _near(document: Document, runs: Sequence[_Run], tail_first: int) -> int:
    """Return the position of the tail's first body; where its head says one that is too far, that behind the others."""
    said = [number for name in ("start", "cleared") if (number := whole_number(document.get(name))) is not None]
    before = runs[-1].end if runs else max(said, default=tail_first)
    return before if tail_first - before > LONGEST_GAP else tail_first


def _said_start(document: Document, usual: int) -> int:
    start = whole_number(document.get("start"))
    return usual if start is None else start


def _runs(segments: Sequence[Document]) -> list[_Run]:
    """Return the runs of records that sound segments hold; of a body in pieces only if all of them are there."""
    runs: list[_Run] = []
    pieces: dict[tuple[Any, int, int], dict[int, Any]] = defaultdict(dict)
    for each in segments:
        try:
            first, parts, part = place_of(each)
        except Damage:
            continue
        by = each.get("by")
        if by is not None and not isinstance(by, ObjectId):
            continue
        if parts == 1:
            runs.append(_Run(first, int(each["end"]), by, (each["_id"],)))
            continue
        of_one = pieces[by, first, parts]
        of_one[part] = each["_id"]
        if len(of_one) == parts:
            runs.append(_Run(first, first + 1, by, tuple(of_one[at] for at in range(parts))))
    return runs


def _start(document: Document, runs: Sequence[_Run], tail_first: int) -> int:
    """Return the first position that is kept: what the head says, unless that cannot be."""
    lowest = runs[0].first if runs else tail_first
    start, cleared = whole_number(document.get("start")), whole_number(document.get("cleared"))
    for said in (start, cleared):
        if said is not None and lowest - LONGEST_GAP <= said <= tail_first:
            return said
    return lowest


def read(place: Place, found: FoundRecords, start: int, stop: int) -> list[Record]:
    """Return the sound records of [start, stop)."""
    known = found if isinstance(found, _Found) else find(place, found.key)
    if not isinstance(known, _Found):
        return []
    records: list[Record] = []
    for run in known.runs:
        if run.first < stop and start < run.end:
            records += _in_run(place, run, start, stop)
    low, high = max(start, known.tail_first), min(stop, known.tail_first + known.tail_count)
    if low < high:
        stored = _stored(place, known.key)
        if stored is not None and _token(stored) == known.token:
            bodies = decode(stored.raw, CODEC)["tail"]
            texts = [(at, text_of(bodies[at - known.tail_first])) for at in range(low, high)]
            records += [Record(at, text) for at, text in texts if text is not None]
    return records


def _in_run(place: Place, run: _Run, start: int, stop: int) -> list[Record]:
    with place.segments.find({"_id": {"$in": list(run.ids)}}).sort([("part", 1)]) as documents:
        found = [bodies for document in documents if isinstance(bodies := document.get("bodies"), list)]
    if len(found) != len(run.ids):
        return []  # removed since
    if len(run.ids) > 1:
        texts = [text_of(piece) for bodies in found for piece in bodies]
        whole = None if None in texts else "".join(map(str, texts))
        return [] if whole is None else [Record(run.first, whole)]
    texts = [text_of(body) for body in found[0]]
    pairs = [(at, text) for at, text in enumerate(texts, run.first) if start <= at < stop]
    return [Record(at, text) for at, text in pairs if text is not None]


def restore(place: Place, found: FoundRecords, head: Head) -> Head:
    """Store a head that names the records which were found. Raises `Conflict` if something else is there by now."""
    key = found.key
    known = found if isinstance(found, _Found) else find(place, key)
    stored = _stored(place, key)
    if not isinstance(known, _Found) or _token(stored) != found.token:
        raise Conflict(key, _present(stored))
    document = _restored(known, head, decode(stored.raw, CODEC).get("tail") if stored else None)
    if not _replaced(place, stored, document):
        raise Conflict(key, _present(_stored(place, key)))
    if known.unused:
        place.segments.delete_many({"_id": {"$in": list(known.unused)}})
    return Head(key, head.start, head.end, head.revision)


def _restored(found: _Found, head: Head, tail: Any) -> Document:
    """Return the new head document. Each body of the tail stays at its position; what is missing is damaged there."""
    first = min(max(found.tail_first, head.start), head.end)
    if any(run.end > head.end for run in found.runs) or head.end - first > found.tail_count + LONGEST_GAP:
        raise InvalidInput("the head to be restored does not end where the records do")
    bodies = list(map(storable, tail)) if isinstance(tail, list) else []
    kept = bodies[first - found.tail_first : head.end - found.tail_first] if bodies else []
    kept += [None] * (head.end - first - len(kept))
    attempts = {run.by: run.first for run in reversed(found.runs) if run.by is not None}
    document = new_head(head, found.born, kept)
    document["runs"] = [{"by": by, "first": Int64(at)} for by, at in attempts.items()]
    document["bytes"] = weight(kept)
    lowest = min((run.first for run in found.runs), default=head.start)
    document["cleared"] = Int64(min(lowest, head.start))
    return document


def _replaced(place: Place, stored: RawBSONDocument | None, document: Document) -> bool:
    if stored is not None:
        return place.heads.replace_one(exactly(stored), document).matched_count == 1
    try:
        place.heads.insert_one(document)
    except DuplicateKeyError:
        return False
    return True


def _present(stored: RawBSONDocument | None) -> Head | None:
    """Return the head that is there now, if it can be read."""
    if stored is None:
        return None
    document = decode(stored.raw, CODEC)
    tail = document.get("tail")
    try:
        state = state_of(document | {"size": len(tail) if isinstance(tail, list) else -1})
    except Damage:
        return None
    return state.head if state else None
