"""Which process is this, and does a process of this host still live?"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a process from every other one, also after its pid was given away again.

    Fields that this system does not know are empty; then only the lease decides who is dead.
    """

    host: str
    pid: int
    boot_id: str
    pid_namespace: str
    pid_started: str


def own() -> Identity:
    pid = os.getpid()
    return Identity(socket.gethostname(), pid, _boot_id(), _pid_namespace(), _started(pid))


def is_dead(other: Identity) -> bool:
    """Is *other* certainly gone? False also means: cannot be told from here."""
    here = own()
    is_here = (
        bool(other.boot_id and other.pid_namespace and other.pid_started)
        and other.boot_id == here.boot_id
        and other.pid_namespace == here.pid_namespace
    )
    return is_here and _started(other.pid) != other.pid_started


def memory(pid: int | None = None) -> int:
    """Bytes of a process's memory that are resident; 0 where that cannot be read."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@cache
def _boot_id() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str:
    """The start time of *pid* in clock ticks since boot (proc(5), field 22); empty when gone."""
    stat = _read(f"/proc/{pid}/stat")
    # The second field, the command in parentheses, may itself contain spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] == "Z":
        return ""
    return fields[19]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
