"""What is measured of a library itself: the cost of its import, and which of Claude's messages it keeps unchanged."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from .libraries import BACKENDS, NotSupported, libraries_for, load_library
from .servers import MeasuredPlace
from .timing import Figure
from .workloads import open_libraries

__all__ = ["fidelity", "imports"]

_MEMORY = "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
_STATEMENTS = {
    "bare Python": "pass",
    "chathistory": "import chathistory",
    "chathistory, file opened": "import chathistory; chathistory.open_store('file:/nowhere')",
    "chathistory, redis opened": "import chathistory; chathistory.open_store('redis://localhost')",
    "chathistory, mongodb opened": "import chathistory; chathistory.open_store('mongodb://localhost/db')",
    "chathistory, s3 opened": "import chathistory; chathistory.open_store('s3://bucket')",
    "redis": "import redis",
    "pymongo": "import pymongo",
    "boto3": "import boto3",
    "anthropic": "import anthropic",
}


def imports(repeats: int, *, peers: bool) -> Iterator[Figure]:
    """Measure imports in fresh processes: milliseconds and megabytes above bare Python."""
    statements = _STATEMENTS | (_peer_imports() if peers else {})
    times: dict[str, list[float]] = {name: [] for name in statements}
    sizes: dict[str, list[float]] = {name: [] for name in statements}
    for number in range(repeats):
        for name, statement in list(statements.items())[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            size = int(_run_python(statement + _MEMORY))
            times[name].append((time.perf_counter() - started) * 1000)
            sizes[name].append(size / 1024)
    for unit, values in (("ms", times), ("MB", sizes)):
        bare = statistics.median(values["bare Python"])
        for name, durations in values.items():
            low, middle, high = min(durations) - bare, statistics.median(durations) - bare, max(durations) - bare
            yield Figure("import", "import", 0, name, unit, middle, low, high, rounds=len(durations))


def _peer_imports() -> dict[str, str]:
    found = {}
    for backend in BACKENDS:
        for name in libraries_for(backend)[3:]:
            kind = load_library(name)
            found[f"{kind.imports.split()[-1]}"] = kind.imports
    return found


def _run_python(statement: str) -> str:
    return subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True, text=True).stdout


def fidelity(place: MeasuredPlace) -> Iterator[Figure]:
    """Store a message of each kind and compare what comes back; the note names the kinds that differ.

    `chathistory` gets what a program has, including objects of the SDK; the other libraries get the plain dict.
    """
    from message_kinds import KINDS, same  # a module of the tests

    with open_libraries(place) as subjects:
        for number, (name, subject) in enumerate(subjects.items()):
            found = {kind.name: _compare_message(subject, kind, same, ours=number < 3) for kind in KINDS}
            if "unable" in found.values():
                continue
            bad = "; ".join(f"{kind}: {verdict}" for kind, verdict in found.items() if verdict != "same")
            good = sum(verdict == "same" for verdict in found.values())
            yield Figure(place.backend, "fidelity", len(KINDS), name, "message_kinds alike", good, rounds=1, note=bad)


def _compare_message(subject: Any, kind: Any, same: Any, *, ours: bool) -> str:
    try:
        back = subject.kept(kind.given() if ours else kind.stored())
    except NotSupported:
        return "unable"
    except Exception:  # noqa: BLE001  # a library's own error, whatever it is
        return "refused"
    return "same" if same(back, kind.stored()) else "altered"
