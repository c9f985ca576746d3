"""Tallies show the very text that prometheus_client's own counters and histograms show."""

import random

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from gateway.telemetry.tallies import Counters, Distributions

BOUNDS = (0.01, 0.1, 1, 2.5)


def without_creation_times(registry: CollectorRegistry) -> list[str]:
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


def test_a_histogram_is_the_same_text_bounds_included() -> None:
    theirs_registry, ours_registry = CollectorRegistry(), CollectorRegistry()
    theirs = Histogram("a_seconds", "Help.", ("b",), buckets=BOUNDS, registry=theirs_registry)
    ours = Distributions("a_seconds", "Help.", ("b",), BOUNDS)
    ours_registry.register(ours)

    generator = random.Random(7)
    for seconds in (0.0, 0.01, 1.0, 2.5, 99.0, *(generator.expovariate(1) for _ in range(200))):
        theirs.labels("x").observe(seconds)
        ours.child("x").observe(seconds)

    assert without_creation_times(ours_registry) == without_creation_times(theirs_registry)


def test_a_counter_is_the_same_text_hostile_labels_included() -> None:
    theirs_registry, ours_registry = CollectorRegistry(), CollectorRegistry()
    theirs = Counter("a", "Help with \\ and\nlines.", ("b", "c"), registry=theirs_registry)
    ours = Counters("a", "Help with \\ and\nlines.", ("b", "c"))
    ours_registry.register(ours)

    for label in ('quo"te', "back\\slash", "new\nline", ""):
        theirs.labels(label, "z").inc(3)
        ours.child(label, "z").value += 3

    assert without_creation_times(ours_registry) == without_creation_times(theirs_registry)
