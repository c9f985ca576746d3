"""The two kinds of load: users who wait for their answers, and arrivals that wait for nobody."""

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from time import monotonic
from typing import Final, Protocol

from scripts.loadtest.arrivals import Arrivals, due_times
from scripts.loadtest.caller import Caller
from scripts.loadtest.distribution import Distribution, distribution
from scripts.loadtest.exchange import Exchange
from scripts.loadtest.plan import Plan
from scripts.loadtest.recorder import Recorder

# The event loop keeps time in milliseconds. Half of one too early is nearer than one too late.
_EARLY_SECONDS: Final = 0.0005
# Arrivals sent at one go after a stall; then the answers that came meanwhile get their turn.
_MOST_AT_ONCE: Final = 256


class Load(Protocol):
    """Something that sends requests until the plan's end."""

    @property
    def is_over(self) -> bool:
        """True once every request that was due has been sent."""

    def start(self) -> None:
        """Begin now, or as the plan's start says."""

    def stop(self) -> None:
        """No request from now on, due or not."""


class Desk:
    """Where a request is made, recorded and sent."""

    def __init__(
        self, plan: Plan, *, requests: Iterator[bytes], recorder: Recorder, caller: Caller
    ) -> None:
        self._plan = plan
        self._requests = requests
        self._recorder = recorder
        self._caller = caller

    @property
    def outstanding(self) -> int:
        return self._caller.in_flight

    def send(self, intended_at: float, on_end: Callable[[Exchange], None]) -> None:
        """Send one request that was due at that time."""
        exchange = Exchange(
            next(self._requests),
            is_stream=self._plan.is_stream,
            intended_at=intended_at,
            deadline=intended_at + self._plan.timeout_seconds,
            on_end=on_end,
        )
        self._recorder.begin(exchange)
        self._caller.call(exchange)

    def record(self, exchange: Exchange) -> None:
        self._recorder.end(exchange)

    def turn_away(self, due_at: float) -> None:
        """A request that cannot be sent any more."""
        self._recorder.not_sent(due_at)


class ClosedLoop:
    """Users each of whom asks, waits for the answer, thinks, and asks again."""

    def __init__(self, plan: Plan, desk: Desk) -> None:
        self._plan = plan
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._think: Distribution = distribution(plan.think_seconds)
        self._random = Random(f"think:{plan.seed}:{plan.worker}")
        self._is_stopped = False

    @property
    def is_over(self) -> bool:
        return self._is_stopped or monotonic() >= self._plan.end_at

    def start(self) -> None:
        users = self._plan.concurrency
        for user in range(users):
            joins_at = self._plan.start_at + self._plan.ramp_seconds * user / users
            self._loop.call_at(joins_at, self._ask)

    def stop(self) -> None:
        self._is_stopped = True

    def _ask(self) -> None:
        if not self.is_over:
            self._desk.send(monotonic(), self._answered)

    def _answered(self, exchange: Exchange) -> None:
        self._desk.record(exchange)
        pause = self._think.draw(self._random)
        if exchange.failure is not None:
            # A server that refuses at once must not be asked again at once, for ever.
            pause = max(pause, self._plan.failure_pause_seconds)
        if pause:
            self._loop.call_later(pause, self._ask)
        else:
            self._ask()


class OpenLoop:
    """Requests that come when they come, whatever the server does with them.

    Too many outstanding: a request that is due is not sent, and counted as such. What is overdue at
    the end, because this process was late, is sent all the same.
    """

    def __init__(self, plan: Plan, desk: Desk) -> None:
        self._plan = plan
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._due = due_times(
            Arrivals(plan.arrivals),
            rate=plan.rate,
            ramp_seconds=plan.ramp_seconds,
            phase=plan.worker / plan.workers,
            random=Random(f"arrivals:{plan.seed}:{plan.worker}"),
        )
        self._next_at = plan.start_at + next(self._due)
        self._is_stopped = False

    @property
    def is_over(self) -> bool:
        return self._is_stopped or self._next_at >= self._plan.end_at

    def start(self) -> None:
        self._loop.call_at(self._next_at, self._send_due)

    def stop(self) -> None:
        self._is_stopped = True

    def _send_due(self) -> None:
        now = monotonic()
        sent = 0
        while self._next_at <= now + _EARLY_SECONDS and sent < _MOST_AT_ONCE:
            if self.is_over:
                return
            sent += 1
            if self._desk.outstanding >= self._plan.max_outstanding:
                self._desk.turn_away(self._next_at)
            else:
                self._desk.send(min(self._next_at, now), self._desk.record)
            self._next_at = self._plan.start_at + next(self._due)
        self._loop.call_at(self._next_at, self._send_due)
