"""python -m tests.campaigns NAME [OPTIONS]: run a campaign; `NAME --help` says what it does."""

import importlib
import sys

CAMPAIGNS = (
    "kills",
    "broken_connections",
)

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in CAMPAIGNS:
        sys.exit(f"expected the name of a campaign: {', '.join(CAMPAIGNS)}")
    sys.exit(importlib.import_module(f"tests.campaigns.{sys.argv[1]}").main(sys.argv[2:]))
