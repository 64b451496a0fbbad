"""What is measured on a backend. Each workload is a function that takes a store and returns figures."""

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

from .libraries import MeasuredLibrary, NotSupported, libraries_for, load_library
from .samples import fresh_name, turn, turns
from .servers import MeasuredPlace
from .timing import RAW, At, Figure, Work, make_count, make_figures, measure_alternately

__all__ = ["Scale", "costs", "fresh_processes", "listing", "reads_and_appends", "threads"]

ROOT = Path(__file__).parents[2]
THREADS = 16
_CROWD_SECONDS = 0.5  # seconds that the threads write
_COUNTED_SIZE = 200  # messages of the conversation, and conversations of the listing, for which calls are counted


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        lengths: Lengths of conversations, in messages.
        long: Lengths at which only `chathistory` and raw are measured.
        listing_sizes: Sizes of listings, in conversations.
        s3_listing_sizes: The same on S3, where the test server needs 20 ms for a new conversation.
        seconds: Time for each library and call.
        repeats: Repetitions of what is not measured call by call.
        fresh_peers: Whether other libraries are measured in fresh processes, too.
        clock: Clock for single calls.
    """

    lengths: tuple[int, ...]
    long: tuple[int, ...]
    listing_sizes: tuple[int, ...]
    s3_listing_sizes: tuple[int, ...]
    seconds: float
    repeats: int
    fresh_peers: bool
    clock: Callable[[], float] = time.perf_counter


@contextmanager
def open_libraries(place: MeasuredPlace, *, metered: bool = False) -> Iterator[dict[str, MeasuredLibrary]]:
    """Yield all libraries on a store, by name, and close them afterwards."""
    with ExitStack() as stack:
        found = {}
        for name in libraries_for(place.backend):
            subject = load_library(name)(place.metered if metered else place.url)
            stack.callback(subject.close)
            found[subject.name] = subject
        yield found


def _group_with_raw(subjects: dict[str, MeasuredLibrary]) -> list[dict[str, MeasuredLibrary]]:
    """Return raw with `chathistory`, and raw with the other libraries: their slow calls would spoil the caches."""
    names = list(subjects)
    ours, peers = names[1:3], names[3:]
    return [{name: subjects[name] for name in [RAW, *group]} for group in (ours, peers) if group]


def _measure_libraries(
    subjects: dict[str, MeasuredLibrary], at: At, scale: Scale, make: Callable[[MeasuredLibrary], Work]
) -> list[Figure]:
    found: list[Figure] = []
    for number, group in enumerate(_group_with_raw(subjects)):
        works = {}
        for name, subject in group.items():
            with suppress(NotSupported):
                works[name] = make(subject)
        if set(works) > {RAW}:
            acknowledged = make_figures(at, measure_alternately(works, seconds=scale.seconds, clock=scale.clock))
            found += acknowledged if number == 0 else [one for one in acknowledged if one.subject != RAW]
    return found


def reads_and_appends(place: MeasuredPlace, scale: Scale) -> Iterator[Figure]:
    """At each length, append a turn, read the last 20 messages, and load all."""
    for length in (*scale.lengths, *scale.long):
        with open_libraries(place) as every:
            subjects = dict(list(every.items())[:3]) if length in scale.long else every
            name = fresh_name()
            for subject in subjects.values():
                subject.fill(name, turns(length))
            for work, make in _WORKS.items():
                at = At(place.backend, work, length)
                yield from _measure_libraries(subjects, at, scale, partial(make, name))


def _make_append(name: str, subject: MeasuredLibrary) -> Work:
    fresh = turn("new")
    return lambda: subject.append(name, fresh)


def _make_tail(name: str, subject: MeasuredLibrary) -> Work:
    return lambda: subject.tail(name)


def _make_load(name: str, subject: MeasuredLibrary) -> Work:
    return lambda: subject.load(name)


_WORKS = {"load all": _make_load, "last 20": _make_tail, "append": _make_append}


def listing(place: MeasuredPlace, scale: Scale) -> Iterator[Figure]:
    """List the newest 20 conversations of many."""
    for count in scale.s3_listing_sizes if place.backend == "s3" else scale.listing_sizes:
        with open_libraries(place) as subjects:

            def fill_and_list(subject: MeasuredLibrary, count: int = count) -> Work:
                subject.fill_conversations(count)
                subject.recent(count)
                return lambda: subject.recent(count)

            yield from _measure_libraries(subjects, At(place.backend, "newest 20", count), scale, fill_and_list)


def fresh_processes(place: MeasuredPlace, scale: Scale) -> Iterator[Figure]:
    """Append a turn to a conversation of 100 messages, in a fresh process."""
    if place.backend == "memory":
        return
    names = libraries_for(place.backend)[: None if scale.fresh_peers else 3]
    name = fresh_name()
    with open_libraries(place) as subjects:
        for subject in subjects.values():
            subject.fill(name, turns(100))
    alone: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {}
    for number in range(scale.repeats):
        for each in names[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            acknowledged = _in_fresh_process(each, place.url, name)
            whole.setdefault(acknowledged["subject"], []).append(time.perf_counter() - started)
            alone.setdefault(acknowledged["subject"], []).append(acknowledged["seconds"])
    yield from make_figures(At(place.backend, "append, fresh process", 100), _raw_first(alone), unit="ms", scale=1e3)
    yield from make_figures(At(place.backend, "the whole process", 100), _raw_first(whole), unit="ms", scale=1e3)


def _raw_first(times: dict[str, list[float]]) -> dict[str, list[float]]:
    return dict(sorted(times.items(), key=lambda item: item[0] != RAW))


def _in_fresh_process(subject: str, url: str, name: str) -> dict:
    command = [sys.executable, "-m", f"{__package__}.fresh_process", subject, url, name]
    where = ROOT if "." in __package__ else ROOT / "tests"
    return json.loads(subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout)


def costs(place: MeasuredPlace, _: Scale) -> Iterator[Figure]:
    """Count round trips, requests, calls and bytes of one append, one tail and one page."""
    if place.meter is None:
        return
    with open_libraries(place, metered=True) as subjects:
        name = fresh_name()
        for subject in subjects.values():
            subject.fill(name, turns(_COUNTED_SIZE))
            works = {"append": _make_append(name, subject), "last 20": _make_tail(name, subject)}
            with suppress(NotSupported):
                subject.fill_conversations(_COUNTED_SIZE)
                works["newest 20"] = lambda one=subject: one.recent(_COUNTED_SIZE)
            for work, do in works.items():
                for unit, count in _count_calls(place, do).items():
                    yield make_count(At(place.backend, work, _COUNTED_SIZE), subject.name, unit, count)


def _count_calls(place: MeasuredPlace, do: Work) -> dict[str, float]:
    """Return the medians over a few calls: drivers sometimes send requests of their own."""
    assert place.meter is not None
    do()
    seen = []
    for _ in range(place.meter.calls):
        place.meter.begin()
        do()
        seen.append(place.meter.end())
    return {unit: statistics.median(each[unit] for each in seen) for unit in seen[0]}


def threads(place: MeasuredPlace, scale: Scale) -> Iterator[Figure]:
    """Let 16 threads append turns, first to a conversation each, then all to one, and count what is stored."""
    with open_libraries(place) as subjects:
        for work, chats in ((f"{THREADS} threads, {THREADS} chats", THREADS), (f"{THREADS} threads, one chat", 1)):
            rates: dict[str, list[float]] = {name: [] for name in subjects}
            harms: dict[str, Counter[str]] = {name: Counter() for name in subjects}
            for number in range(scale.repeats):
                for name, subject in list(subjects.items())[:: 1 if number % 2 else -1]:
                    rate, harm = _append_from_threads(subject, chats, _CROWD_SECONDS)
                    rates[name].append(rate)
                    harms[name] += harm
            yield from make_figures(At(place.backend, work, chats), rates, unit="turns/s", scale=1)
            for name, harm in harms.items():
                for kind in ("lost", "doubled", "interleaved", "refused"):
                    yield make_count(At(place.backend, work, chats), name, f"messages {kind}", harm[kind])


def _append_from_threads(subject: MeasuredLibrary, chats: int, seconds: float) -> tuple[float, Counter[str]]:
    names = [fresh_name() for _ in range(chats)]
    for name in names:
        subject.append(name, turn("first"))
    acknowledged: list[list[str]] = [[] for _ in range(THREADS)]
    refused: list[int] = [0] * THREADS
    late = time.perf_counter() + seconds
    append = subject.append_shared if chats == 1 else subject.append

    def run(thread: int) -> None:
        number = 0
        while time.perf_counter() < late:
            mark, number = f"{thread}-{number}", number + 1
            try:
                append(names[thread % chats], turn(mark))
            except Exception:  # noqa: BLE001  # any error of a library: the message was refused
                refused[thread] += 2
            else:
                acknowledged[thread].append(mark)

    started = time.perf_counter()
    crowd = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    duration = time.perf_counter() - started
    harm = _count_harm(
        [mark for marks in acknowledged for mark in marks], [_read_texts(subject, name) for name in names]
    )
    return sum(map(len, acknowledged)) / duration, harm + Counter({"refused": sum(refused)})


def _read_texts(subject: MeasuredLibrary, name: str) -> list[str]:
    try:
        return subject.texts(name)
    except Exception:  # noqa: BLE001  # what cannot be read counts as lost
        return []


def _count_harm(acknowledged: Sequence[str], chats: Sequence[Sequence[str]]) -> Counter[str]:
    """Count messages that are lost or doubled, and turns with messages of others in between."""
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
