"""The composition root: makes every part, serves, and ends them; takes no decisions."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn

import exporter
from exporter.chronicle import Chronicle
from exporter.clock import SystemClock
from exporter.collector import Collector
from exporter.exposition import Exposition
from exporter.faults import FaultBoard
from exporter.health import Health
from exporter.inventory import Inventory
from exporter.logs import Log
from exporter.pages import FaultControl, pages
from exporter.process import WorkerProcess
from exporter.settings import Settings
from exporter.snapshot import XidEvent
from exporter.xids import XidBook

_SHUTDOWN_SECONDS = 1
_KEEPALIVE_SECONDS = 75


class NoGpu(Exception):
    """A GPU was required and none was found."""


@dataclass(frozen=True, slots=True)
class Mode:
    """What the command line chose: how many GPUs to simulate, and whether one is a must."""

    simulated_gpus: int = 0
    requires_gpu: bool = False


class Exporter:
    """The whole program; `run` inside an event loop, once."""

    def __init__(self, settings: Settings, mode: Mode, *, log: Log) -> None:
        clock = SystemClock()
        self._mode = mode
        self._since_seconds = clock.monotonic()
        self._settings = settings
        self._xids = XidBook()
        self._chronicle = Chronicle(log=log)
        self._health = Health(clock=clock, fresh_seconds=settings.collector.fresh_seconds)
        self._inventory = Inventory(expected_count=settings.expected_count)
        self._faults = FaultBoard(monotonic=clock.monotonic)
        self._collector = Collector(
            config=settings.collector,
            new_worker=self._new_worker,
            health=self._health,
            inventory=self._inventory,
            chronicle=self._chronicle,
            faults=self._faults,
            clock=clock,
        )

    async def run(self, listener: socket.socket) -> None:
        """Serve until SIGTERM or Ctrl-C. Raises NoGpu."""
        collecting = asyncio.create_task(self._collector.run())
        try:
            if self._mode.requires_gpu:
                await self._collector.has_result.wait()
                if not self._health.is_success:
                    raise NoGpu("no GPU was found, and --require-gpu was said")
            await _Server(self._pages_config()).serve(sockets=[listener])
        finally:
            collecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await collecting

    def _pages_config(self) -> uvicorn.Config:
        exposition = Exposition(
            health=self._health,
            inventory=self._inventory,
            xids=self._xids,
            version=exporter.__version__,
        )
        control = None
        if self._mode.simulated_gpus:
            gpus = self._mode.simulated_gpus
            control = FaultControl(self._faults, gpus=gpus, on_change=self._collector.hurry)
        return uvicorn.Config(
            pages(exposition, control=control),
            lifespan="off",
            ws="none",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEPALIVE_SECONDS,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )

    def _new_worker(self) -> WorkerProcess:
        command = [sys.executable, "-m", "exporter.worker"]
        if self._mode.simulated_gpus:
            command += ["--simulate", str(self._mode.simulated_gpus)]
            command += ["--since", str(self._since_seconds)]
        if self._settings.wants_processes:
            command.append("--processes")
        if self._settings.wants_pcie:
            command.append("--pcie")
        return WorkerProcess(command, on_xid=self._on_xid)

    def _on_xid(self, event: XidEvent) -> None:
        self._xids.add(event)
        self._chronicle.xid(event)


class _Server(uvicorn.Server):
    """uvicorn that ends as asked, without raising the signal anew: an orderly end exits with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
