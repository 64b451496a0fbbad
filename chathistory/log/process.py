"""Which process opened a turn, and whether this machine can show that it is gone.

Linux numbers processes anew after a boot and in each PID namespace, and gives numbers again. So a process is named by
its boot, its namespaces, its number and the moment when it started, all of which /proc tells. Where one of them cannot
be read (another system, a restricted /proc), it is not known whether a process is gone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["Process", "has_ended", "this_process"]

_PROC = Path("/proc")
_ENDED = frozenset("ZXx")  # the states of a process that has ended and is not waited for yet


@dataclass(frozen=True, slots=True)
class Process:
    """A process of some machine.

    host: The name of the machine, for people.
    pid: Its number.
    boot: The id of the machine's boot; None: unknown, as below.
    namespace: Its PID and time namespaces.
    started: When it started, in clock ticks since the boot.
    """

    host: str
    pid: int
    boot: str | None = None
    namespace: str | None = None
    started: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of it, for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: object) -> Self | None:
        """Return the process that was stored; None for what does not name one."""
        if not isinstance(values, Mapping):
            return None
        host, pid, started = values.get("host"), values.get("pid"), values.get("started")
        boot, namespace = values.get("boot"), values.get("namespace")
        if not isinstance(host, str) or type(pid) is not int or type(started) not in (int, type(None)):
            return None
        if not (isinstance(boot, str | None) and isinstance(namespace, str | None)):
            return None
        return cls(host, pid, boot, namespace, started)


_own: Process | None = None


def this_process() -> Process:
    """Return this process; looked up once, and again in a forked child."""
    global _own  # noqa: PLW0603 - it does not change as long as the number is the same
    pid = os.getpid()
    if _own is None or _own.pid != pid:
        status = _read_status(pid) if _is_our_proc(pid) else None
        _own = Process(_get_host_name(), pid, _read_boot_id(), _read_namespaces(), status.started if status else None)
    return _own


def has_ended(process: Process) -> bool:
    """Return whether this machine shows that a process has ended; False if that cannot be known."""
    own = this_process()
    if None in (process.boot, process.namespace, process.started, own.boot, own.namespace, own.started):
        return False
    if (process.boot, process.namespace) != (own.boot, own.namespace) or process.pid < 1:
        return False
    if process.pid == own.pid:
        return process.started != own.started
    try:
        os.kill(process.pid, 0)  # asks whether there is such a process, and sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it belongs to somebody else
    except (OSError, OverflowError):
        return False
    status = _read_status(process.pid)
    return status is not None and (status.started != process.started or status.has_ended)


@dataclass(frozen=True, slots=True)
class _Status:
    started: int
    has_ended: bool


def _read_status(pid: int) -> _Status | None:
    """Return what /proc says of a process (see `man 5 proc_pid_stat`); None: nothing that can be used."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        fields = text[text.rindex(")") + 1 :].split()  # the name before it may hold anything
        state, threads, started = fields[0], int(fields[17]), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
    return _Status(started, state in _ENDED and threads <= 1)


def _is_our_proc(pid: int) -> bool:
    """Return whether /proc is that of our own namespace: it knows us by the same number."""
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
