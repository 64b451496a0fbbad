"""Damage at random places of a conversation's file, and a check of the result.

Each case builds a file by appends (of 1, 2, 3 or 300 records), changes it, and checks: no call raises anything but our
errors; no body is ever altered; each record with an unchanged line can be read, at once or after a repair; and what
looks like an interrupted append is named. As a script it continues where it was stopped:

    python tests/plugins/file/file_random_damage.py --seconds 600 --notes /tmp/campaign.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from chathistory_file import FileStore

from chathistory import Head, Key, Revision
from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord
from chathistory.storage.safe_names import safe_name

SIZES = (1, 1, 1, 2, 3, 300)
SECTOR = 512
PER_FILE = 25
NAMES = ("support/42", "я" * 52, "c", "A" * 200)
ODD = (
    '{"v":1,"text":"%s"}', "%s", '["%s"]', '{"a":[7,"00000000",{"b":"%s"}]}', '{"commit":2,"at":0,"text":"%s"}', "[%s",
    '{"é":"\u2028%s😀"}', '{"text":"[3,\\"a1b2c3d4\\",%s"}', "]%s[", "",
)  # fmt: skip


@dataclass
class Built:
    """A conversation as it was stored: the bytes of its file, its bodies by position, and where each line is."""

    key: Key
    head: Head
    whole: bytes
    bodies: dict[int, str]
    lines: dict[int, range]
    commits: list[range]


@dataclass
class Damage:
    """A change to a file: `parts` replace ranges of it, in order."""

    kind: str
    parts: list[tuple[range, bytes]] = field(default_factory=list)

    def applied(self, whole: bytes) -> bytes:
        done, at = [], 0
        for place, new in self.parts:
            done += [whole[at : place.start], new]
            at = place.stop
        return b"".join([*done, whole[at:]])

    def touches(self, line: range) -> bool:
        """Tell whether a byte of a line was changed or removed, or something was put between two of its bytes."""
        return any(
            place.start < line.stop and place.stop > line.start if place else line.start < place.start < line.stop
            for place, _ in self.parts
        )


def path_of(store: FileStore, key: Key) -> Path:
    return Path(store.root, safe_name(key.scope), safe_name(key.id) + ".jsonl")


def build(store: FileStore, dice: random.Random) -> Built:
    """Append some batches of some texts."""
    key = Key(dice.choice(("default", "я" * 60)), dice.choice(NAMES))
    store.delete(key)
    first = dice.choice((0, 0, 5, 99_998))
    head: Head | None = None
    bodies: dict[int, str] = {}
    info = dice.choice(("", '{"title":"T"}', '{"preview":"' + "x" * dice.randrange(2000) + '"}'))
    for number in range(dice.randint(1, 5)):
        size = dice.choice(SIZES)
        batch = [_body(dice) for _ in range(size)]
        revision = Revision(f"version-{number}-{dice.randrange(10**9)}", 10**15 + number, None, info)
        head = store.append(key, batch, after=head, revision=revision, first=first)
        bodies.update(enumerate(batch, head.end - size))
    assert head is not None
    if dice.random() < 0.2:
        head = store.forget(key, before=dice.randint(head.start, head.end - 1)) or head
    return _built(store, key, head, bodies)


def _body(dice: random.Random) -> str:
    text = "".join(dice.choice("abcdefgh 0123456789äß€") for _ in range(dice.choice((0, 3, 30, 30, 30, 700))))
    odd = dice.choice(ODD)
    return odd % text if "%" in odd else odd


def _built(store: FileStore, key: Key, head: Head, bodies: dict[int, str]) -> Built:
    whole = path_of(store, key).read_bytes()
    lines: dict[int, range] = {}
    commits, at, position = [], 0, head.start
    for line in whole.splitlines(keepends=True) if b"\r" not in whole else []:
        place = range(at, at + len(line))
        if line.startswith(b"["):
            lines[position] = place
            position += 1
        else:
            commits.append(place)
        at = place.stop
    assert position == head.end
    kept = {position: bodies[position] for position in lines}
    return Built(key, head, whole, kept, lines, commits)


def damage(built: Built, dice: random.Random) -> Damage:
    """Return one or two changes of a file."""
    kind = dice.choice(tuple(KINDS))
    parts = [KINDS[kind](built.whole, dice)]
    if dice.random() < 0.15:
        kind, parts = "several", [*parts, KINDS[dice.choice(tuple(KINDS))](built.whole, dice)]
    parts.sort(key=lambda part: (part[0].start, part[0].stop))
    for before, after in pairwise(parts):
        if after[0].start < before[0].stop:
            parts = parts[:1]
    return Damage(kind, parts)


def _place(whole: bytes, dice: random.Random) -> int:
    """Return a place: anywhere, at an end of a line, or in the last commit."""
    how = dice.random()
    if how < 0.5:
        return dice.randrange(len(whole))
    if how < 0.75:
        ends = [at for at, byte in enumerate(whole) if byte == 10]
        return min(max(dice.choice(ends) + dice.randint(-1, 1), 0), len(whole) - 1)
    return dice.randrange(whole.rindex(b'{"commit":'), len(whole))


def _flip(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    at = _place(whole, dice)
    return range(at, at + 1), bytes([whole[at] ^ (1 << dice.randrange(8))])


def _byte(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    at = _place(whole, dice)
    new = dice.choice((0, 9, 10, 13, 32, 34, 44, 91, 93, 123, 125, 255, dice.randrange(256)))
    return range(at, at + 1), bytes([new if new != whole[at] else new ^ 1])


def _run(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    at = _place(whole, dice)
    stop = min(at + dice.choice((2, 5, 20, 200, 900)), len(whole))
    return range(at, stop), dice.randbytes(stop - at)


def _zeros(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    at = _place(whole, dice)
    stop = min(at + dice.choice((1, 3, 40, 600, 1500)), len(whole))
    return range(at, stop), bytes(stop - at)


def _sector(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    at = _place(whole, dice) // SECTOR * SECTOR
    stop = min(at + SECTOR, len(whole))
    return range(at, stop), bytes(stop - at)


def _insert(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    at = _place(whole, dice)
    new = dice.choice((b"\n", b"\r", b" ", b"x", b"\0", b"\n\n", b"[", dice.randbytes(dice.randint(1, 50))))
    return range(at, at), new


def _again(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    """Insert a copy of some other part of the file."""
    start = dice.randrange(len(whole))
    at = _place(whole, dice)
    return range(at, at), whole[start : start + dice.choice((1, 30, 300, 3000))]


def _remove(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    at = _place(whole, dice)
    return range(at, min(at + dice.choice((1, 1, 2, 9, 70, 800)), len(whole))), b""


def _line(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    at = _place(whole, dice)
    return range(whole.rfind(b"\n", 0, at) + 1, whole.find(b"\n", at) + 1), b""


def _cut(whole: bytes, dice: random.Random) -> tuple[range, bytes]:
    return range(_place(whole, dice), len(whole)), b""


KINDS = {
    "flip": _flip, "byte": _byte, "run": _run, "zeros": _zeros, "sector": _sector, "insert": _insert, "again": _again,
    "remove": _remove, "line": _line, "cut": _cut,
}  # fmt: skip


def looks_interrupted(built: Built, done: Damage, end: int) -> bool:
    """Tell whether damage made the bytes after the commit of `end` look like an interrupted append.

    That is: nothing is left of the commit that followed, or a sector is zeros as far as the append reaches into it.
    """
    after = max((place.stop for place in built.commits if _end_of(built, place) <= end), default=0)
    lost = [place for place in built.commits if place.start >= after]
    gone = all(
        any(part.start <= place.start and part.stop >= place.stop - 1 for part, _ in done.parts) for place in lost
    )
    holes = any(not new.strip(b"\0") and new for _, new in done.parts)
    cut = any(not new and part.stop == len(built.whole) for part, new in done.parts)
    return gone or holes or cut


def _end_of(built: Built, commit: range) -> int:
    return int(json.loads(built.whole[commit.start : commit.stop])["end"])


def check(store: FileStore, built: Built, done: Damage) -> str:
    """Check the result of damage; returns it in a word."""
    path = path_of(store, built.key)
    path.write_bytes(done.applied(built.whole))
    sound = {position for position, line in built.lines.items() if not done.touches(line)}
    outcome = _check_read(store, built, done, sound)
    _check_walks(store, built, outcome)
    if outcome == "damaged":
        outcome = _check_repair(store, built, sound)
    _check_writing(store, built)
    return outcome


def _check_read(store: FileStore, built: Built, done: Damage, sound: set[int]) -> str:
    try:
        found = store.read(built.key, stop=0)
    except CorruptRecord as error:
        _is_of_the_head(error, built.key)
        return "damaged"
    if found is not None and found.head == built.head:
        _check_records(store, built, sound)
        return "readable"
    end = found.head.end if found else built.head.start
    assert end < built.head.end
    lost = [position for position in sound if position >= end]
    if lost:
        assert looks_interrupted(built, done, end), f"records {lost[:5]} are sound, and silently ignored"
    named = store.list_notes(built.key) if found else [row.where for row in store.damaged_keys()]
    behind = len(path_of(store, built.key).read_bytes().rstrip())
    assert named or not behind or not lost or done.kind in {"cut", "remove", "line", "several"}, "it is not named"
    if found is not None:
        _check_records(store, built, {position for position in sound if position < end}, stop=end)
    return "earlier" if found else "absent"


def _check_records(store: FileStore, built: Built, sound: set[int], *, stop: int | None = None) -> None:
    """Check that each sound record is readable by itself and together with others, and no other body is returned."""
    end = built.head.end if stop is None else stop
    seen = _walk(store, built.key, built.head.start, end)
    assert sound <= seen.keys(), f"records {sorted(sound - seen.keys())[:5]} are sound, and cannot be read"
    assert all(built.bodies[position] == body for position, body in seen.items()), "a body was altered"
    damaged = [position for position in range(built.head.start, end) if position not in seen]
    near = {position + step for position in damaged[:3] + damaged[-3:] for step in (-1, 0, 1)}
    for position in near | {built.head.start, end - 1, (built.head.start + end) // 2}:
        if built.head.start <= position < end:
            assert _body_at(store, built.key, position) == seen.get(position)


def _is_of_the_head(error: CorruptRecord, key: Key) -> None:
    assert (error.position, error.key) == (None, key)


def _is_within(error: CorruptRecord, positions: range) -> None:
    assert error.position in positions


def _walk(store: FileStore, key: Key, start: int, end: int) -> dict[int, str]:
    """Return what can be read of a range, around what cannot."""
    seen: dict[int, str] = {}
    stop = end
    while start < end:
        try:
            found = store.read(key, start=start, stop=stop)
        except CorruptRecord as error:
            _is_within(error, range(start, stop))
            start, stop = (start, error.position) if error.position > start else (start + 1, end)
            continue
        assert found is not None
        assert [record.position for record in found.records] == [*range(start, start + len(found.records))]
        seen.update((record.position, record.body) for record in found.records)
        start = found.records[-1].position + 1
        stop = end if start == stop else stop
    return seen


def _body_at(store: FileStore, key: Key, position: int) -> str | None:
    try:
        found = store.read(key, start=position, stop=position + 1)
    except CorruptRecord as error:
        _is_within(error, range(position, position + 1))
        return None
    assert found is not None
    return found.records[0].body


def _check_walks(store: FileStore, built: Built, outcome: str) -> None:
    page = store.heads(built.key.scope)
    keys, nameless = list(store.keys()), list(store.damaged_keys())
    assert keys == list(store.scan_keys(built.key.scope))
    assert all(key == built.key for key in keys)
    if outcome in {"readable", "earlier"}:
        assert [head.key for head in page.items] == keys == [built.key]
    else:
        assert page.items == []
        assert len(page.damaged) == 1 or not path_of(store, built.key).stat().st_size
        assert len(keys) + len(nameless) == 1 or outcome == "absent"


def _check_repair(store: FileStore, built: Built, sound: set[int]) -> str:
    found = store.find_records(built.key)
    assert found is not None
    assert found.problem
    records = store.read_found(found, start=0, stop=10**6)
    seen = {record.position: record.body for record in records}
    assert sound <= seen.keys(), f"sound records were not found: {sorted(sound - seen.keys())[:5]}"
    assert all(built.bodies[position] == body for position, body in seen.items()), "a body was altered"
    head = Head(built.key, found.start, found.end, Revision("restored", 10**15 + 99))
    assert store.restore_head(found, head) == head
    assert _walk(store, built.key, found.start, found.end) == seen
    return "repaired"


def _check_writing(store: FileStore, built: Built) -> None:
    """Check that an append, a forget and a delete work, or say why not."""
    with _only_ours():
        found = store.read(built.key, stop=0)
        head = store.append(
            built.key, ["new"], after=found.head if found else None, revision=Revision("n", 10**15 + 100)
        )
        last = store.read(built.key, start=-1)
        assert last is not None
        assert (last.head, last.records[0].body) == (head, "new")
        left = store.forget(built.key, before=head.end - 1)
        assert left == Head(head.key, head.end - 1, head.end, head.revision)
        assert _body_at(store, built.key, head.end - 1) == "new"
    store.delete(built.key)
    assert list(path_of(store, built.key).parent.iterdir()) == []
    assert store.remove_leftovers(built.key.scope).complete


class _only_ours:  # noqa: N801
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> bool:
        return isinstance(error, ChatHistoryError) and not isinstance(error, Conflict)


def run(seed: int, counts: Counter[str], *, cases: int = PER_FILE) -> None:
    """Build the file of a seed, and damage it `cases` times. Raises `AssertionError` with the case."""
    with tempfile.TemporaryDirectory(dir=_quick()) as folder, FileStore(Path(folder, "h")) as store:
        dice = random.Random(seed)
        built = build(store, dice)
        for case in range(cases):
            Path(store.root, safe_name(built.key.scope)).mkdir(exist_ok=True)
            done = damage(built, dice)
            try:
                outcome = check(store, built, done)
            except Exception as error:
                shutil.rmtree(store.root)
                error.add_note(
                    f"seed {seed}, case {case}: {done.kind} {[(part, len(new)) for part, new in done.parts]}"
                )
                raise
            counts[f"{done.kind}: {outcome}"] += 1
            counts["all"] += 1


def _quick() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> None:
    """Run as many seeds as there is time for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--notes", type=Path, default=Path("campaign-file.json"))
    given = parser.parse_args()
    notes = json.loads(given.notes.read_text()) if given.notes.exists() else {"seed": 0, "counts": {}}
    counts = Counter(notes["counts"])
    os.fsync = os.fdatasync = lambda _: None  # type: ignore[assignment]
    sys.modules["chathistory_file.write"]._sync = lambda _: None  # type: ignore[attr-defined]
    late = time.monotonic() + given.seconds
    while time.monotonic() < late:
        run(notes["seed"], counts)
        notes = {"seed": notes["seed"] + 1, "counts": dict(counts)}
        given.notes.write_text(json.dumps(notes))
    for name, count in sorted(counts.items()):
        print(f"{count:8} {name}")  # noqa: T201


if __name__ == "__main__":
    main()
