"""A process that appends to one conversation a number of times, or until it is killed; prints each acknowledgement.

mongodb_writer.py URL NAME TIMES     (TIMES 0: without end)
"""

import sys
import time
import uuid

from chathistory import Key, Revision, open_store
from chathistory.errors import Conflict, StoreUnavailable
from chathistory.log.commit import commit

KEY = Key("default", "busy")


def main(url: str, name: str, times: int) -> None:
    """Append batches of three lines that say who wrote them; go on when the server is away for a while."""
    store, head, number = open_store(url), None, 0
    while not times or number < times:
        bodies = [f"{name}-{number}-{part}" + "." * (number * 37 % 3000) for part in range(3)]
        try:
            head = commit(store, KEY, bodies, after=head, revision=Revision(uuid.uuid4().hex, time.time_ns() // 1000))
        except Conflict as conflict:
            head = conflict.head
            continue
        except StoreUnavailable:
            number += 1  # whether it is there or not: these lines are not sent again
            time.sleep(0.05)
            continue
        print(head.end - 3, bodies[0].rstrip("."), f"{time.monotonic():.3f}", flush=True)  # noqa: T201
        number += 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
