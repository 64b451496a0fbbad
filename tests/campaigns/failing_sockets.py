"""Sockets that fail on purpose: an exception, an end, or a wrong byte, at any read or write of a client library.

Client libraries take their sockets from the module `socket`; `failing_sockets` replaces the class there. `Faults.arm`
sets what fails: once, and only in the thread that calls it.
"""

from __future__ import annotations

import errno
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "Faults", "failing_sockets"]

ERRORS: dict[str, Callable[[], BaseException]] = {
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "broken pipe": lambda: BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "aborted": lambda: ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort"),
    "time-out": lambda: TimeoutError("timed out"),
    "no route": lambda: OSError(errno.EHOSTUNREACH, "No route to host"),
    "disk of the kernel": lambda: OSError(errno.EIO, "Input/output error"),
    "out of buffers": lambda: OSError(errno.ENOBUFS, "No buffer space available"),
    "TLS": lambda: ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed"),
    "TLS ends": lambda: ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
    "TLS closed": lambda: ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed"),
}
KINDS = (*ERRORS, "end", "wrong byte")
"""The kinds of faults. A wrong byte may change a text as well as the protocol, so what is read may be wrong."""


@dataclass
class Faults:
    """What fails next, and how often something failed. `at` counts reads and writes from 1; 0: nothing fails."""

    chance: random.Random
    kind: str = ""
    at: int = 0
    calls: int = 0
    count: int = 0
    thread: int = field(default=0)

    def arm(self, kind: str, at: int) -> None:
        """Let the `at`-th read or write of this thread fail, counted from now."""
        self.kind, self.at, self.calls, self.thread = kind, at, 0, threading.get_ident()

    def disarm(self) -> bool:
        """Let nothing fail; return True if something failed since `arm`."""
        happened = self.at == -1
        self.at = 0
        return happened

    def is_due(self) -> bool:
        if self.at <= 0 or threading.get_ident() != self.thread:
            return False
        self.calls += 1
        if self.calls < self.at:
            return False
        self.at = -1
        self.count += 1
        return True

    def error(self) -> BaseException:
        return ERRORS[self.kind]()

    def flip_bit(self, data: bytes) -> bytes:
        place = self.chance.randrange(len(data))
        return data[:place] + bytes([data[place] ^ (1 << self.chance.randrange(8))]) + data[place + 1 :]


@contextmanager
def failing_sockets(seed: int) -> Iterator[Faults]:
    """Replace the class of new sockets; existing sockets stay as they are."""
    faults = Faults(random.Random(seed))

    class FailingSocket(socket.socket):
        def recv(self, *given: Any) -> bytes:
            if not faults.is_due():
                return super().recv(*given)
            if faults.kind in ERRORS:
                raise faults.error()
            data = super().recv(*given) if faults.kind == "wrong byte" else b""
            return faults.flip_bit(data) if data else b""

        def recv_into(self, buffer: Any, *given: Any) -> int:
            if not faults.is_due():
                return super().recv_into(buffer, *given)
            if faults.kind in ERRORS:
                raise faults.error()
            if faults.kind == "end":
                return 0
            count = super().recv_into(buffer, *given)
            view = memoryview(buffer)
            view[:count] = faults.flip_bit(bytes(view[:count])) if count else b""
            return count

        def sendall(self, data: Any, *given: Any) -> None:
            if faults.kind in ERRORS and faults.is_due():
                half = memoryview(data)[: len(data) // 2]
                super().sendall(half, *given)
                raise faults.error()
            super().sendall(data, *given)

    real = socket.socket
    socket.socket = FailingSocket  # type: ignore[misc]
    try:
        yield faults
    finally:
        socket.socket = real  # type: ignore[misc]
