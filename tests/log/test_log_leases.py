"""What decides how long a turn counts as open, and how long a container can be used: processes, leases, ages."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from platforms import needs_linux

from chathistory.log import lease, process
from chathistory.log.process import has_ended, this_process
from chathistory.log.state import Container, OpenTurn


@needs_linux
def test_a_process_of_another_user_is_looked_up_in_proc(monkeypatch):
    """A signal to it is refused, which shows that it exists."""

    def refuse(pid, signal):
        raise PermissionError

    parent = process._read_status(os.getppid())
    running = replace(this_process(), pid=os.getppid(), started=parent.started)
    monkeypatch.setattr(os, "kill", refuse)
    assert not has_ended(running)
    assert has_ended(replace(running, started=parent.started + 1))


def test_a_kernel_without_time_namespaces_has_pid_namespaces(monkeypatch, tmp_path):
    pids, times = tmp_path / "self/ns/pid", tmp_path / "self/ns/time"
    pids.parent.mkdir(parents=True)
    pids.touch()
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert process._read_namespaces() == f"{pids.stat().st_ino}"
    times.touch()
    assert process._read_namespaces() == f"{pids.stat().st_ino}-{times.stat().st_ino}"


def test_what_is_remembered_of_leases_is_bounded(monkeypatch):
    monkeypatch.setattr(lease, "_MAX_REMEMBERED", 3)
    monkeypatch.setattr(lease, "_given_up", OrderedDict())
    monkeypatch.setattr(lease, "_first_seen", OrderedDict())
    monkeypatch.setattr(lease, "now", lambda: 1_000)
    turns = [OpenTurn("t", 2_000, lease=f"lease {number}") for number in range(5)]
    assert [lease.lease_end(turn) for turn in turns] == [2_000] * 5
    assert [name for name, _ in lease._first_seen] == ["lease 2", "lease 3", "lease 4"]
    for turn in turns:
        lease.mark_given_up(turn.lease)
    assert [lease.lease_end(turn) for turn in turns] == [2_000, 2_000, None, None, None]


def test_a_container_of_unknown_age_can_be_used_until_thirty_days_after_it_says_that_it_expires():
    limit = int((datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=30)).timestamp()) * 1_000_000
    container = Container("c", expires_at="2020-01-01T00:00:00Z")
    assert (container.is_usable(limit - 1), container.is_usable(limit)) == (True, False)
    assert Container("c", expires_at="soon").is_usable(limit)
    assert Container("c").is_usable(limit)
