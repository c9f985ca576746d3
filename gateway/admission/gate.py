"""AdmissionGate: a bounded number of requests in flight, and a short, fair queue of bounded waits.

A longer queue only makes everybody late (AWS Builders' Library on load shedding; the Google SRE
book on overload), so what does not fit, or would not be served in time, is refused at once with
the time when to come back.
"""

import asyncio
import math
from dataclasses import dataclass

from gateway.admission.pace import Pace
from gateway.admission.place import Line, Place, Rooms, Unbounded, Verdict
from gateway.admission.queue import FairQueue
from gateway.clock import Clock
from gateway.errors import Overloaded

FULL_GATEWAY = "The gateway is full"
FULL_MODEL = "Every replica of this model has as many calls as it may take"
FULL_SHARE = "The gateway is full, and this key has its share of the queue"

_SHORTEST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class AdmissionConfig:
    """`max_in_flight` None admits everything. Raises ValueError where nothing could pass."""

    max_in_flight: int | None
    max_queued: int
    queue_timeout_seconds: float

    def __post_init__(self) -> None:
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1, or None for no bound")
        if self.max_queued < 0 or self.queue_timeout_seconds < 0:
            raise ValueError("max_queued and queue_timeout_seconds must not be negative")


class AdmissionGate:
    """Grants places in flight: of all there are, and of those that the replicas of a model have.

    A place that becomes free is handed in the same tick to the one in the queue whose turn it is
    (see FairQueue), so nobody overtakes: whoever waits has nothing free to wait for.
    """

    def __init__(
        self, config: AdmissionConfig, *, clock: Clock, rooms: Rooms | None = None
    ) -> None:
        self._config = config
        self._most = math.inf if config.max_in_flight is None else config.max_in_flight
        self._monotonic = clock.monotonic
        self._rooms: Rooms = rooms or Unbounded()
        self._in_flight = 0
        self._running: dict[str, int] = {}
        # By key and model, while replicas have bounds: then it is a model's places that are shared.
        self._running_at: dict[tuple[str, str], int] = {}
        self._queue = FairQueue(running=self._running_of, running_in=self._running_in)
        # Granted, and not yet at a replica: a tick lies between. Lines may share their replicas,
        # so that a promise to one counts for all.
        self._promised = 0
        self._pace = Pace(clock)
        self._had_places = True
        self._arrivals = 0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def queued(self) -> int:
        return self._queue.size

    def admit(self, key: str, line: Line) -> "Admission":
        """Use as `async with gate.admit(...) as waited_seconds:`. Entering raises Overloaded."""
        return Admission(self, key, line)

    def take(self, key: str, line: Line) -> Place | None:
        """Take a place (None), or stand in the queue. Raises Overloaded when that is of no use.

        The caller asks a replica in the same tick.
        """
        has_place = self._in_flight < self._most
        # Where replicas have no bound, a free place means that nobody waits.
        if has_place and (not self._rooms.is_bounded or self._is_open(line)):
            self._start(key, line)
            return None
        self._make_room_for(key, line, what_is_full=FULL_MODEL if has_place else FULL_GATEWAY)
        self._arrivals += 1
        verdict = asyncio.get_running_loop().create_future()
        place = Place(key, line, self._arrivals, verdict)
        self._queue.add(place)
        if has_place:
            self._pass_on()  # Room may have come by itself: a bound was raised, a circuit closed.
        return place

    async def wait(self, place: Place) -> float:
        """Wait for a place in the queue to become one in flight; returns how long it took.

        Raises Overloaded after `queue_timeout_seconds`, or when it has to give way. Cancelled, it
        leaves nothing behind. The caller asks a replica in the tick in which this returns.
        """
        since = self._monotonic()
        patience_seconds = self._config.queue_timeout_seconds
        loop = place.verdict.get_loop()
        timer = loop.call_later(patience_seconds, self._end, place, Verdict.OUT_OF_PATIENCE)
        try:
            verdict = await place.verdict
        except asyncio.CancelledError:
            self._leave(place)
            raise
        finally:
            timer.cancel()
        if verdict is Verdict.ADMITTED:
            self._promised -= 1
            if self._queue.size and self._rooms.is_bounded:
                loop.call_soon(self._pass_on)  # What the promise held back may be free after all.
            return self._monotonic() - since
        if verdict is Verdict.GAVE_WAY:
            raise self._overloaded("This call gave way to keys with fewer calls", place.line)
        what = f"No place became free within QUEUE_TIMEOUT_SECONDS={patience_seconds:g}"
        raise self._overloaded(what, place.line)

    def give_back(self, key: str, line: Line) -> None:
        """A request has ended: its place goes to the next in the queue, if there is one."""
        self._in_flight -= 1
        running = self._running.pop(key)
        if running > 1:
            self._running[key] = running - 1
        if self._running_at:
            self._leave_model(key, line[0])
        if self._queue.size:
            self._pace.note()
            self._queue.moved(key)
            self._pass_on()
        elif self._config.max_queued:
            self._had_places = True
        else:
            self._pace.note()

    def _pass_on(self) -> None:
        """Grant what is free to those whose turn it is."""
        while self._in_flight < self._most:
            place = self._queue.take_next(self._has_room)
            if place is None:
                return
            # Who was cancelled in this very tick is on its way out, and takes none.
            if not place.verdict.done():
                self._start(place.key, place.line)
                self._queue.moved(place.key)
                self._promised += 1
                place.verdict.set_result(Verdict.ADMITTED)

    def _start(self, key: str, line: Line) -> None:
        self._in_flight += 1
        self._running[key] = self._running.get(key, 0) + 1
        if self._rooms.is_bounded:
            at = key, line[0]
            self._running_at[at] = self._running_at.get(at, 0) + 1

    def _leave_model(self, key: str, model: str) -> None:
        # A call may have begun before there were bounds, uncounted: counts are never below 1.
        running = self._running_at.pop((key, model), 0)
        if running > 1:
            self._running_at[key, model] = running - 1

    def _running_of(self, key: str) -> int:
        return self._running.get(key, 0)

    def _running_in(self, key: str, line: Line) -> int:
        if self._rooms.is_bounded:
            return self._running_at.get((key, line[0]), 0)
        return self._running.get(key, 0)

    def _is_open(self, line: Line) -> bool:
        """Whether a newcomer may go straight on: a replica has room, and nobody waits for it."""
        return not self._queue.waits_in(line) and self._has_room(line)

    def _has_room(self, line: Line) -> bool:
        return self._rooms.has_room(line, promised=self._promised)

    def _make_room_for(self, key: str, line: Line, *, what_is_full: str) -> None:
        """Raises Overloaded unless this key may wait for a place in this line.

        Up to its share of all that run and may wait a key is let in, at the cost of the greediest
        if there is no room. Beyond that it takes at most half as much of the queue as it leaves
        free (the dynamic thresholds of Choudhury and Hahne), so that who comes next seldom finds it
        full: whoever gives way has waited in vain.
        """
        config, queue = self._config, self._queue
        if not config.max_queued:
            raise self._overloaded(what_is_full, line)
        if self._had_places:
            self._had_places = False
            self._pace.forget()
        wait_seconds = self._pace.seconds_for(queue.turns_before(key, line) + 1)
        if wait_seconds is not None and wait_seconds > config.queue_timeout_seconds:
            raise self._overloaded(
                f"{what_is_full}, and the queue would take longer than"
                f" QUEUE_TIMEOUT_SECONDS={config.queue_timeout_seconds:g}",
                line,
            )
        calls, waiting = queue.calls_of(key) + 1, queue.waits_of(key) + 1
        free = config.max_queued - queue.size
        if calls > self._share_of(key) and 2 * waiting > free + 1:
            raise self._overloaded(FULL_SHARE if free else what_is_full, line)
        if free:
            return
        place = queue.take_greediest(beyond=calls)
        if place is None:
            raise self._overloaded(what_is_full, line)
        self._end(place, Verdict.GAVE_WAY)

    def _share_of(self, key: str) -> float:
        """An even part of what runs and may wait, for the keys that have something running."""
        keys = len(self._running) + (key not in self._running)
        return (self._in_flight + self._config.max_queued) / keys

    def _end(self, place: Place, verdict: Verdict) -> None:
        if not place.verdict.done():
            self._queue.remove(place)
            place.verdict.set_result(verdict)

    def _leave(self, place: Place) -> None:
        """Its request was cancelled while it waited, or in the tick of its verdict."""
        self._queue.remove(place)
        if not place.verdict.cancelled() and place.verdict.result() is Verdict.ADMITTED:
            # Nobody will use the place, so pass it on.
            self._promised -= 1
            self.give_back(place.key, place.line)

    def _overloaded(self, what_happened: str, line: Line) -> Overloaded:
        config = self._config
        wait_seconds = self._pace.seconds_for(self._queue.waits_in(line) + 1)
        wait_seconds = _SHORTEST_RETRY_SECONDS if wait_seconds is None else wait_seconds
        wait_seconds = min(max(wait_seconds, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)
        in_flight_max = "off" if config.max_in_flight is None else config.max_in_flight
        return Overloaded(
            f"{what_happened}: {self._in_flight} requests are running"
            f" (MAX_IN_FLIGHT={in_flight_max}) and {self.queued} are waiting"
            f" (MAX_QUEUED={config.max_queued}). Try again in {wait_seconds:.0f} s.",
            retry_after_seconds=wait_seconds,
        )


class Admission:
    """One request's way through the gate, from entering to leaving the `async with` block."""

    __slots__ = ("_gate", "_key", "_line")

    def __init__(self, gate: AdmissionGate, key: str, line: Line) -> None:
        self._gate = gate
        self._key = key
        self._line = line

    async def __aenter__(self) -> float:
        """Returns the seconds spent in the queue. Does not suspend while there is a place."""
        place = self._gate.take(self._key, self._line)
        return 0.0 if place is None else await self._gate.wait(place)

    async def __aexit__(self, *_exc_info: object) -> None:
        self._gate.give_back(self._key, self._line)
