"""CircuitBreaker: decides, without I/O, whether an upstream may be asked just now.

    CLOSED ----- too many failures -----> OPEN
    OPEN ------- the open time passed, or `hint_recovered` -----> HALF_OPEN
    HALF_OPEN -- `half_open_probes` successes -----> CLOSED
    HALF_OPEN -- one failure, opens for longer than before -----> OPEN

A probe that runs for `probe_seconds` makes room for another one; its verdict still counts.

The pattern is Nygard's ("Release It!"), the words are resilience4j's.
"""

import random as _random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from gateway.clock import Clock

_BUCKETS = 10
_PROBE_PAUSE_SECONDS = 1.0


class BreakerState(Enum):
    """CLOSED lets calls through, OPEN none, HALF_OPEN a fixed number of probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """When to open, for how long, and what closes it again.

    Opens on `failure_threshold` failures in a row, or once `failure_ratio` of at least
    `ratio_minimum_calls` calls in the last `ratio_window_seconds` have failed. Stays open for
    `open_seconds`, times `open_growth` for each opening that follows, plus or minus
    `jitter_ratio`, and never longer than `open_max_seconds`. While half open, the probes wait
    for each other for `probe_seconds` at most: one long call must not keep everybody out.
    Raises ValueError where a value could never work.
    """

    failure_threshold: int = 5
    failure_ratio: float = 0.5
    ratio_minimum_calls: int = 20
    ratio_window_seconds: float = 10.0
    open_seconds: float = 5.0
    open_growth: float = 2.0
    open_max_seconds: float = 60.0
    jitter_ratio: float = 0.1
    half_open_probes: int = 1
    probe_seconds: float = 10.0

    def __post_init__(self) -> None:
        rules = (
            (self.failure_threshold >= 1, "failure_threshold must be at least 1"),
            (0 < self.failure_ratio <= 1, "failure_ratio must be above 0 and at most 1"),
            (self.ratio_minimum_calls >= 1, "ratio_minimum_calls must be at least 1"),
            (self.ratio_window_seconds > 0, "ratio_window_seconds must be above 0"),
            (self.open_seconds > 0, "open_seconds must be above 0"),
            (self.open_growth >= 1, "open_growth must be at least 1"),
            (self.open_max_seconds >= self.open_seconds, "open_max_seconds is below open_seconds"),
            (0 <= self.jitter_ratio < 1, "jitter_ratio must be at least 0 and below 1"),
            (self.half_open_probes >= 1, "half_open_probes must be at least 1"),
            (self.probe_seconds > 0, "probe_seconds must be above 0"),
        )
        broken = [sentence for holds, sentence in rules if not holds]
        if broken:
            raise ValueError("; ".join(broken))


class CallNotPermitted(Exception):
    """`acquire` was called although `permits` is false; it may be true in `retry_after_seconds`."""

    def __init__(self, *, retry_after_seconds: float) -> None:
        super().__init__(f"the breaker permits no call for {retry_after_seconds:.1f} s")
        self.retry_after_seconds = retry_after_seconds


def _ignore_transition(_before: BreakerState, _after: BreakerState) -> None:
    pass


class CircuitBreaker:
    """One upstream's breaker. Look at `permits` and `acquire` in the same tick.

    `on_transition(before, after)` is told of every change once it is made.
    """

    def __init__(
        self,
        config: BreakerConfig,
        *,
        clock: Clock,
        random: Callable[[], float] = _random.random,
        on_transition: Callable[[BreakerState, BreakerState], None] = _ignore_transition,
    ) -> None:
        self._config = config
        self._monotonic = clock.monotonic
        self._random = random
        self._on_transition = on_transition

        self._state = BreakerState.CLOSED
        self._is_closed = True
        self._generation = 0
        self._failures_in_a_row = 0
        self._recent = _RecentCalls(config.ratio_window_seconds)
        self._closed_at = self._monotonic()
        self._open_until = self._closed_at
        self._open_seconds = 0.0
        self._probes_running = 0
        self._probes_succeeded = 0
        # Probes are sent in rounds; one of an earlier round no longer takes up a place.
        self._round = 0
        self._probed_at = self._closed_at

    @property
    def state(self) -> BreakerState:
        """The state now; an open time that has passed is noticed here."""
        if self._state is BreakerState.OPEN and self._monotonic() >= self._open_until:
            self._enter_half_open()
        return self._state

    @property
    def permits(self) -> bool:
        """Whether `acquire` would give a permit now."""
        if self._is_closed:
            return True
        if self.state is BreakerState.OPEN:
            return False
        # A probe that succeeded keeps its place: N probes are sent in all, and all must succeed.
        if self._probes_running + self._probes_succeeded < self._config.half_open_probes:
            return True
        if self._monotonic() < self._probed_at + self._config.probe_seconds:
            return False
        self._round += 1
        self._probes_running = 0
        return True

    @property
    def retry_after_seconds(self) -> float:
        """The rest of the open time; 0 if calls are permitted; a guess if every probe is out."""
        if self.permits:
            return 0.0
        if self._state is BreakerState.HALF_OPEN:
            return _PROBE_PAUSE_SECONDS
        return self._open_until - self._monotonic()

    def acquire(self) -> "Permit":
        """Take a permit, which in HALF_OPEN is one of the probes. Raises CallNotPermitted."""
        if self._is_closed:
            return Permit(self, self._generation, self._round, is_probe=False)
        if not self.permits:
            raise CallNotPermitted(retry_after_seconds=self.retry_after_seconds)
        self._probes_running += 1
        self._probed_at = self._monotonic()
        return Permit(self, self._generation, self._round, is_probe=True)

    def record_failure(self) -> None:
        """A call failed whose permit had been given back: a good beginning, then no end.

        Counts while CLOSED. OPEN needs no telling, and in HALF_OPEN it is for probes to decide.
        """
        if self._is_closed:
            self._failed(self._generation)

    def hint_recovered(self) -> None:
        """An outside prober saw the upstream come back: probe now rather than later.

        It never closes the breaker. A vLLM whose engine is stuck still answers /health.
        """
        if self._state is BreakerState.OPEN:
            self._enter_half_open()

    def _succeeded(self, generation: int, probe_round: int) -> None:
        if generation != self._generation:
            return
        if self._is_closed:
            self._failures_in_a_row = 0
            self._recent.count(self._monotonic(), failures=0)
            return
        self._leave_place(probe_round)
        self._probes_succeeded += 1
        if self._probes_succeeded == self._config.half_open_probes:
            self._enter_closed()

    def _failed(self, generation: int) -> None:
        if generation != self._generation:
            return
        if not self._is_closed:
            self._enter_open(grown=True)
            return

        now = self._monotonic()
        self._failures_in_a_row += 1
        self._recent.count(now, failures=1)
        if self._has_failed_too_often():
            # An upstream that answers a probe and falls over again keeps its long pauses: the
            # growth is forgotten once it has stayed closed as long as it was last open.
            is_relapse = now - self._closed_at < self._open_seconds
            self._enter_open(grown=is_relapse)

    def _released(self, generation: int, probe_round: int) -> None:
        # A cancelled probe proves nothing: return the permit, keep the state.
        if generation == self._generation and not self._is_closed:
            self._leave_place(probe_round)

    def _leave_place(self, probe_round: int) -> None:
        if probe_round == self._round:
            self._probes_running -= 1

    def _has_failed_too_often(self) -> bool:
        config, recent = self._config, self._recent
        if self._failures_in_a_row >= config.failure_threshold:
            return True
        is_enough = recent.calls >= config.ratio_minimum_calls
        return is_enough and recent.failures >= config.failure_ratio * recent.calls

    def _enter_open(self, *, grown: bool) -> None:
        config = self._config
        wanted = self._open_seconds * config.open_growth if grown else config.open_seconds
        # Below the maximum by the jitter, so that the longest pauses are spread out as well.
        self._open_seconds = min(wanted, config.open_max_seconds / (1 + config.jitter_ratio))
        jitter = 1 + config.jitter_ratio * (2 * self._random() - 1)
        self._open_until = self._monotonic() + self._open_seconds * jitter
        self._enter(BreakerState.OPEN)

    def _enter_half_open(self) -> None:
        self._probes_running = 0
        self._probes_succeeded = 0
        self._enter(BreakerState.HALF_OPEN)

    def _enter_closed(self) -> None:
        self._failures_in_a_row = 0
        self._recent = _RecentCalls(self._config.ratio_window_seconds)
        self._closed_at = self._monotonic()
        self._enter(BreakerState.CLOSED)

    def _enter(self, state: BreakerState) -> None:
        before, self._state = self._state, state
        self._is_closed = state is BreakerState.CLOSED
        # Permits of the generation that ends here no longer count.
        self._generation += 1
        self._on_transition(before, state)


class Permit:
    """Leave for one call, to be given back with a verdict. The first verdict is the only one."""

    __slots__ = ("_breaker", "_generation", "_is_spent", "_round", "is_probe")

    def __init__(
        self, breaker: CircuitBreaker, generation: int, probe_round: int, *, is_probe: bool
    ) -> None:
        self._breaker = breaker
        self._generation = generation
        self._round = probe_round
        self._is_spent = False
        self.is_probe = is_probe

    def succeed(self) -> None:
        """The upstream answered as it should, be it with a 4xx."""
        if not self._is_spent:
            self._is_spent = True
            self._breaker._succeeded(self._generation, self._round)

    def fail(self) -> bool:
        """The upstream did not answer, or not as it should. False: there was a verdict before."""
        if self._is_spent:
            return False
        self._is_spent = True
        self._breaker._failed(self._generation)
        return True

    def release(self) -> None:
        """Nothing was learnt: the client left, or the call was never sent."""
        if not self._is_spent:
            self._is_spent = True
            self._breaker._released(self._generation, self._round)


class _RecentCalls:
    """Calls and failures of a sliding window, in buckets of a tenth of it: constant memory.

    `calls` and `failures` are right as of the last `count`.
    """

    __slots__ = (
        "_bucket_seconds",
        "_calls",
        "_failures",
        "_newest",
        "calls",
        "failures",
    )

    def __init__(self, window_seconds: float) -> None:
        self._bucket_seconds = window_seconds / _BUCKETS
        self._newest = 0
        self._calls = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS
        self.calls = 0
        self.failures = 0

    def count(self, now: float, *, failures: int) -> None:
        bucket = int(now / self._bucket_seconds)
        if bucket != self._newest:
            self._forget_until(bucket)
        place = bucket % _BUCKETS
        self._calls[place] += 1
        self._failures[place] += failures
        self.calls += 1
        self.failures += failures

    def _forget_until(self, bucket: int) -> None:
        for passed in range(max(self._newest + 1, bucket - _BUCKETS + 1), bucket + 1):
            place = passed % _BUCKETS
            self.calls -= self._calls[place]
            self.failures -= self._failures[place]
            self._calls[place] = self._failures[place] = 0
        self._newest = bucket
