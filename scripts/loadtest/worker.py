"""One worker process: takes its plan from stdin, puts load on the server, reports on stdout.

It ends when its plan is done, when stdin says `stop`, and when whoever started it is gone.
"""

import asyncio
import gc
import math
import resource
import signal
import sys
from time import monotonic
from typing import Final, Protocol

import uvloop

from scripts.loadtest.caller import Address, Caller
from scripts.loadtest.load import ClosedLoop, Desk, Load, OpenLoop
from scripts.loadtest.plan import Plan
from scripts.loadtest.pulse import Pulse, cpu_seconds, starved_seconds
from scripts.loadtest.recorder import Recorder
from scripts.loadtest.requests import requests
from scripts.loadtest.tally import FRAME_SECONDS, Frame

_RESOLUTION_SECONDS: Final = 0.001
_POLL_SECONDS: Final = 0.02
# Collecting often costs more than it frees: an exchange dies by its reference count.
_COLLECT_AFTER: Final = 100_000


class Reports(Protocol):
    """Where reports go; an asyncio transport is one."""

    def write(self, data: bytes) -> None:
        """Take one line."""


class Worker:
    """Runs one plan to its end."""

    def __init__(self, plan: Plan, reports: Reports) -> None:
        self._plan = plan
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._recorder = Recorder(begin_at=plan.begin_at, end_at=plan.end_at, slo=plan.slo)
        address = Address(plan.host, plan.port, plan.is_tls)
        self._caller = Caller(address, connect_timeout_seconds=plan.connect_timeout_seconds)
        self._desk = Desk(
            plan, requests=requests(plan), recorder=self._recorder, caller=self._caller
        )
        self._pulse = Pulse()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Load until the plan's end, patience for the rest, and the last report."""
        load = self._load()
        load.start()
        reporter = self._loop.create_task(self._report_regularly())
        await self._wait_until(self._plan.end_at)
        deadline = self._plan.end_at + self._plan.drain_seconds
        while self._caller.in_flight or not load.is_over:
            if self._stopped.is_set() or monotonic() >= deadline:
                break
            await self._wait_until(monotonic() + _POLL_SECONDS)
        load.stop()
        reporter.cancel()
        for exchange in self._caller.close():
            self._recorder.cut(exchange)
        self._report(is_last=True)
        self._pulse.stop()

    def stop(self) -> None:
        """End at once; what is under way is cut."""
        self._stopped.set()

    def _load(self) -> Load:
        kind = OpenLoop if self._plan.is_open_loop else ClosedLoop
        return kind(self._plan, self._desk)

    async def _wait_until(self, time: float) -> None:
        try:
            async with asyncio.timeout_at(time):
                await self._stopped.wait()
        except TimeoutError:
            return

    async def _report_regularly(self) -> None:
        # In step with the window, so that a report never straddles its edges.
        while True:
            done = math.floor((monotonic() - self._plan.begin_at) / FRAME_SECONDS)
            next_at = self._plan.begin_at + (done + 1) * FRAME_SECONDS
            await asyncio.sleep(next_at - monotonic() + _RESOLUTION_SECONDS)
            self._report(is_last=False)

    def _report(self, *, is_last: bool) -> None:
        frame = Frame(
            worker=self._plan.worker,
            at=monotonic(),
            in_flight=self._caller.in_flight,
            cpu_seconds=cpu_seconds(),
            starved_seconds=starved_seconds(),
            loop_lag=self._pulse.take(),
            tally=self._recorder.take(),
            is_last=is_last,
        )
        self._reports.write(frame.to_json() + b"\n")


async def work() -> None:
    """Read the plan, do it, and be gone when nobody listens any more."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    reports, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout)
    plan = Plan.from_json(await orders.readline())
    worker = Worker(plan, reports)
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    # Whatever comes, be it the order or the end of the pipe, it means stop.
    listener = loop.create_task(orders.readline())
    listener.add_done_callback(lambda _done: worker.stop())
    await worker.run()
    listener.cancel()
    reports.close()
    await asyncio.sleep(0)


def main() -> None:
    """Ctrl-C is for the process in front, which tells us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(work())


if __name__ == "__main__":
    main()
