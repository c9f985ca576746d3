"""The run over time in a bounded number of slots: when they are used up, they double in width."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from scripts.loadtest.histogram import Histogram
from scripts.loadtest.tally import FRAME_SECONDS, Frame

_MOST_SLOTS: Final = 240


@dataclass(slots=True)
class Slot:
    """What ended within one stretch of time, by the reports that came in it."""

    ok: int = 0
    failed: int = 0
    refused: int = 0
    output_tokens: int = 0
    in_flight: int = 0
    time_to_first_token: Histogram = field(default_factory=Histogram)
    inter_token: Histogram = field(default_factory=Histogram)
    end_to_end: Histogram = field(default_factory=Histogram)

    def merge(self, other: "Slot") -> None:
        self.ok += other.ok
        self.failed += other.failed
        self.refused += other.refused
        self.output_tokens += other.output_tokens
        self.in_flight = max(self.in_flight, other.in_flight)
        self.time_to_first_token.merge(other.time_to_first_token)
        self.inter_token.merge(other.inter_token)
        self.end_to_end.merge(other.end_to_end)


class Timeline:
    """Slots since `begin_at`; what came before is not kept."""

    def __init__(self, *, begin_at: float, width_seconds: float = 1.0) -> None:
        self._begin_at = begin_at
        self._slots: list[Slot] = []
        self._in_flight: dict[int, int] = {}
        self.width_seconds = width_seconds

    def add(self, frame: Frame) -> None:
        self._in_flight[frame.worker] = frame.in_flight
        # A frame is about the time before it.
        about = frame.at - FRAME_SECONDS / 2
        if about < self._begin_at:
            return
        slot = self._slot(about)
        tally = frame.tally
        slot.ok += tally.live_ok
        slot.failed += tally.failed
        slot.refused += tally.refused
        slot.output_tokens += tally.live_tokens
        slot.in_flight = max(slot.in_flight, sum(self._in_flight.values()))
        slot.time_to_first_token.merge(tally.time_to_first_token)
        slot.inter_token.merge(tally.inter_token)
        slot.end_to_end.merge(tally.end_to_end)

    def slots(self) -> Iterator[tuple[float, Slot]]:
        """Each slot with its middle, in seconds since the window began."""
        for index, slot in enumerate(self._slots):
            yield (index + 0.5) * self.width_seconds, slot

    def _slot(self, at: float) -> Slot:
        index = int((at - self._begin_at) / self.width_seconds)
        while index >= _MOST_SLOTS:
            self._fold()
            index = int((at - self._begin_at) / self.width_seconds)
        while len(self._slots) <= index:
            self._slots.append(Slot())
        return self._slots[index]

    def _fold(self) -> None:
        halved = self._slots[::2]
        for kept, merged in zip(halved, self._slots[1::2], strict=False):
            kept.merge(merged)
        self._slots = halved
        self.width_seconds *= 2
