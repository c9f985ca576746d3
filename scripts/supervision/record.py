"""Who was started here: one small file per process below .run/, by pid and start time."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from scripts.supervision.kernel import (
    Identity,
    booted_at,
    is_running,
    leads_session,
    uptime_seconds,
)

RUN_DIRECTORY = Path(".run")
# What the watchdog thinks of each program; no *.json, which would make it a record.
STATE_FILE = RUN_DIRECTORY / "watchdog.state"
WATCHDOG = "watchdog"


@dataclass(frozen=True, slots=True)
class Record:
    """One process; `started` is the kernel's start time, so that a reused pid is not ours.

    `supervised` processes lead a session of their own, in which all their children are.
    """

    name: str
    pid: int
    started: str
    port: int
    supervised: bool = False

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.started)

    @property
    def is_alive(self) -> bool:
        return self.identity.is_alive

    @property
    def leads_session(self) -> bool:
        return leads_session(self.pid)

    @property
    def uptime_seconds(self) -> float:
        return uptime_seconds(self.started)

    @property
    def path(self) -> Path:
        return RUN_DIRECTORY / f"{self.name}.json"

    @property
    def is_of_this_boot(self) -> bool:
        """False if the machine was started again since, or the record is gone."""
        try:
            return self.path.stat().st_mtime > booted_at()
        except OSError:
            return False

    @property
    def is_pid_of_another(self) -> bool:
        """Whether the kernel has given the pid away. It does so only once nobody is left in the
        session that the first owner led."""
        return is_running(self.pid) and not self.is_alive

    def write(self) -> None:
        """Whole or not at all: a reader never sees half a record."""
        write_whole(self.path, json.dumps(asdict(self)))

    def remove(self) -> None:
        """Unless the file is a later process's of this name by now."""
        if self in records():
            self.path.unlink(missing_ok=True)


class Phase(StrEnum):
    """Where a program stands, in the words of the status line."""

    STARTING = "starting"
    UP = "up"
    SICK = "does not answer"
    ENDING = "ending"
    WAITING = "waits to start again"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a program stands with the watchdog; `restarts` since the first watchdog began."""

    phase: str
    reason: str
    restarts: int
    port: int


def records() -> list[Record]:
    """All of them, of the living and the dead; what cannot be read is removed."""
    found = []
    for path in sorted(RUN_DIRECTORY.glob("*.json")):
        try:
            found.append(Record(**json.loads(path.read_text())))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError):
            path.unlink(missing_ok=True)
    return found


def living() -> dict[str, Record]:
    """The records of processes that live, by name."""
    return {record.name: record for record in records() if record.is_alive}


def standings() -> dict[str, Standing]:
    """What the last watchdog wrote; empty when it ended in order or there was none."""
    try:
        told = json.loads(STATE_FILE.read_text())
        return {name: Standing(**fields) for name, fields in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_standings(standing: Mapping[str, Standing]) -> None:
    told = {name: asdict(fields) for name, fields in standing.items()}
    write_whole(STATE_FILE, json.dumps(told))


def write_whole(path: Path, text: str) -> None:
    RUN_DIRECTORY.mkdir(exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text)
    draft.replace(path)
