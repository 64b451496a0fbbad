"""A process that copies one store to another, in small portions, until it is killed."""

from __future__ import annotations

import sys

from chathistory import History, open_store
from chathistory.log import planting

planting.PORTION = 5000
with open_store(sys.argv[1]) as source, open_store(sys.argv[2]) as target:
    History(source).copy_to(target, threads=1, progress=lambda _: sys.stdout.write("one\n") and sys.stdout.flush())
