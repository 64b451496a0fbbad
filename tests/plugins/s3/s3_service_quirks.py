"""Differences between services with the S3 protocol: of real ones, and of possible ones.

A quirk changes a request before the server sees it, or refuses it; and changes the answer.
"""

import re
from io import BytesIO


class S3Request:
    """A request before moto sees it; its conditions can be changed."""

    def __init__(self, kind, environ, page):
        self.kind, self.environ = kind, environ
        if page and kind == "LIST":
            self.query(lambda name, value: str(min(page, int(value))) if name == "max-keys" else value)

    def query(self, change):
        pairs = [pair.partition("=") for pair in self.environ["QUERY_STRING"].split("&")]
        kept = [(name, change(name, value)) for name, _, value in pairs]
        self.environ["QUERY_STRING"] = "&".join(f"{name}={value}" for name, value in kept if value is not None)

    def has(self, header):
        return f"HTTP_{header}" in self.environ

    def drop(self, header, kinds=("PUT", "DELETE", "GET")):
        if self.kind in kinds:
            self.environ.pop(f"HTTP_{header}", None)

    def is_conditional_put(self):
        return self.kind == "PUT" and (self.has("IF_MATCH") or self.has("IF_NONE_MATCH"))

    def wants_no_quotes(self):
        etag = self.environ.get("HTTP_IF_MATCH", "")
        self.environ.update({"HTTP_IF_MATCH": etag.replace('"', "x") if '"' in etag else f'"{etag}"'} if etag else {})

    def has_checksum(self):
        names = " ".join(self.environ)
        return "HTTP_X_AMZ_CHECKSUM" in names or "HTTP_X_AMZ_TRAILER" in names

    def spoil(self):
        if self.kind == "PUT":
            body = self.environ["wsgi.input"].read(int(self.environ.get("CONTENT_LENGTH") or 0))
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            self.environ["wsgi.input"] = BytesIO(body)
            self.environ["CONTENT_LENGTH"] = str(len(body))
            self.environ.pop("HTTP_X_AMZ_CONTENT_SHA256", None)


def _as_it_is(call, status, headers, body):
    return status, headers, body


def _nothing(call):
    return None


def _changed(kinds, change):
    """Return what changes the answers to some kinds of requests."""

    def after(call, status, headers, body):
        if call.kind not in kinds or not status.startswith("2"):
            return status, headers, body
        status, headers, body = change(status, dict(headers), body)
        headers = {
            name: str(len(body)) if name.lower() == "content-length" else value for name, value in headers.items()
        }
        return status, list(headers.items()), body

    return after


def _as_conflict(call, status, headers, body):
    if not status.startswith("412"):
        return status, headers, body
    body = body.replace(b"PreconditionFailed", b"ConditionalRequestConflict")
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return "409 Conflict", [*kept, ("Content-Length", str(len(body)))], body


def _without(*names):
    return lambda status, headers, body: (
        status, {name: value for name, value in headers.items() if name.lower() not in names}, body
    )  # fmt: skip


def _with_other_etag(status, headers, body):
    return (
        status,
        {n: '"0123456789abcdef0123456789abcdef"' if n.lower() == "etag" else v for n, v in headers.items()},
        body,
    )


def _backwards(status, headers, body):
    parts = re.findall(rb"<Contents>.*?</Contents>", body, re.DOTALL)
    rest = re.sub(rb"<Contents>.*?</Contents>", b"", body, flags=re.DOTALL)
    return status, headers, rest.replace(b"</ListBucketResult>", b"".join(parts[::-1]) + b"</ListBucketResult>")


def _start(call, *names):
    if call.kind == "LIST":
        call.query(lambda name, value: None if name in names else value)


def _no_token(status, headers, body):
    return status, headers, re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", body)


REVIVES = "If-Match makes what is absent"
QUIRKS = {
    "PUT ignores If-None-Match": (lambda call: call.drop("IF_NONE_MATCH"), _as_it_is),
    "PUT ignores If-Match": (lambda call: call.drop("IF_MATCH", ("PUT",)), _as_it_is),
    "PUT ignores both": (lambda call: (call.drop("IF_MATCH", ("PUT",)), call.drop("IF_NONE_MATCH"))[0], _as_it_is),
    "PUT takes any ETag that was one": (
        lambda call: None if "00000" in call.environ.get("HTTP_IF_MATCH", "") else call.drop("IF_MATCH", ("PUT",)),
        _as_it_is,
    ),
    "conditional PUT is not implemented": (
        lambda call: "501 NotImplemented" if call.is_conditional_put() else None, _as_it_is),
    "conditional PUT is a bad request": (
        lambda call: "400 InvalidArgument" if call.is_conditional_put() else None, _as_it_is),
    "PUT with If-Match is not implemented": (
        lambda call: "501 NotImplemented" if call.kind == "PUT" and call.has("IF_MATCH") else None, _as_it_is),
    "If-Match without quotes": (lambda call: call.wants_no_quotes(), _as_it_is),
    "409 for 412": (_nothing, _as_conflict),
    REVIVES: (_nothing, _as_it_is),  # the application does it, which sees whether the object is there
    "DELETE ignores If-Match": (lambda call: call.drop("IF_MATCH", ("DELETE",)), _as_it_is),
    "DELETE with If-Match is not implemented": (
        lambda call: "501 NotImplemented" if call.kind == "DELETE" and call.has("IF_MATCH") else None, _as_it_is),
    "DELETE with If-Match always fails": (
        lambda call: "412 PreconditionFailed" if call.kind == "DELETE" and call.has("IF_MATCH") else None,
        _as_it_is,
    ),
    "DeleteObjects is not implemented": (
        lambda call: "501 NotImplemented" if call.kind == "DELETES" else None, _as_it_is),
    "DeleteObjects wants Content-MD5": (
        lambda call: "400 InvalidRequest" if call.kind == "DELETES" and not call.has("CONTENT_MD5") else None,
        _as_it_is,
    ),
    "DeleteObjects does nothing and says nothing": (
        lambda call: "200 OK" if call.kind == "DELETES" else None,
        _changed({"DELETES"}, lambda status, headers, body: (status, headers, b"")),
    ),
    "checksums of PUT are not implemented": (
        lambda call: "501 NotImplemented" if call.kind == "PUT" and call.has_checksum() else None, _as_it_is),
    "PUT stores the frames of chunks": (lambda call: call.spoil(), _as_it_is),
    "GET has another ETag": (_nothing, _changed({"GET"}, _with_other_etag)),
    "PUT has no ETag": (_nothing, _changed({"PUT"}, _without("etag"))),
    "GET knows no ranges": (lambda call: call.drop("RANGE"), _as_it_is),
    "listings ignore where to start": (lambda call: _start(call, "start-after"), _as_it_is),
    "listings give no token": (_nothing, _changed({"LIST"}, _no_token)),
    "listings repeat themselves": (lambda call: _start(call, "start-after", "continuation-token"), _as_it_is),
    "listings are in no order": (_nothing, _changed({"LIST"}, _backwards)),
    "listings are empty answers": (_nothing, _changed({"LIST"}, lambda status, headers, body: (status, headers, b""))),
    "listings are of somebody else": (
        _nothing, _changed({"LIST"}, lambda status, headers, body: (status, headers, b"<html>Welcome</html>"))),
    "listings without times and sizes": (
        _nothing,
        _changed({"LIST"}, lambda status, headers, body: (
            status, headers, re.sub(rb"<(LastModified|Size)>.*?</(LastModified|Size)>", b"", body))),
    ),
}  # fmt: skip
"""What happens to a request before moto sees it (a refusal as its answer), and to the answer after it."""
