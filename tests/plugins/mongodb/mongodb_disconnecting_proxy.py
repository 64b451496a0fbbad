"""A proxy for a mongod that cuts connections at a chosen command: before the server sees it, or before its reply.

Only commands on data count: the driver's own (hello, endSessions and the like) pass.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

from bson import decode

DATA = {
    *("find", "getMore", "killCursors", "insert", "update", "delete", "findAndModify"),
    *("aggregate", "distinct"),
}


class Proxy:
    """Listens on `port`. cut: the number of the data command (from 1) at which to cut; `after`: with its work done.

    stay_dead: after the cut nothing passes, as if the client had died there.
    garbage: the reply to each data command, which the server does not see. shorten: how many
    bytes of the answer to a data command are passed on before the connection is cut. None: neither.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self.garbage: bytes | None = None
        self.shorten: int | None = None
        self.pass_all()
        threading.Thread(target=self._accept, daemon=True).start()

    def pass_all(self) -> None:
        """Count from 0 again, and cut nothing."""
        with self._lock:
            self.commands, self.cut, self.after, self.stay_dead, self.dead = [], 0, False, False, False

    def arm(self, cut: int, *, after: bool, stay_dead: bool) -> None:
        self.pass_all()
        with self._lock:
            self.cut, self.after, self.stay_dead = cut, after, stay_dead

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.dead:
                client.close()
            else:
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            while (request := _message(client)) is not None:
                struck = self._struck(request)
                if self.dead and not (struck and self.after):
                    return
                if struck and not self.after:
                    return
                if self.garbage is not None and _command(request) in DATA:
                    client.sendall(self.garbage)
                    continue
                server.sendall(request)
                if self.shorten is not None and _command(request) in DATA:
                    client.sendall((_message(server) or b"")[: self.shorten])
                    return
                if (reply := _message(server)) is None or struck:
                    return
                client.sendall(reply)
                while _more_to_come(reply) and (reply := _message(server)) is not None:
                    client.sendall(reply)

    def _struck(self, request: bytes) -> bool:
        name = _command(request)
        if name not in DATA:
            return False
        with self._lock:
            self.commands.append(name)
            struck = len(self.commands) == self.cut
            self.dead = self.dead or (struck and self.stay_dead)
        return struck


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _message(sock: socket.socket) -> bytes | None:
    header = _exactly(sock, 16)
    if header is None:
        return None
    rest = _exactly(sock, struct.unpack_from("<i", header)[0] - 16)
    return None if rest is None else header + rest


def _more_to_come(message: bytes) -> bool:
    return struct.unpack_from("<i", message, 12)[0] == 2013 and bool(struct.unpack_from("<I", message, 16)[0] & 2)


def _command(message: bytes) -> str | None:
    """Return the name of an OP_MSG's command."""
    if struct.unpack_from("<i", message, 12)[0] != 2013 or message[20] != 0:
        return None
    size = struct.unpack_from("<i", message, 21)[0]
    return next(iter(decode(message[21 : 21 + size])))
