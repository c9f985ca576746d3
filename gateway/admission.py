"""AdmissionGate: a bounded number of requests in flight, and a short queue of bounded waits.

A longer queue only makes everybody late (AWS Builders' Library on load shedding; the Google SRE
book on overload), so what does not fit is refused at once, with the time when to come back.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.errors import Overloaded

_REMEMBERED_COMPLETIONS = 64
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
    """Grants places in flight; whoever finds none free waits first come, first served.

    A place that becomes free is handed to the next in the queue in the same tick, so nobody
    overtakes: while somebody waits, every place is taken.
    """

    def __init__(self, config: AdmissionConfig, *, clock: Clock) -> None:
        self._config = config
        self._monotonic = clock.monotonic
        self._in_flight = 0
        # Who waits, oldest first. A result of True is a place, False the end of patience.
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._completions: deque[float] = deque(maxlen=_REMEMBERED_COMPLETIONS)

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def admit(self) -> "Admission":
        """Use as `async with gate.admit() as waited_seconds:`. Entering raises Overloaded."""
        return Admission(self)

    def take(self) -> asyncio.Future[bool] | None:
        """Take a place (None), or stand in the queue. Raises Overloaded when that is full."""
        config = self._config
        if config.max_in_flight is None or self._in_flight < config.max_in_flight:
            self._in_flight += 1
            return None
        if len(self._waiting) >= config.max_queued:
            raise self._overloaded("The gateway is full")
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        return place

    async def wait(self, place: asyncio.Future[bool]) -> float:
        """Wait for a place in the queue to become one in flight; returns how long it took.

        Raises Overloaded after `queue_timeout_seconds`. Cancelled, it leaves nothing behind.
        """
        since = self._monotonic()
        patience_seconds = self._config.queue_timeout_seconds
        timer = place.get_loop().call_later(patience_seconds, self._give_up, place)
        try:
            is_granted = await place
        except asyncio.CancelledError:
            self._leave_queue(place)
            raise
        finally:
            timer.cancel()
        if not is_granted:
            raise self._overloaded(
                f"No place became free within QUEUE_TIMEOUT_SECONDS={patience_seconds:g}"
            )
        return self._monotonic() - since

    def give_back(self) -> None:
        """A request has ended: its place goes to the next in the queue, if there is one."""
        if self._config.max_in_flight is not None:
            self._completions.append(self._monotonic())
        self._pass_on()

    def _pass_on(self) -> None:
        # The one place that knows the order: fairness between keys would be decided here.
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(True)
                return
        self._in_flight -= 1

    def _give_up(self, place: asyncio.Future[bool]) -> None:
        if not place.done():
            self._waiting.remove(place)
            place.set_result(False)

    def _leave_queue(self, place: asyncio.Future[bool]) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
        elif not place.cancelled() and place.result():
            # Granted and cancelled in the same tick: nobody will use the place, so pass it on.
            self._pass_on()

    def _overloaded(self, what_happened: str) -> Overloaded:
        config = self._config
        retry_after_seconds = self._expected_wait_seconds()
        return Overloaded(
            f"{what_happened}: {self._in_flight} requests are running"
            f" (MAX_IN_FLIGHT={config.max_in_flight}) and {self.queued} are waiting"
            f" (MAX_QUEUED={config.max_queued}). Try again in {retry_after_seconds:.0f} s.",
            retry_after_seconds=retry_after_seconds,
        )

    def _expected_wait_seconds(self) -> float:
        """How long the queue, and one more behind it, takes at the recent rate of completions."""
        intervals = len(self._completions) - 1
        if intervals < 1:
            return _SHORTEST_RETRY_SECONDS  # Nothing is known yet: a fresh gateway is kind.
        # Measured up to now, so that an upstream that has stopped answering slows the estimate.
        observed_seconds = self._monotonic() - self._completions[0]
        expected_seconds = (self.queued + 1) * observed_seconds / intervals
        return min(max(expected_seconds, _SHORTEST_RETRY_SECONDS), _LONGEST_RETRY_SECONDS)


class Admission:
    """One request's way through the gate, from entering to leaving the `async with` block."""

    __slots__ = ("_gate",)

    def __init__(self, gate: AdmissionGate) -> None:
        self._gate = gate

    async def __aenter__(self) -> float:
        """Returns the seconds spent in the queue. Does not suspend while there is a place."""
        place = self._gate.take()
        return 0.0 if place is None else await self._gate.wait(place)

    async def __aexit__(self, *_exc_info: object) -> None:
        self._gate.give_back()
