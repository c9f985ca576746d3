"""The collector against a scripted worker: deadlines, renewal, and workers left behind."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from exporter.chronicle import Chronicle
from exporter.clock import SystemClock
from exporter.collector import LEFT_BEHIND_MAX, Collector, CollectorConfig
from exporter.families import POWER_DRAW
from exporter.faults import FaultBoard
from exporter.health import Health
from exporter.inventory import Inventory
from exporter.logs import Log
from exporter.process import WorkerEnded
from exporter.snapshot import Device, DeviceReading, Reading, Sample
from exporter.source import SimulatedFault, SourceUnavailable

INTERVAL_SECONDS = 0.01
TIMEOUT_SECONDS = 0.05
Answer = Callable[[], Awaitable[Reading]]


def reading(*gpus: int) -> Reading:
    devices = (Device(f"GPU-{gpu}", gpu, "H200", "00:00.0") for gpu in gpus)
    return Reading(
        "580",
        "13.0",
        tuple(DeviceReading(device, (Sample(POWER_DRAW, 1.0),)) for device in devices),
    )


class ScriptedWorker:
    """Answers as told; `dies` says whether killing it helps."""

    def __init__(self, answer: Answer, *, dies: bool = True) -> None:
        self._answer = answer
        self._dies = dies
        self.is_left_behind = False
        self.has_ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.has_ended = True
        self.is_left_behind = not self._dies

    async def open(self) -> None:
        """At once."""

    async def collect(self, faults: Iterable[SimulatedFault]) -> Reading:
        return await self._answer()

    async def activity(self) -> str:
        return "nvmlDeviceGetPowerUsage on GPU-0"


class Bench:
    """A collector whose workers come from the test."""

    def __init__(self, new_worker: Callable[[], ScriptedWorker]) -> None:
        self.workers: list[ScriptedWorker] = []
        self._new_worker = new_worker
        self.log = io.StringIO()
        clock = SystemClock()
        config = CollectorConfig(INTERVAL_SECONDS, TIMEOUT_SECONDS)
        self.health = Health(clock=clock, fresh_seconds=60)
        self.inventory = Inventory(expected_count=None)
        self.collector = Collector(
            config=config,
            new_worker=self._next,
            health=self.health,
            inventory=self.inventory,
            chronicle=Chronicle(log=Log(level="INFO", form="json", stream=self.log)),
            faults=FaultBoard(monotonic=clock.monotonic),
            clock=clock,
        )

    def _next(self) -> ScriptedWorker:
        self.workers.append(self._new_worker())
        return self.workers[-1]

    async def until(self, holds: Callable[[], object]) -> None:
        """Hurrying all the while, so that no pause is waited out."""
        async with asyncio.timeout(5):
            while not holds():
                self.collector.hurry()
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(new_worker: Callable[[], ScriptedWorker]) -> AsyncIterator[Bench]:
    bench = Bench(new_worker)
    task = asyncio.create_task(bench.collector.run())
    yield bench
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def script(*answers: Answer, then: Answer) -> Answer:
    """Each answer once, then the last one for ever."""
    left = iter(answers)

    async def answer() -> Reading:
        return await next(left, then)()

    return answer


async def never() -> Reading:
    await asyncio.Event().wait()
    raise AssertionError


async def both() -> Reading:
    return reading(0, 1)


async def test_one_worker_serves_as_long_as_all_gpus_answer() -> None:
    async with running(lambda: ScriptedWorker(both)) as bench:
        await bench.until(lambda: bench.health.last_success_seconds)
        first = bench.health.last_success_seconds
        await bench.until(lambda: bench.health.last_success_seconds != first)

    assert len(bench.workers) == 1
    assert bench.health.reinitializations == 0
    assert bench.health.is_available


async def test_an_overrun_takes_the_reading_away_and_replaces_the_worker() -> None:
    answers = script(both, never, then=both)
    shown_at_start = []

    def new_worker() -> ScriptedWorker:
        shown_at_start.append(bench.health.reading)
        return ScriptedWorker(answers)

    async with running(new_worker) as bench:
        await bench.until(lambda: len(bench.workers) == 2 and bench.health.is_success)

    assert shown_at_start == [None, None]
    assert [worker.has_ended for worker in bench.workers] == [True, True]
    assert bench.health.errors == {("collect", "deadline"): 1}
    assert "nvmlDeviceGetPowerUsage on GPU-0" in bench.log.getvalue()


async def test_workers_that_do_not_die_are_not_piled_up() -> None:
    async with running(lambda: ScriptedWorker(never, dies=False)) as bench:
        await bench.until(lambda: bench.health.errors["kill", "stuck"] >= 2)
        assert len(bench.workers) == LEFT_BEHIND_MAX
        for worker in bench.workers:
            worker.is_left_behind = False
        await bench.until(lambda: len(bench.workers) > LEFT_BEHIND_MAX)


async def test_a_worker_that_crashes_is_replaced() -> None:
    async def crash() -> Reading:
        raise WorkerEnded

    answers = script(crash, then=both)
    async with running(lambda: ScriptedWorker(answers)) as bench:
        await bench.until(lambda: bench.health.is_success)

    assert bench.health.errors == {("worker", "ended"): 1}


async def test_the_collector_goes_on_after_a_fault_of_its_own() -> None:
    async def fault() -> Reading:
        raise OSError("no more processes")

    answers = script(fault, then=both)
    async with running(lambda: ScriptedWorker(answers)) as bench:
        await bench.until(lambda: bench.health.is_success)

    assert bench.health.errors == {("collector", "OSError"): 1}
    assert "no more processes" in bench.log.getvalue()


async def test_a_driver_that_is_not_there_is_told_once_and_tried_again() -> None:
    async def missing() -> Reading:
        raise SourceUnavailable(call="nvmlInit", error="LibraryNotFound", cure="install it")

    async with running(lambda: ScriptedWorker(missing)) as bench:
        await bench.until(lambda: bench.health.errors["nvmlInit", "LibraryNotFound"] >= 3)

    assert not bench.health.is_available
    assert bench.log.getvalue().count("install it") == 1


async def test_while_a_gpu_is_missing_the_others_are_read_and_nvml_is_begun_anew() -> None:
    async def one() -> Reading:
        return reading(1)

    answers = script(both, then=one)
    async with running(lambda: ScriptedWorker(answers)) as bench:
        await bench.until(lambda: bench.health.reinitializations >= 2)
        assert bench.health.is_success
        assert bench.health.reading is not None
        assert bench.health.reading.uuids == {"GPU-1"}

    assert bench.inventory.expected_count == 2


async def test_no_gpu_at_all_is_no_success() -> None:
    async def none() -> Reading:
        return reading()

    async with running(lambda: ScriptedWorker(none)) as bench:
        await bench.until(lambda: bench.health.reading is not None)

    assert not bench.health.is_success
