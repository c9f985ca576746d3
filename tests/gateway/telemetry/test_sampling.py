"""Sampling: the same traces as OpenTelemetry's own samplers, and warnings for what is wrong."""

from random import Random

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import sampling as sdk
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from gateway.telemetry.sampling import Sampling

SAMPLERS = {
    "always_on": sdk.ALWAYS_ON,
    "always_off": sdk.ALWAYS_OFF,
    "parentbased_always_on": sdk.DEFAULT_ON,
    "parentbased_always_off": sdk.DEFAULT_OFF,
    "traceidratio": sdk.TraceIdRatioBased(0.3),
    "parentbased_traceidratio": sdk.ParentBasedTraceIdRatio(0.3),
}


def never(what: str) -> None:
    raise AssertionError(what)


def caller(trace_id: int, *, is_sampled: bool) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
    return set_span_in_context(NonRecordingSpan(SpanContext(trace_id, 1, True, flags)), Context())


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_takes_what_the_sdks_takes(name: str) -> None:
    ours = Sampling.of({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": "0.3"}, warn=never)
    theirs = SAMPLERS[name]
    random = Random(7)

    for trace_id in (random.getrandbits(128) for _ in range(2000)):
        alone = theirs.should_sample(Context(), trace_id, "x").decision
        assert ours.takes(trace_id) == (alone is sdk.Decision.RECORD_AND_SAMPLE)
        for is_sampled in (False, True):
            parent = caller(trace_id, is_sampled=is_sampled)
            below = theirs.should_sample(parent, trace_id, "x").decision
            taken = ours.takes_child(trace_id, is_parent_sampled=is_sampled)
            assert taken == (below is sdk.Decision.RECORD_AND_SAMPLE)


def test_nothing_said_records_all_that_no_parent_decides() -> None:
    sampling = Sampling.of({}, warn=never)

    assert sampling.takes(2**128 - 1)
    assert not sampling.takes_child(1, is_parent_sampled=False)


@pytest.mark.parametrize(
    ("otel", "word"),
    [
        ({"OTEL_TRACES_SAMPLER": "sometimes"}, "sometimes"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "10%"}, "10%"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}, "2"),
    ],
)
def test_what_cannot_be_read_is_warned_of_and_everything_recorded(
    otel: dict[str, str], word: str
) -> None:
    warnings: list[str] = []

    sampling = Sampling.of(otel, warn=warnings.append)

    assert sampling.takes(2**128 - 1)
    (warning,) = warnings
    assert word in warning
