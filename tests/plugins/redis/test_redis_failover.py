"""Masters that die under load: typed errors only, recovery without a restart, no silent loss. For `make stress`."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter

import pytest
from redis_servers import Cluster, Sentinels, ended, until

from chathistory import Key, open_store
from chathistory.errors import Conflict, StoreUnavailable
from chathistory.log.commit import commit
from chathistory.testing.contract.checked_reads import read_bodies
from chathistory.testing.contract.samples import make_revision

WRITERS = 8
PATIENCE = 20.0

pytestmark = pytest.mark.stress


class Load:
    """Writers, each with a conversation of its own, which go on through whatever happens.

    A writer appends after the head it has seen, and reads again only after a conflict.
    acknowledged: per writer, the texts of the appends that returned. conflicts: how often each got a conflict.
    """

    def __init__(self, url: str, **options) -> None:
        self.store = open_store(url, socket_timeout=1, socket_connect_timeout=1, **options)
        self.acknowledged: list[list[str]] = [[] for _ in range(WRITERS)]
        self.conflicts = [0] * WRITERS
        self.errors: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._write, args=(at,)) for at in range(WRITERS)]
        for thread in self.threads:
            thread.start()

    def _write(self, at: int) -> None:
        key, head, number = Key("default", f"writer {at}"), None, 0
        while not self.stopping.is_set():
            text = f"{at} {number}"
            number += 1
            try:
                head = commit(self.store, key, [text], after=head, revision=make_revision())
                self.acknowledged[at].append(text)
            except Conflict as conflict:
                self.errors[type(conflict).__name__] += 1
                self.conflicts[at] += 1
                head = conflict.head
            except StoreUnavailable:
                self.errors["StoreUnavailable"] += 1
                time.sleep(0.02)
            except BaseException as error:  # noqa: BLE001  # there must be none of these, which `check` sees
                self.errors[f"{type(error).__name__}: {error}"] += 1
                return

    def goes_on(self) -> None:
        """Wait until every writer has had an append acknowledged from now on."""
        before = [len(texts) for texts in self.acknowledged]
        until(
            lambda: all(len(texts) > count + 3 for texts, count in zip(self.acknowledged, before, strict=True)),
            patience=PATIENCE,
            what=f"new appends of all writers, {self.errors}",
        )

    def end(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(10)

    def lost(self) -> list[int]:
        """Return, per writer, how many acknowledged messages are gone; checks that none is doubled or out of order."""
        counts = []
        for at, texts in enumerate(self.acknowledged):
            stored = read_bodies(self.store, Key("default", f"writer {at}"))
            assert len(set(stored)) == len(stored), "a message is doubled"
            assert stored == sorted(stored, key=lambda text: int(text.split()[1])), "messages are out of order"
            counts.append(len(set(texts) - set(stored)))
        self.store.close()
        return counts


def check(load: Load) -> int:
    """Check errors and contents after a failover; return how many acknowledged messages it lost."""
    load.end()
    lost = load.lost()
    print(f"lost {sum(lost)} of {sum(map(len, load.acknowledged))}, errors {dict(load.errors)}")  # noqa: T201
    assert set(load.errors) <= {"Conflict", "OutcomeUnknown", "StoreUnavailable"}
    for at, count in enumerate(lost):
        assert not count or load.conflicts[at], "messages were lost, and their writer got no conflict"
    return sum(lost)


@pytest.mark.parametrize("wait", [None, 1])
def test_a_sentinel_failover_under_load(wait, prefix):
    with ended(Sentinels(failover=True)) as group:
        load = Load(group.url, prefix=prefix, **({} if wait is None else {"wait": wait, "wait_timeout": 0.5}))
        load.goes_on()
        time.sleep(2)
        group.master.stop(signal.SIGKILL)
        if wait is None:
            load.goes_on()
        else:  # no replica is left to wait for, so nothing more can be acknowledged, until it is back
            until(lambda: _is_master(group.replica), what="the new master")
            group.master.start()
            with group.master.client() as client:
                client.replicaof("127.0.0.1", group.replica.port)
            load.goes_on()
        lost = check(load)
        assert wait is None or lost == 0


def test_a_master_that_comes_back_as_a_replica_takes_no_writes(prefix):
    """It hangs, is replaced, and wakes up: for a moment there are two masters."""
    with ended(Sentinels(failover=True)) as group:
        load = Load(group.url, prefix=prefix)
        load.goes_on()
        time.sleep(2)
        group.master.stop(signal.SIGSTOP)
        load.goes_on()
        group.master.stop(signal.SIGCONT)
        until(lambda: not _is_master(group.master), what="the old master as a replica")
        load.goes_on()
        check(load)


@pytest.mark.parametrize("wait", [None, 1])
def test_the_master_of_a_cluster_is_killed_under_load(wait, prefix):
    with ended(Cluster(replicas=1, failover=True)) as cluster:
        load = Load(cluster.url, prefix=prefix, **({} if wait is None else {"wait": wait, "wait_timeout": 0.5}))
        load.goes_on()
        time.sleep(2)
        cluster.masters[0].stop(signal.SIGKILL)
        if wait is not None:  # the new primary has no replica to wait for until the old one is back
            until(lambda: _is_master(cluster.replicas[0]), what="the new master")
            cluster.masters[0].start()
        load.goes_on()
        assert sorted(load.store.keys()) == [Key("default", f"writer {at}") for at in range(WRITERS)]
        assert len(load.store.heads("default").items) == WRITERS
        lost = check(load)
        assert wait is None or lost == 0


def test_the_master_of_a_cluster_without_replicas_is_down_and_comes_back(prefix):
    with ended(Cluster(options=("--appendonly", "yes", "--appendfsync", "always"), failover=True)) as cluster:
        load = Load(cluster.url, prefix=prefix)
        load.goes_on()
        time.sleep(2)
        cluster.masters[0].stop(signal.SIGKILL)
        time.sleep(2)
        cluster.masters[0].start()
        load.goes_on()
        assert check(load) == 0


@pytest.mark.parametrize("wait", [None, 1])
def test_what_the_replica_did_not_have_is_lost_without_wait_and_never_silently(wait, prefix):
    """The replica hangs, and is then restarted from its disk, so that it lacks later appends."""
    saved = ("--appendonly", "yes", "--appendfsync", "always")
    with ended(Sentinels(options=saved, failover=True)) as group:
        load = Load(group.url, prefix=prefix, **({} if wait is None else {"wait": wait, "wait_timeout": 0.3}))
        load.goes_on()
        group.replica.stop(signal.SIGSTOP)
        time.sleep(0.3)
        group.master.stop(signal.SIGKILL)
        group.replica.stop(signal.SIGKILL)
        group.replica.start()
        until(lambda: _is_master(group.replica), what="the new master", patience=60)
        if wait is not None:
            group.master.start()
            with group.master.client() as client:
                client.replicaof("127.0.0.1", group.replica.port)
        load.goes_on()
        lost = check(load)
        assert (lost > 0) is (wait is None)


def _is_master(server) -> bool:
    with server.client() as client:
        return client.info("replication")["role"] == "master"
