"""What a gateway at rest holds, and whether that grows."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Final

import psutil

WARM_UP_SHARE: Final = 0.25
"""Of the looks: until then caches fill and pools find their size."""
JUDGED_AFTER_SECONDS: Final = 600.0
"""A heap settles for minutes: over less than that its slope says nothing."""
GROWTH_BYTES_PER_HOUR_MAX: Final = 6 * 1024 * 1024
GROWTH_BLOCKS_RATIO_MAX: Final = 0.01
DATABASE: Final = "gateway.db"
DATABASE_DESCRIPTORS_MAX: Final = 4
"""As many as may use the file at once: the journal, who prepares it, and the readers of keys and of
history. SQLite keeps what each has opened for the next one, and the two readers may meet late."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at rest. `held` are gauges that have to be 0 then, `objects` those that the garbage
    collector watches, `blocks` all that Python has allocated."""

    at_seconds: float
    resident_bytes: int
    descriptors: int
    open_files: Mapping[str, int]
    threads: int
    tasks: Mapping[str, int]
    objects: int
    blocks: int
    kinds: Mapping[str, int]
    held: Mapping[str, float]

    @property
    def tasks_total(self) -> int:
        return sum(self.tasks.values())


def resident_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def open_files(pid: int) -> dict[str, int]:
    """What its descriptors are: files by name, sockets by state, and the kinds of the rest."""
    links = (each.readlink() for each in Path(f"/proc/{pid}/fd").iterdir())
    found = Counter(link.name.partition(":[")[0] for link in links)
    found.update(f"tcp {each.status}" for each in psutil.Process(pid).net_connections("tcp"))
    return dict(found)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By least squares, per second."""
    middle_x, middle_y = mean(x for x, _ in points), mean(y for _, y in points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0


@dataclass(frozen=True, slots=True)
class Growth:
    """How what was held at rest changed once all was warm."""

    seconds: float
    bytes_per_hour: float
    descriptors: int
    tasks: int
    objects: int
    blocks: int
    kinds: Mapping[str, int]


def growth(looks: Sequence[Vitals]) -> Growth | None:
    """None while there are too few looks to say."""
    warm = looks[math.ceil(WARM_UP_SHARE * len(looks)) :]
    if len(warm) < 3:
        return None
    first, last = warm[0], warm[-1]
    early, late = warm[: len(warm) // 3], warm[-(len(warm) // 3) :]
    kinds = {name: count - first.kinds.get(name, 0) for name, count in last.kinds.items()}
    return Growth(
        seconds=last.at_seconds - first.at_seconds,
        bytes_per_hour=3600 * slope([(look.at_seconds, look.resident_bytes) for look in warm]),
        descriptors=_least_more(early, late, _descriptors),
        tasks=_least_more(early, late, lambda look: look.tasks_total),
        objects=_least_more(early, late, lambda look: look.objects),
        blocks=_least_more(early, late, lambda look: look.blocks),
        kinds={name: more for name, more in kinds.items() if abs(more) > 20},
    )


def _descriptors(look: Vitals) -> int:
    """Without those of the database, which have a bound of their own."""
    return look.descriptors - look.open_files.get(DATABASE, 0)


def _least_more(
    early: Sequence[Vitals], late: Sequence[Vitals], number: Callable[[Vitals], int]
) -> int:
    """By how much the least grew: a probe may be under way at any look, at all of them a leak."""
    return min(map(number, late)) - min(map(number, early))


def complaints(looks: Sequence[Vitals]) -> list[str]:
    """What should not be, in words."""
    found = [
        f"at {look.at_seconds:.0f} s of rest: {name} is {value:g}"
        for look in looks
        for name, value in look.held.items()
        if value
    ]
    opened = max((look.open_files.get(DATABASE, 0) for look in looks), default=0)
    if opened > DATABASE_DESCRIPTORS_MAX:
        found.append(f"the database is open {opened} times")
    grown = growth(looks)
    if grown is None:
        return found
    is_long = grown.seconds >= JUDGED_AFTER_SECONDS
    if is_long and grown.bytes_per_hour > GROWTH_BYTES_PER_HOUR_MAX:
        found.append(f"resident memory grows by {grown.bytes_per_hour / 2**20:.1f} MiB an hour")
    if grown.descriptors > 0:
        found.append(f"{grown.descriptors} more descriptors are open")
    if grown.tasks > 0:
        found.append(f"{grown.tasks} more tasks are alive")
    if grown.objects > GROWTH_BLOCKS_RATIO_MAX * looks[-1].blocks:
        found.append(f"{grown.objects} more objects are alive: {dict(grown.kinds)}")
    if grown.blocks > GROWTH_BLOCKS_RATIO_MAX * looks[-1].blocks:
        found.append(f"{grown.blocks} more blocks are allocated")
    return found
