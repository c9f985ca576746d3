"""The watchdog itself: one keeper per program, the signals of the operator, the logs' turn-over."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import Path
from random import Random
from threading import Event

from scripts.supervision.keeper import Keeper
from scripts.supervision.kernel import catches
from scripts.supervision.programs import Program
from scripts.supervision.record import STATE_FILE, Phase, Record, standings, write_standings
from scripts.supervision.report import Report, status_line
from scripts.supervision.restarts import Restarts
from scripts.supervision.rotation import (
    LogLimits,
    is_full,
    turn_over_by_name,
    turn_over_in_place,
)
from scripts.supervision.settings import WatchdogSettings

STATUS_SECONDS = 1.0
EXIT_DOWN = 1
# What the gateway does at these is its own affair: log level up, down, log file opened anew.
FORWARDED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Orders(Enum):
    """What the operator wants at the end."""

    STOP = "stop"
    LEAVE = "leave"


class Supervisor:
    """Runs until SIGTERM or SIGINT (all programs end) or SIGQUIT (all programs stay).

    `earlier` are the living and dead records of an earlier watchdog.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        settings: WatchdogSettings,
        *,
        earlier: Mapping[str, Record],
        report: Report,
    ) -> None:
        self._settings = settings
        self._earlier = earlier
        self._report = report
        self._keepers = [
            Keeper(
                program,
                patience=settings.patience,
                restarts=Restarts(settings.policy, random=Random()),
                say=report.say,
                changed=self._write_standings,
            )
            for program in programs
        ]
        self._hurry = Event()

    async def run(self) -> int:
        """The exit status: 1 if a program stayed down, else 0."""
        loop = asyncio.get_running_loop()
        self._orders: asyncio.Future[Orders] = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGQUIT, self._leave)
        for number in FORWARDED:
            loop.add_signal_handler(number, self._forward, number)
        told = standings()
        keeping = [
            asyncio.ensure_future(keeper.keep(self._earlier.get(name), told.get(name)))
            for keeper in self._keepers
            for name in (keeper.program.name,)
        ]
        watching = [asyncio.ensure_future(self._turn_logs()), asyncio.ensure_future(self._show())]
        orders = await self._until_over(keeping, watching)
        for task in (*keeping, *watching):
            task.cancel()
        await asyncio.gather(*keeping, *watching, return_exceptions=True)
        is_down = any(keeper.phase is Phase.DOWN for keeper in self._keepers)
        if orders is Orders.LEAVE:
            self._report.say("leaving; the programs run on, and `make up` takes them over again")
            for keeper in self._keepers:
                keeper.let_go()
        else:
            await self._end_all()
            if not is_down:
                STATE_FILE.unlink(missing_ok=True)
        self._report.end()
        return EXIT_DOWN if is_down else 0

    async def _until_over(
        self, keeping: Sequence[asyncio.Future[None]], watching: Sequence[asyncio.Future[None]]
    ) -> Orders:
        """Until there are orders or no program is left to keep. A fault of ours is raised."""
        waiting: set[asyncio.Future[None] | asyncio.Future[Orders]] = {*keeping, *watching}
        while not self._orders.done():
            done, _ = await asyncio.wait(
                {*waiting, self._orders}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
            waiting -= done
            if all(task.done() for task in keeping):
                self._report.say("no program is left to watch")
                return Orders.STOP
        return self._orders.result()

    async def _end_all(self) -> None:
        """The gateway first: what it still answers needs the vLLM behind it."""
        first = [keeper for keeper in self._keepers if keeper.program.name == "gateway"]
        rest = [keeper for keeper in self._keepers if keeper not in first]
        for keepers in (first, rest):
            await asyncio.gather(*(keeper.stop(hurry=self._hurry) for keeper in keepers))

    def _stop(self) -> None:
        if self._orders.done():
            self._report.say("again: ending everything at once")
            self._hurry.set()
            return
        self._report.say("stopping; running answers may take DRAIN_SECONDS, once more is at once")
        self._orders.set_result(Orders.STOP)

    def _leave(self) -> None:
        if not self._orders.done():
            self._orders.set_result(Orders.LEAVE)

    def _forward(self, number: signal.Signals) -> None:
        for keeper in self._keepers:
            if keeper.program.name == "gateway" and keeper.process is not None:
                is_heard = keeper.process.send(number)
                told = "sent to" if is_heard else "not sent: not heeded by"
                self._report.say(f"{number.name} {told} the gateway")

    async def _show(self) -> None:
        while True:
            self._report.show(status_line(self._keepers))
            await asyncio.sleep(STATUS_SECONDS)

    async def _turn_logs(self) -> None:
        while True:
            for keeper in self._keepers:
                await asyncio.to_thread(turn_logs_of, keeper, self._settings.logs, self._report)
            await asyncio.to_thread(_turn, self._report.log, self._settings.logs, self._report)
            await asyncio.sleep(self._settings.patience.poll_seconds)

    def _write_standings(self) -> None:
        try:
            write_standings({keeper.program.name: keeper.standing for keeper in self._keepers})
        except OSError as fault:
            self._report.say(f"{STATE_FILE} cannot be written: {fault.strerror}")


def turn_logs_of(keeper: Keeper, limits: LogLimits, report: Report) -> None:
    """Turn over what has grown too large, in the way that this program can bear."""
    program, process = keeper.program, keeper.process
    _turn(program.output, limits, report)
    if program.own_log is None or not is_full(program.own_log, limits):
        return
    if process is None or not catches(process.record.pid, signal.SIGHUP):
        _turn(program.own_log, limits, report)
        return
    reopen = partial(process.record.identity.send, signal.SIGHUP)
    with_name = partial(turn_over_by_name, program.own_log, limits, reopen=reopen)
    _reported(with_name, program.own_log, report)


def _turn(log: Path, limits: LogLimits, report: Report) -> None:
    if is_full(log, limits):
        _reported(partial(turn_over_in_place, log, limits), log, report)


def _reported(turn: "partial[None]", log: Path, report: Report) -> None:
    try:
        turn()
    except OSError as fault:
        report.say(f"{log} cannot be turned over: {fault.strerror}")
