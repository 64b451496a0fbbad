"""The fake on a real socket: the standard library's HTTP server, on the loopback interface only.

Headers and body are sent together (separately, they would take 44 ms more), the events of a stream one by one.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from chathistory.testing.fake_api.planned_response import Ending, PlannedResponse
from chathistory.testing.fake_api.request import LARGEST

if TYPE_CHECKING:
    from chathistory.testing.fake_api.api import FakeMessagesAPI

__all__ = ["serve_api"]

_POLL = 0.02
_PIECE = 1024 * 1024


@contextmanager
def serve_api(api: FakeMessagesAPI, port: int) -> Iterator[str]:
    """Serve inside a `with` block, and yield the URL. Paused answers are aborted at its end.

    Args:
        api: The fake.
        port: The port; 0: any free one.

    Yields:
        The URL.
    """
    server = _Server(api, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": _POLL}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # `server_close` waits for them, so no thread outlives its test
    block_on_close = True

    def __init__(self, api: FakeMessagesAPI, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.api = api
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._resetting: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
            reset = request in self._resetting
            self._resetting.discard(request)
        if reset:
            self.close_request(request)  # without the shutdown that `super` does first
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnected; print any other error, since it is a fault of the fake."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def reset_connection(self, connection: socket.socket) -> None:
        """Let a connection end with a reset."""
        linger = struct.pack("ii", 1, 0)  # linger for 0 seconds: closing sends a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        with self._lock:
            self._resetting.add(connection)

    def hang_up(self) -> None:
        """Close the connections that clients keep open, so that their threads end."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # the client closed it first
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    server_version = "chathistory-fake"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        plan = self.server.api.answer(self.command, self.path, dict(self.headers.items()), self._read_body())
        try:
            self._write_response(plan)
        except _ServerStopped:
            self.close_connection = True

    do_GET = do_PUT = do_DELETE = do_POST  # noqa: N815 - the base class looks for these names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class has it so
        """Log nothing; the requests are in `FakeMessagesAPI.requests`."""

    def _read_body(self) -> bytes:
        """Read the body. One that is too large is read to its end, so that the client gets the error, but not kept."""
        left = int(self.headers.get("content-length") or 0)
        kept = bytearray()
        while left and (piece := self.rfile.read(min(left, _PIECE))):
            left -= len(piece)
            if len(kept) <= LARGEST:
                kept += piece
        return bytes(kept)

    def _write_response(self, plan: PlannedResponse) -> None:
        if not plan.streamed:
            self._wait_for_gate(plan, 0)
        if plan.breaks_at_once:
            self._break_connection(plan.ending)
            return
        self.send_response(plan.status)
        for name, text in plan.headers.items():
            self.send_header(name, text)
        framing = ("transfer-encoding", "chunked") if plan.streamed else ("content-length", str(len(plan.chunks[0])))
        self.send_header(*framing)
        self.end_headers()
        if plan.streamed:
            self._write_stream(plan)
        else:
            self.wfile.write(b"".join(plan.chunks))
            self.wfile.flush()

    def _write_stream(self, plan: PlannedResponse) -> None:
        for number, chunk in enumerate(plan.chunks):
            self._wait_for_gate(plan, number)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        self._wait_for_gate(plan, len(plan.chunks))
        if plan.ending is not Ending.PROPER:
            self._break_connection(plan.ending)
            return
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _wait_for_gate(self, plan: PlannedResponse, number: int) -> None:
        pause = plan.pause_before(number)
        if pause is None:
            return
        self.wfile.flush()
        pause.reached.set()
        while not pause.gate.wait(_POLL):
            if self.server.stopping.is_set():
                raise _ServerStopped

    def _break_connection(self, ending: Ending) -> None:
        self.wfile.flush()
        self.close_connection = True
        if ending is Ending.RESET:
            self.server.reset_connection(self.connection)


class _ServerStopped(Exception):
    """The server stops while an answer is paused."""
