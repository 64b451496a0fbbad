"""A process that opens a store, appends one turn, and prints how long that took, without the imports."""

from __future__ import annotations

import json
import sys
import time

from chathistory.storage.plugins import load_store_class

from .libraries import load_library
from .libraries.chathistory_layers import Chathistory
from .samples import turn


def main(subject: str, place: str, name: str) -> None:
    """Append a turn, and print the library and the seconds as JSON."""
    kind = load_library(subject)
    exec(kind.imports)
    if kind.imports == Chathistory.imports:
        load_store_class(place.partition(":")[0])  # imports its client library as well
    begun = time.perf_counter()
    kind(place).append(name, turn("fresh"))
    print(json.dumps({"subject": kind.name, "seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main(*sys.argv[1:])
