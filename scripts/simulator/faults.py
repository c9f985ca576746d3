"""What can go wrong on demand, and how often it still will."""

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

from scripts.simulator.errors import bad_request
from scripts.simulator.fields import Fields

FAULT_HEADER = b"x-sim-fault"


class FaultKind(StrEnum):
    """The failures of a real upstream, each by the name the control endpoint knows."""

    NONE = "none"
    ERROR_500 = "error500"
    ERROR_503 = "error503"
    ERROR_429 = "error429"
    HANG = "hang"
    HANG_MID_STREAM = "hang_mid_stream"
    DRIP = "drip"
    RESET = "reset"
    RESET_MID_STREAM = "reset_mid_stream"
    CLOSE_MID_STREAM = "close_mid_stream"
    STREAM_ERROR = "stream_error"
    MALFORMED_CALL = "malformed_call"
    GARBAGE = "garbage"
    TRUNCATE = "truncate"
    DIE = "die"
    UNHEALTHY = "unhealthy"
    SLOW_HEAD = "slow_head"
    KV_FULL = "kv_full"
    STALLED = "stalled"


# These befall the server, not one request: they last until they are taken away.
STANDING = frozenset({FaultKind.UNHEALTHY, FaultKind.KV_FULL, FaultKind.STALLED})


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure: what happens and when.

    `events`: stream events let through before a mid-stream fault strikes. `seconds`: the
    pause of slow_head and between the bytes of drip; the Retry-After of error429. `count`:
    requests it befalls, 0 for all until cleared. `ratio`: the share of requests it befalls.
    `path`: the only path it befalls, empty for all inference paths.
    """

    kind: FaultKind = FaultKind.NONE
    events: int = 3
    seconds: float = 0.0
    count: int = 0
    ratio: float = 1.0
    path: str = ""


NO_FAULT = Fault()


def fault_from_fields(body: Fields) -> Fault:
    """A fault as posted to /sim/faults; raises ApiError (400) for an unknown kind."""
    return Fault(
        kind=_kind(body.text("kind")),
        events=body.at_least(0, "events", NO_FAULT.events),
        seconds=body.number("seconds", NO_FAULT.seconds),
        count=body.at_least(0, "count", NO_FAULT.count),
        ratio=body.number("ratio", NO_FAULT.ratio),
        path=body.text("path"),
    )


def fault_from_header(value: str) -> Fault:
    """A fault as one request asks for it: `kind`, or `kind;events=5;seconds=0.1`."""
    kind, *parameters = (part.strip() for part in value.split(";"))
    raw: dict[str, object] = {"kind": kind}
    for parameter in parameters:
        name, _, number = parameter.partition("=")
        raw[name.strip()] = number.strip()
    return fault_from_fields(Fields(raw))


class FaultBoard:
    """The faults armed on the server; it alone counts them down."""

    def __init__(self, *, random: Random) -> None:
        self._random = random
        self._armed: list[Fault] = []

    @property
    def armed(self) -> tuple[Fault, ...]:
        return tuple(self._armed)

    def arm(self, fault: Fault) -> None:
        """A standing fault replaces its own kind; the others queue behind each other."""
        if fault.kind in STANDING:
            self.disarm(fault.kind)
        if fault.kind is not FaultKind.NONE:
            self._armed.append(fault)

    def disarm(self, kind: FaultKind | None = None) -> None:
        """Take away one kind, or everything."""
        self._armed = [fault for fault in self._armed if kind and fault.kind is not kind]

    def stands(self, kind: FaultKind) -> bool:
        return any(fault.kind is kind for fault in self._armed)

    def spend(self, kind: FaultKind) -> bool:
        """Whether a standing fault applies now; a counted one is used up by asking."""
        for position, fault in enumerate(self._armed):
            if fault.kind is kind:
                self._count_down(position)
                return True
        return False

    def take(self, path: str, header: str | None) -> Fault:
        """The fault that befalls a request: its own header first, else the first armed."""
        if header:
            return fault_from_header(header)
        for position, fault in enumerate(self._armed):
            if fault.kind in STANDING or (fault.path and fault.path != path):
                continue
            if fault.ratio < 1.0 and self._random.random() >= fault.ratio:
                continue
            self._count_down(position)
            return fault
        return NO_FAULT

    def _count_down(self, position: int) -> None:
        fault = self._armed[position]
        if fault.count == 1:
            del self._armed[position]
        elif fault.count > 1:
            self._armed[position] = replace(fault, count=fault.count - 1)


def _kind(name: str) -> FaultKind:
    try:
        return FaultKind(name)
    except ValueError:
        known = ", ".join(FaultKind)
        raise bad_request(f"Unknown fault '{name}'; known: {known}.", "kind") from None
