"""Open streams: their number, and the time between two reads with events."""

import pytest

from gateway.telemetry.streams import StreamTallies
from gateway.telemetry.tallies import Distributions
from tests.fakes.clock import FakeClock


def test_the_gaps_of_a_stream_are_those_between_its_reads() -> None:
    clock = FakeClock(monotonic=0.0)
    gaps = Distributions("gaps", "Help.", ("model",), (0.1, 1.0))
    streams = StreamTallies(gaps, clock=clock)

    with streams.follow("m") as first, streams.follow("m") as second:
        for seconds in (0.0, 0.05, 0.5):
            clock.advance(seconds)
            first()
        clock.advance(7)
        second()

    assert gaps.child("m").counts == [1, 1, 0]
    assert gaps.child("m").total == 0.55


def test_a_stream_is_open_until_its_block_is_left_by_whatever_way() -> None:
    streams = StreamTallies(Distributions("gaps", "Help.", ("model",), (1.0,)), clock=FakeClock())

    with streams.follow("m"), streams.follow("m"):
        assert streams.open_streams == 2
        with pytest.raises(ZeroDivisionError), streams.follow("n"):
            assert streams.open_streams == 3
            _ = 1 / 0
        assert streams.open_streams == 2

    assert streams.open_streams == 0
