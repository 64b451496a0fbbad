"""What `import chathistory` costs above bare Python: milliseconds and megabytes, the least of fresh processes."""

from __future__ import annotations

import subprocess
import sys
import time

ROUNDS = 15
MEMORY = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def milliseconds(code: str) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - begin)
    return min(times) * 1000


def megabytes(code: str) -> float:
    out = subprocess.run([sys.executable, "-c", code + MEMORY], check=True, capture_output=True, text=True).stdout
    return int(out) / 1024


def main() -> None:
    for name in ("chathistory", "json, dataclasses, datetime, typing", "anthropic"):
        code = f"import {name};"
        time_above = milliseconds(code) - milliseconds("pass")
        memory_above = megabytes(code) - megabytes("")
        print(f"import {name}: {time_above:.0f} ms and {memory_above:.1f} MB above bare Python")


if __name__ == "__main__":
    main()
