"""What others took of the two cores, from two looks at /proc/stat."""

import pytest

from tests.benchmarks.disturbance import CoreTime, Disturbance, Watch
from tests.benchmarks.processes import UNPINNED

STAT = """cpu  900 0 900 900 0 0 0 0 0 0
cpu0 300 10 90 5000 7 8 9 20 0 0
cpu10 1 1 1 1 1 1 1 1 0 0
intr 12345
"""


def test_a_cores_time_is_that_of_programs_without_interrupts() -> None:
    assert CoreTime.read(0, STAT) == CoreTime(used_seconds=4.0, stolen_seconds=0.2)
    assert CoreTime.read(10, STAT) == CoreTime(used_seconds=0.03, stolen_seconds=0.01)


def test_an_unknown_core_is_an_error() -> None:
    with pytest.raises(LookupError):
        CoreTime.read(1, STAT)


def test_the_core_that_was_disturbed_more_counts() -> None:
    before = (CoreTime(10.0, 0.0), CoreTime(20.0, 0.0))
    after = (CoreTime(12.0, 0.1), CoreTime(21.0, 0.4))

    found = Disturbance.between(before, after, (1.8, 0.4), seconds=2.0)

    assert found.others == pytest.approx(0.3)
    assert found.stolen == pytest.approx(0.2)


def test_time_that_was_counted_later_than_ours_is_no_disturbance() -> None:
    still = (CoreTime(10.0, 0.0),)

    assert Disturbance.between(still, still, (0.01,), seconds=1.0) == Disturbance(0.0, 0.0)


def test_unpinned_nobody_can_tell() -> None:
    assert Watch(UNPINNED).end(target_seconds=1.0) == {}
