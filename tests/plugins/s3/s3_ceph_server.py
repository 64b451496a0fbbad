"""A real object store of another kind, on loopback: Ceph's gateway with one monitor and one disk in memory.

It decides conditions in a store that was made for many writers, and checks signatures, which moto does not.
Debian has it: apt-get install --no-install-recommends ceph-mon ceph-osd radosgw
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from s3_server import CREDENTIALS

TOOLS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
PATIENCE = 90.0
CONFIGURATION = """\
[global]
fsid = {cluster}
mon host = {monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
osd pool default pgp num = 2
osd crush chooseleaf type = 0
mon allow pool size one = true
osd objectstore = memstore
memstore device bytes = 4294967296
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}
run dir = {folder}
keyring = {folder}/keyring
pid file = {folder}/$name.pid
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
mon cluster log file = {folder}/cluster.log
"""
KEYS = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ceph:
    """The three servers, in a folder of their own."""

    def __init__(self) -> None:
        lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
        assert not lacking, f"apt-get install --no-install-recommends ceph-mon ceph-osd radosgw: {lacking} not found"
        self.folder = Path(tempfile.mkdtemp(prefix="s3-ceph-"))
        self.port = free_port()
        self.servers: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, tool: str, *arguments: str) -> None:
        """Run a tool to its end; fails with what it said."""
        command = [tool, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{command}: {done.stderr[-500:]}"

    def serve(self, tool: str, *arguments: str) -> None:
        """Start one of the servers."""
        with (self.folder / f"{tool}.out").open("wb") as said:
            command = [tool, "-f", "-c", "conf", *arguments]
            self.servers.append(subprocess.Popen(command, cwd=self.folder, stdout=said, stderr=said))

    def start(self) -> None:
        cluster, disk = str(uuid.uuid4()), str(uuid.uuid4())
        monitor = f"[v2:127.0.0.1:{free_port()}/0,v1:127.0.0.1:{free_port()}/0]"
        (self.folder / "osd").mkdir()
        values = {"cluster": cluster, "monitor": monitor, "folder": self.folder}
        (self.folder / "conf").write_text(CONFIGURATION.format(**values))
        self.run("ceph-authtool", "keyring", "--create-keyring")
        for name, (*may,) in KEYS.items():
            caps = [word for at in range(0, len(may), 2) for word in ("--cap", *may[at : at + 2])]
            self.run("ceph-authtool", "keyring", "--gen-key", "-n", name, *caps)
        self.run("monmaptool", "--create", "--fsid", cluster, "--addv", "a", monitor, "monmap")
        self.run("ceph-mon", "-c", "conf", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring")
        self.serve("ceph-mon", "-i", "a")
        self.run("ceph", "-c", "conf", "osd", "new", disk)
        self.run("ceph-osd", "-c", "conf", "-i", "0", "--mkfs", "--osd-uuid", disk)
        self.serve("ceph-osd", "-i", "0")
        self.serve("radosgw", "-n", "client.admin", f"--rgw_frontends=beast endpoint=127.0.0.1:{self.port}")
        self._await()
        keys = ("--access-key", CREDENTIALS["aws_access_key_id"], "--secret", CREDENTIALS["aws_secret_access_key"])
        self.run("radosgw-admin", "-c", "conf", "user", "create", "--uid", "test", "--display-name", "test", *keys)

    def _await(self) -> None:
        late = time.monotonic() + PATIENCE
        while time.monotonic() < late:
            assert all(server.poll() is None for server in self.servers), "a server has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.1)
        raise AssertionError("the gateway does not listen")

    def end(self) -> None:
        for server in reversed(self.servers):
            server.kill()
            server.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def gateway() -> Iterator[Ceph]:
    """Give a gateway that is ended afterwards, also if it never came to be ready."""
    ceph = Ceph()
    try:
        ceph.start()
        yield ceph
    finally:
        ceph.end()
