"""When an open loop's requests are due, whatever the server does."""

import math
from collections.abc import Iterator
from enum import StrEnum
from random import Random


class Arrivals(StrEnum):
    """Poisson: users who know nothing of each other; constant: a metronome."""

    POISSON = "poisson"
    CONSTANT = "constant"


def due_times(
    arrivals: Arrivals, *, rate: float, ramp_seconds: float, phase: float, random: Random
) -> Iterator[float]:
    """Seconds from the start at which requests are due, for ever.

    During the ramp the rate grows linearly from nothing to `rate`. `phase` (0 to 1) shifts a
    metronome, so that those of several workers interleave to an even one.
    """
    ramped = rate * ramp_seconds / 2
    expected = phase if arrivals is Arrivals.CONSTANT else 0.0
    while True:
        if arrivals is Arrivals.POISSON:
            expected += random.expovariate(1.0)
        # The time by which that many requests are expected: the inverse of the integrated rate.
        if expected < ramped:
            yield math.sqrt(2 * ramp_seconds * expected / rate)
        else:
            yield expected / rate + ramp_seconds / 2
        if arrivals is Arrivals.CONSTANT:
            expected += 1.0
