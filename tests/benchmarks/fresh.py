"""A process that appends one turn, tells how long that took once all was imported, and ends: see `works`."""

from __future__ import annotations

import json
import sys
import time

from .samples import turn
from .subjects import named


def main(subject: str, place: str, name: str) -> None:
    """Append, and print whose time it was."""
    kind = named(subject)
    exec(kind.imports)
    opened = kind(place)
    begun = time.perf_counter()
    opened.append(name, turn("fresh"))
    print(json.dumps({"subject": kind.name, "seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main(*sys.argv[1:])
