"""`python -m chathistory_s3 sweep URL`: removes what has expired and what crashes left over, and says what it was."""

from __future__ import annotations

import sys
from dataclasses import asdict

from chathistory import open_store
from chathistory.errors import ChatHistoryError
from chathistory_s3.store import S3Store

_USAGE = 'usage: python -m chathistory_s3 sweep "s3://bucket/prefix?region=..."\n'


def main(arguments: list[str]) -> int:
    """Sweep the store that the arguments name; return the exit status."""
    if len(arguments) != 2 or arguments[0] != "sweep":  # noqa: PLR2004
        sys.stderr.write(_USAGE)
        return 2
    try:
        with open_store(arguments[1]) as store:
            if not isinstance(store, S3Store):
                sys.stderr.write(_USAGE)
                return 2
            done = store.sweep()
    except ChatHistoryError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(", ".join(f"{name}: {count}" for name, count in asdict(done).items()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
