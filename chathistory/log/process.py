"""Which process opened a turn, and whether this machine can show that the process has ended.

Linux numbers processes from the start after a boot and in each PID namespace, and reuses numbers. So a process is
identified by its boot, its namespaces, its number and its start time, all of which /proc shows. Where one of them
cannot be read (on another system, or with a restricted /proc), it is unknown whether a process has ended.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from chathistory.log.stored_fields import select_unknown

__all__ = ["Process", "has_ended", "this_process"]

_PROC = Path("/proc")
_NAMES = ("host", "pid", "boot", "namespace", "started")
_ENDED = frozenset("ZXx")  # the states of a process that has ended, but whose parent has not collected it


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a machine.

    Attributes:
        host: The name of the machine, to be shown to users.
        pid: The number of the process.
        boot: The id of the machine's boot; None: unknown.
        namespace: Its PID namespace and time namespace; None: unknown.
        started: When it started, in clock ticks since the boot; None: unknown.
        extra: Fields that this version does not know.
    """

    host: str
    pid: int
    boot: str | None = None
    namespace: str | None = None
    started: int | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the known attributes as a JSON object."""
        values = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        return values | self.extra

    @classmethod
    def from_dict(cls, values: object) -> Self | None:
        """Return the process in a JSON value; None if the value does not hold one.

        Args:
            values: Any JSON value.
        """
        if not isinstance(values, Mapping):
            return None
        host, pid, started = values.get("host"), values.get("pid"), values.get("started")
        boot, namespace = values.get("boot"), values.get("namespace")
        if not isinstance(host, str) or type(pid) is not int or type(started) not in (int, type(None)):
            return None
        if not (isinstance(boot, str | None) and isinstance(namespace, str | None)):
            return None
        return cls(host, pid, boot, namespace, started, select_unknown(values, _NAMES))


_own: Process | None = None


def this_process() -> Process:
    """Return this process. It is looked up once, and again in a forked child."""
    global _own  # noqa: PLW0603 - it stays the same as long as the number does
    pid = os.getpid()
    if _own is None or _own.pid != pid:
        status = _read_status(pid) if _is_own_proc(pid) else None
        _own = Process(_get_host_name(), pid, _read_boot_id(), _read_namespaces(), status.started if status else None)
    return _own


def has_ended(process: Process) -> bool:
    """Return True if this machine shows that a process has ended; False also if that cannot be known.

    Args:
        process: The process.
    """
    own = this_process()
    if None in (process.boot, process.namespace, process.started, own.boot, own.namespace, own.started):
        return False
    if (process.boot, process.namespace) != (own.boot, own.namespace) or process.pid < 1:
        return False
    if process.pid == own.pid:
        return process.started != own.started
    try:
        os.kill(process.pid, 0)  # sends no signal, only checks that the process exists
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it exists, and belongs to another user
    except (OSError, OverflowError):
        return False
    status = _read_status(process.pid)
    return status is not None and (status.started != process.started or status.has_ended)


@dataclass(frozen=True, slots=True)
class _Status:
    started: int
    has_ended: bool


def _read_status(pid: int) -> _Status | None:
    """Return the status of a process from /proc (see `man 5 proc_pid_stat`); None: it cannot be read."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        fields = text[text.rindex(")") + 1 :].split()  # the name before it may contain anything
        state, threads, started = fields[0], int(fields[17]), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
    return _Status(started, state in _ENDED and threads <= 1)


def _is_own_proc(pid: int) -> bool:
    """Whether /proc belongs to our own PID namespace: it then has our process under our number."""
    try:
        return (_PROC / "self").readlink() == Path(str(pid))
    except OSError:
        return False


def _read_boot_id() -> str | None:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def _read_namespaces() -> str | None:
    try:
        pids = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return None
    try:
        return f"{pids}-{(_PROC / 'self/ns/time').stat().st_ino}"
    except OSError:  # kernels before 5.6 have no time namespaces
        return f"{pids}"


def _get_host_name() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
