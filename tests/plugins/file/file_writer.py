"""A process that appends until it is killed, or a number of times; prints each acknowledged append.

file_writer.py FOLDER NAME TIMES     (TIMES 0: without end, with a forget now and then)
"""

import sys
import time
import uuid

from chathistory_file import FileStore

from chathistory import Key, Revision
from chathistory.errors import Conflict

KEY = Key("default", "busy")


def main(folder: str, name: str, times: int) -> None:
    """Append batches of three lines that say who wrote them."""
    store, head, number = FileStore(folder, lock_timeout=600), None, 0
    while not times or number < times:
        bodies = [f"{name}-{number}-{part}" + "." * (number * 37 % 3000) for part in range(3)]
        try:
            head = store.append(KEY, bodies, after=head, revision=Revision(uuid.uuid4().hex, time.time_ns() // 1000))
        except Conflict as conflict:
            head = conflict.head
            continue
        print(head.end - 3, head.revision.version, bodies[0].rstrip("."), flush=True)  # noqa: T201
        number += 1
        if not times and number % 7 == 0:
            store.forget(KEY, before=head.end - 9)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
