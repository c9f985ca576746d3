"""Collector: one collection at a time, each with a deadline, through a worker it can replace."""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from exporter.backoff import Backoff
from exporter.chronicle import Chronicle
from exporter.clock import Clock
from exporter.health import Health
from exporter.inventory import Inventory
from exporter.process import Worker, WorkerEnded
from exporter.snapshot import Reading
from exporter.source import SimulatedFault, SourceUnavailable

# Without persistence mode, a driver may take that long to wake its GPUs.
OPEN_SECONDS: Final = 30.0
# A killed worker that does not die holds the driver's locks: do not pile up more of them.
LEFT_BEHIND_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """How often the GPUs are asked, and how long they may take to answer, in seconds."""

    interval_seconds: float = 5.0
    timeout_seconds: float = 4.0

    @property
    def fresh_seconds(self) -> float:
        """How old a reading may become before it says nothing about now."""
        return self.interval_seconds + self.timeout_seconds


class Faults(Protocol):
    """Where the faults of a simulation come from."""

    def for_delivery(self) -> Iterable[SimulatedFault]: ...


class Collector:
    """Keeps health and inventory up to date until cancelled.

    NVML is initialised anew by starting a new worker: after every failure, and while a GPU is
    missing, with a growing pause; until then the old worker reads the GPUs that are left.
    """

    def __init__(
        self,
        *,
        config: CollectorConfig,
        new_worker: Callable[[], Worker],
        health: Health,
        inventory: Inventory,
        chronicle: Chronicle,
        faults: Faults,
        clock: Clock,
    ) -> None:
        self._config = config
        self._new_worker = new_worker
        self._health = health
        self._inventory = inventory
        self._chronicle = chronicle
        self._faults = faults
        self._clock = clock
        self._backoff = Backoff()
        self._hurry = asyncio.Event()
        self._left_behind: list[Worker] = []
        self.has_result = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                pause_seconds = await self._session()
            except Exception as error:  # the top of the loop, which must go on
                self._failed("collector", type(error).__name__, cure=str(error))
                pause_seconds = self._backoff.next_seconds()
            self.has_result.set()
            await self._pause(pause_seconds)
            self._health.reinitializations += 1

    def hurry(self) -> None:
        """Collect at once, and if NVML is to be initialised anew do that at once too."""
        self._backoff.reset()
        self._hurry.set()

    async def _session(self) -> float:
        """One worker, from its start to its end; the pause before the next."""
        self._left_behind = [worker for worker in self._left_behind if worker.is_left_behind]
        if len(self._left_behind) >= LEFT_BEHIND_MAX:
            cure = "the driver hangs in the kernel: see `dmesg`, then reset the GPU or reboot"
            self._failed("kill", "stuck", cure=cure)
            return self._backoff.next_seconds()
        worker = self._new_worker()
        try:
            async with worker:
                return await self._work(worker)
        finally:
            if worker.is_left_behind:
                self._left_behind.append(worker)

    async def _work(self, worker: Worker) -> float:
        step = "open"
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await worker.open()
            step = "collect"
            return await self._collect_until_renewal(worker)
        except SourceUnavailable as fault:
            self._health.unavailable(call=fault.call, error=fault.error)
            self._chronicle.failed(call=fault.call, error=fault.error, cure=fault.cure)
        except WorkerEnded:
            self._failed("worker", "ended", cure="it is started again; see standard error")
        except TimeoutError:
            self._health.failed(call=step, error="deadline")
            # Telemetry is gone by now: there is time to ask where the driver hangs.
            where = await worker.activity() or "a call"
            cure = f"the driver hangs in {where}: see `dmesg`; a new worker is started"
            self._chronicle.failed(call=step, error="deadline", cure=cure)
        return self._backoff.next_seconds()

    async def _collect_until_renewal(self, worker: Worker) -> float:
        """Returns when NVML is to be initialised anew because a GPU is missing."""
        renewal_at = math.inf
        while True:
            began = self._clock.monotonic()
            reading = await self._collect(worker)
            if not self._inventory.misses(reading):
                renewal_at = math.inf
                self._backoff.reset()
            elif renewal_at == math.inf:
                renewal_at = began + self._backoff.next_seconds()
            wake_at = min(began + self._config.interval_seconds, renewal_at)
            is_hurried = await self._pause(wake_at - self._clock.monotonic())
            is_due = self._clock.monotonic() >= renewal_at
            if is_due or (is_hurried and renewal_at < math.inf):
                return 0.0

    async def _collect(self, worker: Worker) -> Reading:
        began = self._clock.monotonic()
        async with asyncio.timeout(self._config.timeout_seconds):
            reading = await worker.collect(self._faults.for_delivery())
        self._health.succeeded(reading, duration_seconds=self._clock.monotonic() - began)
        self._chronicle.collected(reading, known=[gpu.device.uuid for gpu in self._inventory])
        self._inventory.learn(reading)
        self.has_result.set()
        return reading

    async def _pause(self, seconds: float) -> bool:
        """Whether hurry() cut it short."""
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._hurry.wait()
        except TimeoutError:
            return False
        self._hurry.clear()
        return True

    def _failed(self, call: str, error: str, *, cure: str) -> None:
        self._health.failed(call=call, error=error)
        self._chronicle.failed(call=call, error=error, cure=cure)
