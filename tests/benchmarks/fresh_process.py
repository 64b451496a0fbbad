"""A process that opens a place, appends one turn, tells how long that took once all was imported, and ends."""

from __future__ import annotations

import json
import sys
import time

from chathistory.storage.plugins import load_store_class

from .libraries import named
from .libraries.chathistory_layers import Chathistory
from .samples import turn


def main(subject: str, place: str, name: str) -> None:
    """Append, and print whose time it was."""
    kind = named(subject)
    exec(kind.imports)
    if kind.imports == Chathistory.imports:
        load_store_class(place.partition(":")[0])  # its client library, too
    begun = time.perf_counter()
    kind(place).append(name, turn("fresh"))
    print(json.dumps({"subject": kind.name, "seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main(*sys.argv[1:])
