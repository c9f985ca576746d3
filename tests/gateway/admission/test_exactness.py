"""No place is ever lost or given twice, whoever comes, ends, is cancelled or gives up, and when."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.admission import AdmissionConfig, AdmissionGate, Line
from gateway.clock import SystemClock
from gateway.errors import Overloaded
from gateway.exchange import Operation

# The first two are answered by the same replicas.
LINES: tuple[Line, ...] = (
    ("m", Operation.CHAT),
    ("m", Operation.MESSAGES),
    ("n", Operation.CHAT),
    ("o", Operation.CHAT),
)
SLOTS = {"m": 1, "n": 2, "o": 100}
MOST_IN_FLIGHT, MOST_QUEUED, IMPATIENT_SECONDS = 3, 4, 0.002


class Replicas:
    """Rooms whose slots are taken by those who are inside, in the tick in which they enter."""

    is_bounded = True

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    def has_room(self, line: Line, *, promised: int) -> bool:
        return self.taken[line[0]] + promised < SLOTS[line[0]]


@dataclass(frozen=True)
class Arrival:
    key: str
    line: Line


@dataclass(frozen=True)
class End:
    """One of the calls inside has its answer."""

    number: int


@dataclass(frozen=True)
class Cancel:
    """The client of one of the calls that are inside or wait leaves."""

    number: int


@dataclass(frozen=True)
class Tick:
    """The loop turns, so many times."""

    turns: int


@dataclass(frozen=True)
class Impatience:
    """Time passes until everybody who still waits has given up."""


Step = Arrival | End | Cancel | Tick | Impatience
NUMBERS = st.integers(0, 30)
ARRIVALS = st.builds(Arrival, st.sampled_from("abc"), st.sampled_from(LINES))
ENDS, CANCELS, TICKS = (
    st.builds(End, NUMBERS),
    st.builds(Cancel, NUMBERS),
    st.builds(Tick, st.integers(1, 4)),
)
STEPS = st.lists(
    st.one_of(ARRIVALS, ARRIVALS, ENDS, CANCELS, TICKS, TICKS), min_size=20, max_size=80
)
HISTORIES = st.tuples(STEPS, st.lists(st.just(Impatience()), max_size=1), STEPS).map(
    lambda parts: [*parts[0], *parts[1], *parts[2]]
)


class Story:
    """A gate, and all who ever came to it."""

    def __init__(self) -> None:
        self.rooms = Replicas()
        config = AdmissionConfig(MOST_IN_FLIGHT, MOST_QUEUED, IMPATIENT_SECONDS)
        self.gate = AdmissionGate(config, clock=SystemClock(), rooms=self.rooms)
        self.inside: Counter[str] = Counter()
        self.calls: list[tuple[asyncio.Task[None], asyncio.Event]] = []
        self.answerable: list[asyncio.Event] = []

    async def play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            await self._play(step)
            self.require_bounds()
        for _, answered in self.calls:
            answered.set()
        endings = await asyncio.gather(*(task for task, _ in self.calls), return_exceptions=True)
        assert {type(e) for e in endings} <= {type(None), Overloaded, asyncio.CancelledError}

    async def _play(self, step: Step) -> None:
        match step:
            case Arrival(key, line):
                answered = asyncio.Event()
                task = asyncio.create_task(self._call(key, line, answered))
                self.calls.append((task, answered))
            case End(number) if self.answerable:
                self.answerable.pop(number % len(self.answerable)).set()
            case Cancel(number):
                alive = [task for task, _ in self.calls if not task.done()]
                if alive:
                    alive[number % len(alive)].cancel()
            case Tick(turns):
                for _ in range(turns):
                    await asyncio.sleep(0)
                    self.require_bounds()
            case Impatience():
                while self.gate.queued:
                    await asyncio.sleep(IMPATIENT_SECONDS)

    async def _call(self, key: str, line: Line, answered: asyncio.Event) -> None:
        async with self.gate.admit(key, line):
            self.rooms.taken[line[0]] += 1
            self.inside[key] += 1
            self.answerable.append(answered)
            try:
                await answered.wait()
            finally:
                if answered in self.answerable:
                    self.answerable.remove(answered)
                self.inside[key] -= 1
                self.rooms.taken[line[0]] -= 1

    def require_bounds(self) -> None:
        assert self.gate.in_flight <= MOST_IN_FLIGHT
        assert self.gate.queued <= MOST_QUEUED
        assert self.inside.total() <= self.gate.in_flight
        assert all(taken <= SLOTS[model] for model, taken in self.rooms.taken.items())

    async def require_no_use_of_waiting(self) -> None:
        """Once all is calm, whoever waits has nothing free to wait for."""
        for _ in range(5):
            await asyncio.sleep(0)
        assert self.inside.total() == self.gate.in_flight
        if self.gate.in_flight < MOST_IN_FLIGHT:
            waiting = [line for line in LINES if self.gate._queue.waits_in(line)]
            assert not [line for line in waiting if self.rooms.has_room(line, promised=0)]


@given(HISTORIES)
@settings(max_examples=120, deadline=None)
def test_every_place_is_given_back_once(steps: list[Step]) -> None:
    async def told() -> None:
        async with asyncio.timeout(60):
            story = Story()
            await story.play(steps)
            gate = story.gate
            assert (gate.in_flight, gate.queued, gate._promised) == (0, 0, 0)
            assert (gate._running, gate._running_at) == ({}, {})
            for _ in range(MOST_IN_FLIGHT):
                assert gate.take("later", LINES[3]) is None
            assert gate.take("later", LINES[3]) is not None

    asyncio.run(told())


@given(HISTORIES)
@settings(max_examples=80, deadline=None)
def test_nobody_waits_beside_a_free_place(steps: list[Step]) -> None:
    async def told() -> None:
        async with asyncio.timeout(60):
            story = Story()
            for step in steps:
                await story._play(step)
            await story.require_no_use_of_waiting()
            for task, _ in story.calls:
                task.cancel()
            await asyncio.gather(*(task for task, _ in story.calls), return_exceptions=True)

    asyncio.run(told())
