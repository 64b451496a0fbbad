"""A TCP proxy for a server that cuts responses at a byte: in their headers or bodies, or at their ends."""

import contextlib
import select
import socket
import struct
import threading


class CuttingProxy:
    """A proxy between a client and a server.

    sizes: the bytes of each answer, in the order of the requests. cut: (number of the request, bytes that its answer
    still gets, how it ends): "close" as a server that is done, "reset", or "hang", where nothing more comes.
    """

    def __init__(self, port):
        self.upstream = port
        self.sizes = []
        self.cut = None
        self.cuts = 0
        self._open = True
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._done = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def begin(self, cut=None):
        """Reset the counters, and cut this response."""
        with self._lock:
            self.sizes, self.cut = [], cut

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open = False
        self._done.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _listen(self):
        while self._open:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.upstream)) as server:
            self._exchange(client, server)

    def _exchange(self, client, server):
        number = -1
        asking = False
        while self._open:
            ready = select.select([client, server], [], [], 0.2)[0]
            if client in ready:
                data = client.recv(65_536)
                if not data:
                    return
                if not asking:
                    with self._lock:
                        number, asking = len(self.sizes), True
                        self.sizes.append(0)
                server.sendall(data)
            elif server in ready:
                data = server.recv(65_536)
                if not data:
                    return
                asking = False
                left = self._left(number, len(data))
                client.sendall(data[:left])
                if left < len(data):
                    self._end(client)
                    return

    def _left(self, number, size):
        """Return how many of the next bytes of an answer are passed on."""
        with self._lock:
            if number >= len(self.sizes):  # of before `begin`
                return size
            before = self.sizes[number]
            self.sizes[number] += size
            if self.cut is None or self.cut[0] != number or self.cut[1] >= before + size:
                return size
            return max(self.cut[1] - before, 0)

    def _end(self, client):
        with self._lock:
            how, self.cut = self.cut[2], None
            self.cuts += 1
        if how == "hang":
            self._done.wait(600)
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
