"""Serve the fake until Ctrl-C: `python -m chathistory.testing.fake_api [--port N]`. Prints the URL first."""

from __future__ import annotations

import argparse
import contextlib
import threading

from chathistory.testing.fake_api import FakeMessagesAPI


def main(arguments: list[str] | None = None) -> None:
    """Print the URL, and serve until interrupted by Ctrl-C.

    Args:
        arguments: Command line without the program; None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m chathistory.testing.fake_api", description=_ABOUT)
    parser.add_argument("--port", type=int, default=0, help="the port on the loopback interface; 0: any free one")
    port = parser.parse_args(arguments).port
    with contextlib.suppress(KeyboardInterrupt), FakeMessagesAPI().serve(port) as url:
        print(url, flush=True)  # noqa: T201 - the output of the command
        threading.Event().wait()


_ABOUT = "A fake of Claude's Messages API for a first try without a key: it has no model, and echoes."

if __name__ == "__main__":
    main()
