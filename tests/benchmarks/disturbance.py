"""Who else used the cores while something was measured: other programs, and the hypervisor."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.benchmarks.processes import Cores

_TICKS: Final = os.sysconf("SC_CLK_TCK")
# The columns of a line of /proc/stat (proc(5)): interrupts are left out, they are our packets.
_USER, _NICE, _SYSTEM, _STOLEN = 0, 1, 2, 7


@dataclass(frozen=True, slots=True)
class CoreTime:
    """What programs used of one core until now, and what the hypervisor withheld; seconds."""

    used_seconds: float
    stolen_seconds: float

    @classmethod
    def read(cls, core: int, stat: str) -> Self:
        """From the text of /proc/stat."""
        for line in stat.splitlines():
            name, *columns = line.split()
            if name == f"cpu{core}":
                ticks = [int(column) for column in columns]
                used = ticks[_USER] + ticks[_NICE] + ticks[_SYSTEM]
                return cls(used / _TICKS, ticks[_STOLEN] / _TICKS)
        raise LookupError(f"/proc/stat does not know a cpu{core}")


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Shares of a core, of the target's or the load's, whichever was disturbed more."""

    others: float
    stolen: float

    @classmethod
    def between(
        cls, before: tuple[CoreTime, ...], after: tuple[CoreTime, ...], own: tuple[float, ...],
        *, seconds: float,
    ) -> Self:  # fmt: skip
        """Core by core; `own` are the seconds that were ours on each."""
        others = stolen = 0.0
        for began, ended, ours in zip(before, after, own, strict=True):
            others = max(others, (ended.used_seconds - began.used_seconds - ours) / seconds)
            stolen = max(stolen, (ended.stolen_seconds - began.stolen_seconds) / seconds)
        return cls(others, stolen)


class Watch:
    """Looks at both cores at the beginning and at the end of a measurement."""

    def __init__(self, cores: Cores) -> None:
        self._cores = tuple(core for core in (cores.target, cores.load) if core is not None)
        self._before = self._read()
        self._began = time.perf_counter()
        self._load_seconds = time.process_time()

    def end(self, *, target_seconds: float) -> dict[str, float]:
        """As numbers of a measure; none where nothing is pinned, as nobody can tell there."""
        if not self._cores:
            return {}
        own = (target_seconds, time.process_time() - self._load_seconds)
        seconds = time.perf_counter() - self._began
        found = Disturbance.between(self._before, self._read(), own, seconds=seconds)
        return {"others_core": found.others, "stolen_core": found.stolen}

    def _read(self) -> tuple[CoreTime, ...]:
        stat = Path("/proc/stat").read_text()
        return tuple(CoreTime.read(core, stat) for core in self._cores)
