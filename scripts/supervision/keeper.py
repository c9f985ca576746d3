"""Keeps one program running: starts or adopts it, watches it, starts it again when it ends."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from scripts.supervision.ending import end, end_leftovers
from scripts.supervision.kernel import Identity, family
from scripts.supervision.probe import look
from scripts.supervision.process import RunningProcess, adopt, start
from scripts.supervision.programs import Program
from scripts.supervision.record import Phase, Record, Standing
from scripts.supervision.restarts import CONFIGURATION_CODES, Restarts
from scripts.supervision.settings import Patience

STARTING_POLL_SECONDS = 0.5
# Orphans cannot be told from strangers' children: who belongs to a program is noted while it lives.
KIN_SECONDS = 30.0
LAST_LINES = 5
LAST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: the exit code if it is known, and why we ended it if we did."""

    code: int | None
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        if self.code is None:
            return "it ended"
        return f"it was ended by signal {-self.code}" if self.code < 0 else f"exit {self.code}"


class Keeper:
    """One program and everything the watchdog knows of it.

    `say` tells the operator; `changed` is called when what `standing` says is no longer true.
    """

    def __init__(
        self,
        program: Program,
        *,
        patience: Patience,
        restarts: Restarts,
        say: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.program = program
        self.phase = Phase.STARTING
        self.is_ready = False
        self._reason = ""
        self._patience = patience
        self._restarts = restarts
        self._say = say
        self._changed = changed
        self._process: RunningProcess | None = None
        self._kin: set[Identity] = set()

    @property
    def process(self) -> RunningProcess | None:
        return self._process

    @property
    def standing(self) -> Standing:
        return Standing(self.phase, self._reason, self._restarts.total, self.program.port)

    async def keep(self, earlier: Record | None, standing: Standing | None) -> None:
        """Returns when the program stays down. The rest is what another watchdog left behind."""
        name = self.program.name
        self._process = adopt(self.program, earlier)
        if self._process:
            self._say(f"{name} runs already (pid {self._process.record.pid}): taken over")
            if standing:
                self._restarts.total = standing.restarts
                # What was up before and does not answer now is not starting: it is sick.
                was_up = standing.phase in (Phase.UP, Phase.SICK)
                self.phase = Phase.SICK if was_up else Phase.STARTING
        elif earlier:
            await asyncio.to_thread(end_leftovers, earlier, (), self._say)
        while True:
            ending = await self._run()
            if ending.code in CONFIGURATION_CODES:
                self._stay_down(f"{ending}: its settings cannot be used, see {self._logs()}")
                return
            delay = self._restarts.next_delay()
            if delay is None:
                chances = self._restarts.policy.restarts_max
                self._stay_down(f"{ending}, after {chances} restarts in a row; see {self._logs()}")
                return
            self._say(f"{name}: {ending}; starting it again in {delay:.1f} s")
            self._enter(Phase.WAITING, str(ending))
            await asyncio.sleep(delay)

    async def stop(self, *, hurry: Event) -> None:
        """End the program in order, if it runs; `keep` must have been cancelled."""
        if self._process is None:
            return
        self._say(f"stopping {self.program.name} (pid {self._process.record.pid})")
        await self._end(self._process, hurry)

    def let_go(self) -> None:
        """Leave the program to the next watchdog."""
        if self._process is not None:
            self._process.let_go()

    async def _run(self) -> Ending:
        """One life of the program, from start or adoption to the end of all its processes."""
        if self._process is None:
            try:
                self._process = start(self.program)
            except OSError as fault:
                return Ending(None, f"cannot be started: {fault.strerror}")
            self._enter(Phase.STARTING, "")
        process = self._process
        self._kin = set()
        ending = await self._until_over(process)
        await asyncio.to_thread(end_leftovers, process.record, self._kin, self._say)
        process.record.remove()
        self._process = None
        self.is_ready = False
        return ending

    async def _until_over(self, process: RunningProcess) -> Ending:
        over = asyncio.ensure_future(process.ended())
        sick = asyncio.ensure_future(self._until_sick(process))
        try:
            await asyncio.wait({over, sick}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                return Ending(over.result())
            ending = Ending(None, sick.result())
            self._say(f"{self.program.name}: {ending}; ending it")
            await self._end(process, Event())
            return ending
        finally:
            over.cancel()
            sick.cancel()

    async def _end(self, process: RunningProcess, hurry: Event) -> None:
        self._enter(Phase.ENDING, self._reason)
        patience = self.program.stop_seconds
        how = partial(end, patience_seconds=patience, say=self._say, hurry=hurry)
        await asyncio.to_thread(how, process.record)
        await process.ended()
        self._process = None

    async def _until_sick(self, process: RunningProcess) -> str:
        """Ask for its health again and again. Returns the reason for which it must be ended."""
        watched_since = last_well = kin_seen = time.monotonic()
        well_since = None
        while True:
            health = await asyncio.to_thread(look, self.program.url + self.program.alive_path)
            now = time.monotonic()
            if health.is_well:
                if well_since is None:
                    well_since = now
                    self.program.engine.begin(now)
                last_well = now
                await self._seen_well(well_for=now - well_since)
                stalled = await asyncio.to_thread(self.program.engine.stalled_seconds, now)
                if stalled >= self._patience.stall_seconds:
                    return f"it has requests and has made no token for {stalled:.0f} s"
            elif self.phase is Phase.STARTING:
                if now - watched_since >= self._patience.start_seconds:
                    return f"not healthy {now - watched_since:.0f} s after its start"
            else:
                well_since = None
                self.is_ready = False
                self._enter(Phase.SICK, health.reason)
                if now - last_well >= self._patience.health_seconds:
                    return f"not healthy for {now - last_well:.0f} s: {health.reason}"
            if now - kin_seen >= KIN_SECONDS or self.phase is Phase.STARTING:
                kin_seen = now
                kin = {member for member in self._kin if member.is_alive}
                self._kin = kin | await asyncio.to_thread(family, process.record.pid)
            await asyncio.sleep(self._poll_seconds())

    async def _seen_well(self, *, well_for: float) -> None:
        if well_for >= self._restarts.policy.stable_seconds:
            self._restarts.stable()
        path = self.program.ready_path
        reason = ""
        if path != self.program.alive_path:
            reason = (await asyncio.to_thread(look, self.program.url + path)).reason
        was_ready, self.is_ready = self.is_ready, not reason
        if self.phase is not Phase.UP:
            self._say(f"{self.program.name} is up at {self.program.url}")
        if self.is_ready is not was_ready and path != self.program.alive_path:
            self._say(f"{self.program.name} is {reason or 'ready'}")
        self._enter(Phase.UP, reason)

    def _poll_seconds(self) -> float:
        """Impatient until it is up, so that a start is seen when it happens."""
        longest = self._patience.poll_seconds
        is_calm = self.phase is Phase.UP and self.is_ready
        return longest if is_calm else min(longest, STARTING_POLL_SECONDS)

    def _stay_down(self, reason: str) -> None:
        self._say(f"{self.program.name} STAYS DOWN: {reason}")
        for line in last_lines(self.program.output):
            self._say(f"{self.program.name} said: {line}")
        self._enter(Phase.DOWN, reason)

    def _logs(self) -> str:
        return " and ".join(dict.fromkeys((str(self.program.log), str(self.program.output))))

    def _enter(self, phase: Phase, reason: str) -> None:
        if (phase, reason) != (self.phase, self._reason):
            self.phase, self._reason = phase, reason
            self._changed()


def last_lines(log: Path) -> list[str]:
    """What a program said before it ended, a few lines of it."""
    try:
        with log.open("rb") as output:
            output.seek(max(output.seek(0, os.SEEK_END) - LAST_BYTES, 0))
            lines = output.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-LAST_LINES:]
