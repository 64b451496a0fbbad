"""What is measured of a backend, each work as a function from a place to figures."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .libraries import Subject, Unable, named, subjects_of
from .samples import fresh_name, turn, turns
from .servers import Place
from .timing import RAW, At, Figure, Work, alternated, counted, figures

__all__ = ["Scale", "costs", "fresh_processes", "listing", "reads_and_appends", "threads"]

ROOT = Path(__file__).parents[2]
THREADS = 16
_CROWDED = 0.5  # seconds that the threads write
_COUNTED = 200  # messages of the conversation, and conversations of the shelf, at which costs are counted


@dataclass(frozen=True)
class Scale:
    """How much is done: lengths of conversations, sizes of shelves, seconds for each subject, repetitions.

    long: lengths at which only ours and raw are measured. few: the shelf on S3, where the stand-in that the tests
    have for a server needs 20 ms for a new conversation. clock: which time is measured of single calls.
    """

    lengths: tuple[int, ...]
    long: tuple[int, ...]
    shelves: tuple[int, ...]
    few: tuple[int, ...]
    seconds: float
    repeats: int
    fresh_peers: bool
    clock: Callable[[], float] = time.perf_counter


@contextmanager
def opened(place: Place, *, metered: bool = False) -> Iterator[dict[str, Subject]]:
    """Give all subjects of a place, by name, and close them."""
    with ExitStack() as stack:
        found = {}
        for name in subjects_of(place.backend):
            subject = named(name)(place.metered if metered else place.url)
            stack.callback(subject.close)
            found[subject.name] = subject
        yield found


def _groups(subjects: dict[str, Subject]) -> list[dict[str, Subject]]:
    """Return raw with ours, and raw with the peers: a slow peer between the two would spoil their caches."""
    names = list(subjects)
    ours, peers = names[1:3], names[3:]
    return [{name: subjects[name] for name in [RAW, *group]} for group in (ours, peers) if group]


def _measured(subjects: dict[str, Subject], at: At, scale: Scale, made: Callable[[Subject], Work]) -> list[Figure]:
    found: list[Figure] = []
    for number, group in enumerate(_groups(subjects)):
        works = {}
        for name, subject in group.items():
            with suppress(Unable):
                works[name] = made(subject)
        if set(works) > {RAW}:
            told = figures(at, alternated(works, seconds=scale.seconds, clock=scale.clock))
            found += told if number == 0 else [one for one in told if one.subject != RAW]
    return found


def reads_and_appends(place: Place, scale: Scale) -> Iterator[Figure]:
    """Append a turn, read the last 20 messages, load all: at each length."""
    for length in (*scale.lengths, *scale.long):
        with opened(place) as every:
            subjects = dict(list(every.items())[:3]) if length in scale.long else every
            name = fresh_name()
            for subject in subjects.values():
                subject.fill(name, turns(length))
            for work, made in _WORKS.items():
                at = At(place.backend, work, length)
                yield from _measured(subjects, at, scale, partial(made, name))


def _appending(name: str, subject: Subject) -> Work:
    fresh = turn("new")
    return lambda: subject.append(name, fresh)


def _tailing(name: str, subject: Subject) -> Work:
    return lambda: subject.tail(name)


def _loading(name: str, subject: Subject) -> Work:
    return lambda: subject.load(name)


_WORKS = {"load all": _loading, "last 20": _tailing, "append": _appending}


def listing(place: Place, scale: Scale) -> Iterator[Figure]:
    """Show the newest 20 conversations of many."""
    for count in scale.few if place.backend == "s3" else scale.shelves:
        with opened(place) as subjects:

            def shelving(subject: Subject, count: int = count) -> Work:
                subject.fill_shelf(count)
                subject.recent(count)
                return lambda: subject.recent(count)

            yield from _measured(subjects, At(place.backend, "newest 20", count), scale, shelving)


def fresh_processes(place: Place, scale: Scale) -> Iterator[Figure]:
    """Append a turn to a conversation that is there, in a process that has just begun."""
    if place.backend == "memory":
        return
    names = subjects_of(place.backend)[: None if scale.fresh_peers else 3]
    name = fresh_name()
    with opened(place) as subjects:
        for subject in subjects.values():
            subject.fill(name, turns(100))
    alone: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {}
    for number in range(scale.repeats):
        for each in names[:: 1 if number % 2 else -1]:
            begun = time.perf_counter()
            told = _in_fresh_process(each, place.url, name)
            whole.setdefault(told["subject"], []).append(time.perf_counter() - begun)
            alone.setdefault(told["subject"], []).append(told["seconds"])
    yield from figures(At(place.backend, "append, fresh process", 100), _raw_first(alone), unit="ms", scale=1e3)
    yield from figures(At(place.backend, "the whole process", 100), _raw_first(whole), unit="ms", scale=1e3)


def _raw_first(times: dict[str, list[float]]) -> dict[str, list[float]]:
    return dict(sorted(times.items(), key=lambda item: item[0] != RAW))


def _in_fresh_process(subject: str, url: str, name: str) -> dict:
    command = [sys.executable, "-m", f"{__package__}.fresh_process", subject, url, name]
    where = ROOT if "." in __package__ else ROOT / "tests"
    return json.loads(subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout)


def costs(place: Place, _: Scale) -> Iterator[Figure]:
    """Count round trips, requests, calls and bytes: of one append, one tail, one page."""
    if place.meter is None:
        return
    with opened(place, metered=True) as subjects:
        name = fresh_name()
        for subject in subjects.values():
            subject.fill(name, turns(_COUNTED))
            works = {"append": _appending(name, subject), "last 20": _tailing(name, subject)}
            with suppress(Unable):
                subject.fill_shelf(_COUNTED)
                works["newest 20"] = lambda one=subject: one.recent(_COUNTED)
            for work, do in works.items():
                for unit, count in _counted(place, do).items():
                    yield counted(At(place.backend, work, _COUNTED), subject.name, unit, count)


def _counted(place: Place, do: Work) -> dict[str, float]:
    """Return the medians of a few calls: now and then a driver has a word with its server besides."""
    assert place.meter is not None
    do()
    seen = []
    for _ in range(place.meter.calls):
        place.meter.begin()
        do()
        seen.append(place.meter.end())
    return {unit: statistics.median(each[unit] for each in seen) for unit in seen[0]}


def threads(place: Place, scale: Scale) -> Iterator[Figure]:
    """Let 16 threads append turns, to a conversation each and all to one; count what then is there."""
    with opened(place) as subjects:
        for work, chats in ((f"{THREADS} threads, {THREADS} chats", THREADS), (f"{THREADS} threads, one chat", 1)):
            rates: dict[str, list[float]] = {name: [] for name in subjects}
            harms: dict[str, Counter[str]] = {name: Counter() for name in subjects}
            for number in range(scale.repeats):
                for name, subject in list(subjects.items())[:: 1 if number % 2 else -1]:
                    rate, harm = _crowd(subject, chats, _CROWDED)
                    rates[name].append(rate)
                    harms[name] += harm
            yield from figures(At(place.backend, work, chats), rates, unit="turns/s", scale=1)
            for name, harm in harms.items():
                for kind in ("lost", "doubled", "interleaved", "refused"):
                    yield counted(At(place.backend, work, chats), name, f"messages {kind}", harm[kind])


def _crowd(subject: Subject, chats: int, seconds: float) -> tuple[float, Counter[str]]:
    names = [fresh_name() for _ in range(chats)]
    for name in names:
        subject.append(name, turn("first"))
    told: list[list[str]] = [[] for _ in range(THREADS)]
    refused: list[int] = [0] * THREADS
    late = time.perf_counter() + seconds
    append = subject.append_shared if chats == 1 else subject.append

    def run(thread: int) -> None:
        number = 0
        while time.perf_counter() < late:
            mark, number = f"{thread}-{number}", number + 1
            try:
                append(names[thread % chats], turn(mark))
            except Exception:  # noqa: BLE001  # a library's own error, whatever it is: the message was not taken
                refused[thread] += 2
            else:
                told[thread].append(mark)

    begun = time.perf_counter()
    crowd = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    taken = time.perf_counter() - begun
    harm = _harm([mark for marks in told for mark in marks], [_readable(subject, name) for name in names])
    return sum(map(len, told)) / taken, harm + Counter({"refused": sum(refused)})


def _readable(subject: Subject, name: str) -> list[str]:
    try:
        return subject.texts(name)
    except Exception:  # noqa: BLE001  # what cannot be read is lost
        return []


def _harm(acknowledged: Sequence[str], chats: Sequence[Sequence[str]]) -> Counter[str]:
    """Count messages that are not there, that are there twice, and turns that others came between."""
    words = [[text.split(" ", 1)[0] for text in texts] for texts in chats]
    stored = Counter(word for chat in words for word in chat)
    parts = [f"{mark}.{part}" for mark in acknowledged for part in (0, 1)]
    split = sum(
        word.endswith(".0") and chat[at + 1 : at + 2] != [word[:-1] + "1"]
        for chat in words
        for at, word in enumerate(chat)
    )
    lost = sum(part not in stored for part in parts)
    return Counter(
        {
            "lost": lost,
            "doubled": sum(count > 1 for word, count in stored.items() if "first" not in word),
            "interleaved": split,
        }
    )
