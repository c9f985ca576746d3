"""When a program that ended is started again, and when it has had its chances."""

from dataclasses import dataclass
from random import Random

# 2: a wrong command line, and what launch_vllm.sh refuses; 78: EX_CONFIG of sysexits.h.
CONFIGURATION_CODES = frozenset({2, 78})
_SPREAD = 0.2
_DOUBLINGS_MAX = 30


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`restarts_max` in a row; a program that was healthy for `stable_seconds` begins anew."""

    backoff_seconds: float
    backoff_max_seconds: float
    restarts_max: int
    stable_seconds: float


class Restarts:
    """Counts the restarts of one program."""

    def __init__(self, policy: RestartPolicy, *, random: Random) -> None:
        self.policy = policy
        self.total = 0
        self._in_a_row = 0
        self._random = random

    def stable(self) -> None:
        """It ran well for long enough: what was before says nothing any more."""
        self._in_a_row = 0

    def next_delay(self) -> float | None:
        """Seconds until the next start, doubled each time and spread by a fifth; None: no more."""
        if self._in_a_row >= self.policy.restarts_max:
            return None
        doublings = min(self._in_a_row, _DOUBLINGS_MAX)
        self._in_a_row += 1
        self.total += 1
        delay = min(self.policy.backoff_seconds * 2.0**doublings, self.policy.backoff_max_seconds)
        return delay * self._random.uniform(1 - _SPREAD, 1 + _SPREAD)
