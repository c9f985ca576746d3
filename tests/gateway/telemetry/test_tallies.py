"""Tallies say what prometheus_client's own counters and histograms say, in both formats."""

import random

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Timestamp

from gateway.telemetry.exposition import Format, negotiate, render
from gateway.telemetry.tallies import Counters, Distributions, Exemplar
from tests.harness.exposition import openmetrics_families, text_families

BOUNDS = (0.01, 0.1, 1, 2.5)
HOSTILE = ('quo"te', "back\\slash", "new\nline", "", "100 %d %s", "{}", "\u00e4\u6f22", 'a,b="c"')
PLAIN = negotiate("")
OPENMETRICS = negotiate("application/openmetrics-text")


def read(text: str, *, is_openmetrics: bool) -> list[Metric]:
    """The families, without the moments of creation that prometheus_client adds."""
    parse = openmetrics_families if is_openmetrics else text_families
    families = [family for family in parse(text) if not family.name.endswith("_created")]
    for family in families:
        family.samples = [s for s in family.samples if not s.name.endswith("_created")]
        family.samples.sort(key=lambda sample: (sample.name, sorted(sample.labels.items())))
    return families


def theirs(registry: CollectorRegistry, form: Format) -> list[Metric]:
    encode = generate_openmetrics if form.is_openmetrics else generate_latest
    body: bytes = encode(registry)
    return read(body.decode(), is_openmetrics=form.is_openmetrics)


@pytest.mark.parametrize("form", [PLAIN, OPENMETRICS], ids=["text", "openmetrics"])
async def test_a_histogram_reads_the_same_bounds_included(form: Format) -> None:
    registry = CollectorRegistry()
    their_histogram = Histogram("a_seconds", "Help.", ("b",), buckets=BOUNDS, registry=registry)
    ours = Distributions("a_seconds", "Help.", ("b",), BOUNDS)

    generator = random.Random(7)
    for seconds in (0.0, 0.01, 1.0, 2.5, 99.0, *(generator.expovariate(1) for _ in range(200))):
        their_histogram.labels("x").observe(seconds)
        ours.child("x").observe(seconds)

    text = (await render([ours], form)).decode()
    assert read(text, is_openmetrics=form.is_openmetrics) == theirs(registry, form)


@pytest.mark.parametrize("form", [PLAIN, OPENMETRICS], ids=["text", "openmetrics"])
async def test_a_counter_reads_the_same_hostile_labels_included(form: Format) -> None:
    registry = CollectorRegistry()
    help_text = 'Help with \\ and\nlines and "quotes".'
    their_counter = Counter("a", help_text, ("b", "c"), registry=registry)
    ours = Counters("a", help_text, ("b", "c"))

    for label in HOSTILE:
        their_counter.labels(label, "z").inc(3)
        ours.child(label, "z").value += 3

    text = (await render([ours], form)).decode()
    assert read(text, is_openmetrics=form.is_openmetrics) == theirs(registry, form)


async def test_an_exemplar_stands_at_its_bucket_and_in_openmetrics_alone() -> None:
    ours = Distributions("a_seconds", "Help.", (), BOUNDS)
    for value, trace_id in ((0.05, "aa"), (0.06, "bb"), (7.0, "cc")):
        ours.child().observe(value)
        ours.child().point_out(value, Exemplar(trace_id, 1_700_000_000.25))

    (family,) = openmetrics_families((await render([ours], OPENMETRICS)).decode())
    found = {s.labels["le"]: s.exemplar for s in family.samples if s.exemplar is not None}

    assert {mark: (e.labels, e.value, e.timestamp) for mark, e in found.items()} == {
        "0.1": ({"trace_id": "bb"}, 0.06, Timestamp(1_700_000_000, 250_000_000)),
        "+Inf": ({"trace_id": "cc"}, 7.0, Timestamp(1_700_000_000, 250_000_000)),
    }
    assert b"trace_id" not in await render([ours], PLAIN)


async def test_what_is_dropped_is_shown_no_more() -> None:
    ours = Counters("a", "Help.", ("b", "c"))
    for labels in (("x", "1"), ("x", "2"), ("y", "1")):
        ours.child(*labels).value += 1

    ours.drop_all("x", label="b")

    text = (await render([ours], PLAIN)).decode()
    assert 'b="x"' not in text
    assert 'a_total{b="y",c="1"} 1' in text
