"""The real servers of the tests, started for a run and ended with it, and meters for the traffic to them."""

from __future__ import annotations

import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / folder) for folder in ("support", "plugins/redis", "plugins/mongodb", "plugins/s3")]

__all__ = ["MeasuredPlace", "Meter", "serve_place"]


class Meter(ABC):
    """Counts what one call costs the system, the network or the service. The report has the median of `calls` calls."""

    calls: ClassVar[int] = 9

    @abstractmethod
    def begin(self) -> None:
        """Reset the counts."""

    @abstractmethod
    def end(self) -> dict[str, float]:
        """Return the counts since `begin`, by name."""


@dataclass(frozen=True)
class MeasuredPlace:
    """A store to measure. `url` leads to it directly, `metered` by way of the meter."""

    backend: str
    url: str
    metered: str
    meter: Meter | None


@contextmanager
def serve_place(backend: str) -> Iterator[MeasuredPlace]:
    """Yield an empty store of a backend, and end its server afterwards."""
    with ExitStack() as stack:
        yield _MAKERS[backend](stack)


def _memory(_: ExitStack) -> MeasuredPlace:
    return MeasuredPlace("memory", "memory:", "memory:", None)


def _file(stack: ExitStack) -> MeasuredPlace:
    url = f"file:{stack.enter_context(tempfile.TemporaryDirectory(prefix='benchmark-'))}"
    return MeasuredPlace("file", url, url, _SystemCalls() if _SystemCalls.is_available() else None)


def _redis(stack: ExitStack) -> MeasuredPlace:
    from redis_servers import Server

    server = stack.enter_context(Server())
    meter = _Wire(server.port)
    stack.callback(meter.proxy.end)
    return MeasuredPlace("redis", server.url, meter.proxy.url, meter)


def _mongodb(stack: ExitStack) -> MeasuredPlace:
    from mongodb_servers import replica_set

    member = stack.enter_context(replica_set(1, "--setParameter", "ttlMonitorEnabled=false"))[0]
    meter = _Wire(member.port)
    stack.callback(meter.proxy.end)
    metered = f"mongodb://127.0.0.1:{meter.proxy.port}/benchmark?directConnection=true"
    return MeasuredPlace("mongodb", f"mongodb://{member.address}/benchmark", metered, meter)


def _s3(stack: ExitStack) -> MeasuredPlace:
    from s3_server import CREDENTIALS, serving

    names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
    os.environ |= {name: CREDENTIALS[key] for name, key in names.items()}
    os.environ |= {"AWS_DEFAULT_REGION": CREDENTIALS["region_name"], "AWS_EC2_METADATA_DISABLED": "true"}
    server = stack.enter_context(serving())
    server.client().create_bucket(Bucket="benchmark")
    url = f"s3://benchmark/history?endpoint_url={server.url}"
    return MeasuredPlace("s3", url, url, _Requests(server))


_MAKERS = {"memory": _memory, "file": _file, "redis": _redis, "mongodb": _mongodb, "s3": _s3}


class _Wire(Meter):
    """Counts round trips and bytes with a proxy."""

    def __init__(self, port: int) -> None:
        from fault_proxy import FaultProxy

        self.proxy = FaultProxy(port)

    def begin(self) -> None:
        self.proxy.forget()

    def end(self) -> dict[str, float]:
        proxy = self.proxy
        return {"round trips": proxy.trips, "bytes sent": proxy.sent, "bytes received": proxy.received}


class _Requests(Meter):
    """Counts requests, rounds of requests that had to wait for one another, and bytes, from the server's log.

    Rounds are separated by time: answers are delayed until all requests of a round have arrived, on a busy machine too.
    """

    calls: ClassVar[int] = 3

    def __init__(self, server: Any) -> None:
        self._server = server

    def begin(self) -> None:
        self._server.log.clear()
        self._server.delay = 0.4

    def end(self) -> dict[str, float]:
        self._server.delay = 0.0
        log = self._server.log
        rounds, ended = 0, float("-inf")
        for request in sorted(log, key=lambda one: one.begun):
            if request.begun >= ended:
                rounds, ended = rounds + 1, request.ended
        return {"requests": len(log), "rounds": rounds, "bytes sent or received": sum(one.size for one in log)}


class _SystemCalls(Meter):
    """Counts read and write calls of this process and their bytes, as Linux reports them."""

    _PATH = Path("/proc/self/io")
    _NAMES = ("syscw", "wchar", "syscr", "rchar")
    _UNITS = ("write calls", "bytes written", "read calls", "bytes read")

    def __init__(self) -> None:
        self._before = self._own = [0, 0, 0, 0]
        self.begin()
        self._own = list(map(int, self.end().values()))  # the cost of reading the counters

    @classmethod
    def is_available(cls) -> bool:
        return cls._PATH.exists()

    def begin(self) -> None:
        self._before = self._counts()

    def end(self) -> dict[str, float]:
        counts = zip(self._counts(), self._before, self._own, strict=True)
        return dict(zip(self._UNITS, (max(now - before - own, 0) for now, before, own in counts), strict=True))

    def _counts(self) -> list[int]:
        values = dict(line.split(": ") for line in self._PATH.read_text().splitlines())
        return [int(values[name]) for name in self._NAMES]
