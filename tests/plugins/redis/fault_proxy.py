"""A TCP proxy on loopback that counts, loses replies, hangs, or answers in place of the server."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Callable

__all__ = ["FaultProxy"]


class FaultProxy:
    """A proxy between a client and a server; set its attributes while it runs.

    trips: how often the client sent something and then got an answer.
    sent, received: bytes of the client.
    lose(request): called before an answer is passed on. If it returns true, the server has executed the request, but
        the answer is lost and the connection is cut.
    shorten(request): bytes of the answer that are passed on before the connection is cut; None to pass on all of it.
    instead(request): bytes that the client gets instead of the server's answer, and the server does not get the
        request; None to pass it on.
    hang: nothing is passed on, and no connection is cut.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = port
        self.tls = tls
        self.trips = self.sent = self.received = self.lost = self.connections = 0
        self.lose: Callable[[bytes], bool] = lambda _: False
        self.shorten: Callable[[bytes], int | None] = lambda _: None
        self.instead: Callable[[bytes], bytes | None] = lambda _: None
        self.hang = False
        self._lock = threading.Lock()
        self._open = True
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def forget(self) -> None:
        """Reset the counters."""
        self.trips = self.sent = self.received = self.lost = self.connections = 0

    def end(self) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # or the kernel goes on to listen while `accept` waits
        self._listening.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def _listen(self) -> None:
        while self._open:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.tls is not None:
                client = self.tls.wrap_socket(client, server_side=True)
            with client, socket.create_connection(("127.0.0.1", self.upstream)) as server:
                self._exchange(client, server)

    def _exchange(self, client: socket.socket, server: socket.socket) -> None:
        request, answered, passed = b"", True, 0
        while self._open:
            waiting = isinstance(client, ssl.SSLSocket) and client.pending()
            ready = [client] if waiting else select.select([client, server], [], [], 0.1)[0]
            if self.hang:
                threading.Event().wait(0.05)
                continue
            if client in ready:
                data = client.recv(65_536)
                if not data:
                    return
                with self._lock:
                    self.sent += len(data)
                    self.trips += answered
                request, answered, passed = (data if answered else request + data), False, 0
                answer = self.instead(request)
                if answer is None:
                    server.sendall(data)
                else:
                    client.sendall(answer)
                    answered = True
            if server in ready:
                data = server.recv(65_536)
                if not data:
                    return
                with self._lock:
                    self.received += len(data)
                    if not answered and self.lose(request):
                        self.lost += 1
                        return
                answered = True
                passed += len(data)
                if (most := self.shorten(request)) is not None and passed > most:
                    client.sendall(data[: max(len(data) - (passed - most), 0)])
                    return
                client.sendall(data)
