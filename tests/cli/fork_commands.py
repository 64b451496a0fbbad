"""A program that has imported the command and the SDK, and forks a process for each run of the command in a terminal.

Importing the SDK takes a second or more of processor time, which each new process would spend again. After its imports
a forked process does the same as a new one: it has a process, a session and a terminal of its own, it runs `main`, and
its interpreter ends as usual.

It reads orders as lines of JSON, and answers each with a number: the id of the process that it started, or the exit
code of one that it waited for.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import socket
import sys
import termios
from importlib import import_module
from typing import Any

from chathistory.cli import main

FIRST = ("anthropic", "rich.progress", "rich.table", "chathistory_file", "chathistory.cli.app")
FIRST_OF_FAKE = ("chathistory.testing.fake_api.http_server", "chathistory.testing.fake_api.sdk_transport")


def serve(connection: socket.socket) -> None:
    """Follow the orders until the other end is closed; return in a forked process, which is to run the command."""
    with connection, connection.makefile("rw") as orders:
        for line in orders:
            order = json.loads(line)
            if order["do"] == "wait":
                number = os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1])
            elif not (number := fork_command(order)):
                return
            orders.write(f"{number}\n")
            orders.flush()
    sys.exit()


def fork_command(order: dict[str, Any]) -> int:
    """Fork a process that has what the order says; return its id, or 0 in that process."""
    terminal = os.open(order["terminal"], os.O_RDWR | os.O_NOCTTY)
    if not (pid := os.fork()):
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            os.dup2(terminal, stream.fileno())
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.argv = ["chathistory", *order["words"]]
    os.close(terminal)
    return pid


if __name__ == "__main__":
    for module in (*FIRST, *FIRST_OF_FAKE):
        import_module(module)
    gc.freeze()  # a forked process need not look at what was imported
    serve(socket.socket(fileno=int(sys.argv[1])))
    main()
