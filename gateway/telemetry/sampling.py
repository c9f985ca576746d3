"""Which traces are recorded, decided before anything is made for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

LOW_64_BITS = (1 << 64) - 1
SAMPLER, ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
DEFAULT = "parentbased_always_on"
PARENT_BASED = "parentbased_"
# The share of new traces that each sampler takes; None: OTEL_TRACES_SAMPLER_ARG says it.
RATIOS = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}

Warn = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Takes the trace ids below a bound, as OpenTelemetry's own ratio sampler does, so that every
    service with the same ratio takes the same traces. An adopted trace may decide for itself."""

    bound: int
    follows_parent: bool

    def takes(self, trace_id: int) -> bool:
        return trace_id & LOW_64_BITS < self.bound

    def takes_child(self, trace_id: int, *, is_parent_sampled: bool) -> bool:
        return is_parent_sampled if self.follows_parent else self.takes(trace_id)

    @classmethod
    def of(cls, otel: Mapping[str, str], *, warn: Warn) -> "Sampling":
        """As the environment says; what it says wrongly is warned of and the default taken."""
        name = otel.get(SAMPLER, "").strip().lower() or DEFAULT
        root = name.removeprefix(PARENT_BASED)
        if root not in RATIOS:
            warn(f"{SAMPLER}={name}: no such sampler; {DEFAULT} is used")
            name, root = DEFAULT, DEFAULT.removeprefix(PARENT_BASED)
        ratio = RATIOS[root]
        if ratio is None:
            ratio = _ratio(otel.get(ARGUMENT, ""), warn)
        return cls(round(ratio * (LOW_64_BITS + 1)), name.startswith(PARENT_BASED))


def _ratio(raw: str, warn: Warn) -> float:
    try:
        ratio = float(raw) if raw.strip() else 1.0
    except ValueError:
        ratio = -1.0
    if 0.0 <= ratio <= 1.0:
        return ratio
    warn(f"{ARGUMENT}={raw}: must be a number from 0 to 1; every trace is recorded")
    return 1.0
