"""A program that has imported the SDK, the command and the fake, and forks a process for each program that it runs.

Importing the SDK takes a second or more of processor time, which each new process would spend again. After its imports
a forked process does the same as a new one: it has a process and a session of its own, it runs a program from its first
line, and its interpreter ends as usual.

It reads orders as lines of JSON, and answers each with a number: the id of the process that it started, or the exit
code of one that it waited for. `forked_programs` gives the orders.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import runpy
import socket
import sys
import termios
from importlib import import_module
from typing import Any

from chathistory.cli import main

FIRST = ("anthropic", "rich.progress", "rich.table", "chathistory_file", "chathistory.cli.app")
FIRST_OF_FAKE = ("chathistory.testing.fake_api.http_server", "chathistory.testing.fake_api.sdk_transport")


def serve(connection: socket.socket) -> str | None:
    """Follow the orders until the other end is closed; return in a forked process, with the program that it is to run.

    None: the command `chathistory`.
    """
    with connection, connection.makefile("rw") as orders:
        for line in orders:
            order = json.loads(line)
            if order["do"] == "wait":
                number = os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1])
            elif not (number := fork_program(order)):
                return order["program"]
            orders.write(f"{number}\n")
            orders.flush()
    sys.exit()


def fork_program(order: dict[str, Any]) -> int:
    """Fork a process that has what the order says; return its id, or 0 in that process."""
    opened = [os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CREAT, 0o600) for path in order["streams"]]
    if not (pid := os.fork()):
        os.setsid()
        for number, stream in enumerate(opened):
            os.dup2(stream, number)
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.argv, sys.path[0] = order["words"], ""
    for stream in opened:
        os.close(stream)
    return pid


if __name__ == "__main__":
    for module in (*FIRST, *FIRST_OF_FAKE):
        import_module(module)
    gc.freeze()  # a forked process need not look at what was imported
    program = serve(socket.socket(fileno=int(sys.argv[1])))
    if program:
        runpy.run_path(program, run_name="__main__")
    else:
        main()
