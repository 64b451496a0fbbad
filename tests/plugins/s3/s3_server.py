"""An S3 server on a local port: moto with one lock, a log of the requests, faults and quirks on demand.

Moto checks a condition and stores in two steps; the lock makes them one. Counting requests here, and not in the
store, counts what a bill would.

Services with this protocol differ; a *quirk* is one difference that some service has or may have.
"""

import re
import socket
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from urllib.parse import parse_qs, unquote

import boto3
from botocore.config import Config
from moto.core import serialize
from moto.s3.responses import S3Response
from moto.server import create_backend_app
from s3_service_quirks import QUIRKS, REVIVES, S3Request
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

CREDENTIALS = {"aws_access_key_id": "test", "aws_secret_access_key": "s3cr3t-of-the-key", "region_name": "us-east-1"}


@dataclass(frozen=True)
class Request:
    """A request that came in; `kind` is its method, or LIST or DELETES."""

    kind: str
    path: str
    condition: str | None
    status: int
    size: int
    begun: float
    ended: float


@dataclass
class Fault:
    """A fault of the next `times` requests of a kind with a path like `path`; "hang" gives no answer."""

    what: str
    kind: str = ".*"
    path: str = ""
    times: int = 1
    skip: int = 0


@dataclass
class Server:
    """The server as the tests see it."""

    url: str = ""
    log: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    delay: float = 0.0
    quirks: tuple = ()
    page: int = 0
    together: threading.Barrier | None = None
    go_on: threading.Event = field(default_factory=threading.Event)

    def fail(self, what, **of):
        """Let requests fail: "503", "500", "409", "403", "hang", "reset before", "reset after"."""
        self.go_on.clear()
        self.faults.append(Fault(what, **of))

    def answer_together(self, count):
        """Answer the next request at once, and those after it only when `count` of them have come in."""
        self.fail("together", skip=1, times=10**9)
        self.together = threading.Barrier(count)

    def kill_after(self, count):
        """Do `count` more requests, but answer no longer the last of them, and none after it."""
        self.faults += [Fault("reset after", times=1, skip=count - 1)] if count else []
        self.faults += [Fault("reset before", times=10**9, skip=0)]

    def stop_faults(self):
        self.faults.clear()
        self.go_on.set()
        self.delay = 0.0
        self.quirks = ()
        self.page = 0

    def kinds(self):
        return [request.kind for request in self.log]

    def client(self, **config):
        return boto3.session.Session(**CREDENTIALS).client(
            "s3", endpoint_url=self.url, config=Config(retries={"total_max_attempts": 1}, **config)
        )

    def _fault(self, kind, path):
        for fault in self.faults:
            if re.fullmatch(fault.kind, kind) and re.search(fault.path, path):
                if fault.skip:
                    fault.skip -= 1
                    return None
                if fault.times:
                    fault.times -= 1
                    return fault
        return None


def kind_of(method, path, query):
    if method == "GET" and "list-type" in query:
        return "LIST"
    if method == "POST" and "delete" in query:
        return "DELETES"
    return method


_GUARD = 60  # seconds after which a request that is held is answered, so that a test fails and does not hang

_ERRORS = {
    "503": ("503 Slow Down", "SlowDown"),
    "500": ("500 Internal Server Error", "InternalError"),
    "409": ("409 Conflict", "ConditionalRequestConflict"),
    "403": ("403 Forbidden", "AccessDenied"),
    "archived": ("403 Forbidden", "InvalidObjectState"),
    "skew": ("403 Forbidden", "RequestTimeTooSkewed"),
    "expired": ("400 Bad Request", "ExpiredToken"),
}


# moto parses the time of each object of a listing again, which took a third of the time of a listing
serialize.parse_to_aware_datetime = lru_cache(maxsize=1024)(serialize.parse_to_aware_datetime)


class App:
    """The WSGI application: moto, one request at a time."""

    def __init__(self, server):
        self.server = server
        self._request_class = create_backend_app("s3").request_class

    def __call__(self, environ, start_response):
        server = self.server
        begun = time.monotonic()
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        path = unquote(environ["PATH_INFO"])
        kind = kind_of(environ["REQUEST_METHOD"], path, query)
        with server.lock:
            fault = server._fault(kind, path)
        if server.delay:
            time.sleep(server.delay)
        what = fault.what if fault else ""
        if what == "hang":
            server.go_on.wait(_GUARD)
        if what == "together":
            server.together.wait(_GUARD)
        if what == "reset before":
            _reset(environ)
            return []
        if what in _ERRORS:
            body = _drained(environ)
            del body
            status, code = _ERRORS[what]
            self._note(kind, path, environ, int(status[:3]), begun)
            text = f"<Error><Code>{code}</Code><Message>as ordered</Message></Error>".encode()
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
            return [text]
        request = S3Request(kind, environ, server.page)
        refusal = next((answer for name in server.quirks if (answer := QUIRKS[name][0](request))), None)
        status, headers, body = _refused(environ, refusal) if refusal else self._served(request)
        for name in server.quirks:
            status, headers, body = QUIRKS[name][1](request, status, headers, body)
        self._note(kind, path, environ, int(status[:3]), begun, sent=len(body))
        if what == "reset after":
            _reset(environ)
            return []
        start_response(status, headers)
        return [body]

    def _served(self, request):
        """Return what moto answers; where the quirk is that, again without a condition on an absent object."""
        environ, answers = request.environ, []
        revives = REVIVES in self.server.quirks and request.kind == "PUT"
        sent = _drained(environ) if revives else None

        def remember(status, headers, exc_info=None):
            answers.append((status, headers))

        with self.server.lock:
            for _ in range(2):
                if revives:
                    environ["wsgi.input"] = BytesIO(sent)
                body = b"".join(self._moto(environ)(environ, remember))
                if not (revives and answers[-1][0].startswith("404") and environ.pop("HTTP_IF_MATCH", None)):
                    break
        return (*answers[-1], body)

    def _moto(self, environ):
        """Return moto's answer, without its Flask application, which took a third of the time of a request."""
        request = self._request_class(environ)
        is_bucket = "/" not in environ["PATH_INFO"].strip("/")
        dispatch = S3Response.ambiguous_dispatch if is_bucket else S3Response.key_dispatch
        status, headers, body = dispatch(request, request.raw_url, dict(request.headers))
        return Response(body, status, headers)

    def _note(self, kind, path, environ, status, begun, *, sent=0):
        condition = environ.get("HTTP_IF_MATCH") or environ.get("HTTP_IF_NONE_MATCH")
        size = sent or int(environ.get("CONTENT_LENGTH") or 0)
        with self.server.lock:
            self.server.log.append(Request(kind, path, condition, status, size, begun, time.monotonic()))


def _refused(environ, refusal):
    _drained(environ)
    text = f"<Error><Code>{refusal[4:]}</Code><Message>no</Message></Error>".encode()
    return refusal, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))], text


def _drained(environ):
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def _reset(environ):
    connection = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


class Handler(WSGIRequestHandler):
    """Reads a request whole, answers it, and keeps the connection, as services do; werkzeug's own closes each."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log(self, *_):
        pass

    def run_wsgi(self):
        try:
            self._answer()
        except (ConnectionError, OSError, ValueError):
            self.close_connection = True

    def _answer(self):
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if hasattr(socket, "TCP_QUICKACK"):  # botocore sends a body only when its headers are acknowledged
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        environ, answers = self.make_environ(), []
        environ["wsgi.input"] = BytesIO(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        body = b"".join(self.server.app(environ, lambda status, headers: answers.append((status, headers))))
        status, headers = answers[0]
        self.send_response(int(status[:3]), status[4:])
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers) and not status.startswith("204"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving():
    """Serve until the block ends."""
    server = Server()
    http = make_server("127.0.0.1", 0, App(server), threaded=True, request_handler=Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
