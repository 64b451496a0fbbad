"""A process that copies a store to another in portions, and waits for a line after each, until it is killed.

It prints the id of the conversation to which the stored portion belongs.
"""

from __future__ import annotations

import sys

from chathistory import History, open_store
from chathistory.log import bulk_create

bulk_create.BATCH_BYTES = 5000
with open_store(sys.argv[1]) as source, open_store(sys.argv[2]) as target:
    append = target.append

    def append_and_report(key, *args, **more):
        head = append(key, *args, **more)
        sys.stdout.write(f"{key.id}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        return head

    target.append = append_and_report
    History(source).copy_to(target, threads=1, all_scopes=True)
