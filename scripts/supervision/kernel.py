"""What the kernel says about processes: who lives, since when, in whose session, heeding what."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for good: a pid is given away again, a pid with its start time is not."""

    pid: int
    started: str

    @property
    def is_alive(self) -> bool:
        return bool(self.started) and start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Does nothing to a process that is gone, nor to whoever has its pid now."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            # The handle is of the process looked at here, whatever becomes of the pid.
            if self.is_alive:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True)
class _Entry:
    identity: Identity
    parent: int
    session: int
    is_zombie: bool


def start_time(pid: int) -> str:
    """In clock ticks since boot; empty when there is no such process, or only its zombie."""
    entry = _entry(pid)
    return entry.identity.started if entry and not entry.is_zombie else ""


def uptime_seconds(started: str) -> float:
    """How long ago this start time was."""
    since_boot = float((PROC / "uptime").read_text().split()[0])
    return since_boot - int(started) / TICKS_PER_SECOND


def booted_at() -> float:
    """When the machine started, in seconds since 1970."""
    lines = (PROC / "stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))


def catches(pid: int, number: signal.Signals) -> bool:
    """True if the process has a handler for this signal, which would end it otherwise."""
    try:
        lines = (PROC / str(pid) / "status").read_bytes().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith(b"SigCgt:")), b"0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def is_running(pid: int) -> bool:
    """True if any process has this pid now, whoever it is; a zombie no longer runs."""
    return bool(start_time(pid))


def leads_session(pid: int) -> bool:
    entry = _entry(pid)
    return entry is not None and entry.session == pid


def family(pid: int) -> frozenset[Identity]:
    """Descendants of the process, and all in the session it leads; not the process itself."""
    entries = list(_entries())
    children: dict[int, list[_Entry]] = {}
    for entry in entries:
        children.setdefault(entry.parent, []).append(entry)
    found = {entry for entry in entries if entry.session == pid}
    generation = children.get(pid, [])
    while generation:
        found.update(generation)
        generation = [child for e in generation for child in children.get(e.identity.pid, [])]
    return frozenset(e.identity for e in found if e.identity.pid != pid and not e.is_zombie)


def _entries() -> Iterator[_Entry]:
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (entry := _entry(int(folder.name))):
            yield entry


def _entry(pid: int) -> _Entry | None:
    """From /proc/PID/stat; the name in it may hold any byte but NUL, so read from its end."""
    try:
        _, _, rest = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")
    except OSError:
        return None
    fields = rest.decode("ascii").split()
    identity = Identity(pid, fields[19])
    return _Entry(identity, int(fields[1]), int(fields[3]), fields[0] in "ZX")
