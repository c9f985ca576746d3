"""The load test's arithmetic: percentiles, distributions, arrivals, requests, slots."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from statistics import fmean, median, stdev

import orjson
import pytest

from scripts.loadtest.arrivals import Arrivals, due_times
from scripts.loadtest.distribution import distribution
from scripts.loadtest.health import Health
from scripts.loadtest.histogram import ERROR_BOUND, Histogram
from scripts.loadtest.plan import Endpoint, Plan
from scripts.loadtest.plots import Axis, axis_to
from scripts.loadtest.requests import requests
from scripts.loadtest.tally import Frame, Tally
from scripts.loadtest.timeline import Timeline
from scripts.loadtest.wording import duration
from tests.scripts.loadtesting import PLAN

QUANTILES = (0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


def exact(values: Sequence[float], ratio: float) -> float:
    """The nearest-rank percentile."""
    return sorted(values)[max(1, math.ceil(ratio * len(values))) - 1]


def counted(values: Sequence[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@pytest.mark.parametrize("median_seconds", [0.00002, 0.02, 3.0, 900.0])
def test_percentiles_are_exact_within_the_stated_bound(median_seconds: float) -> None:
    random = Random(7)
    values = [random.lognormvariate(math.log(median_seconds), 1.0) for _ in range(20_001)]

    histogram = counted(values)

    for ratio in QUANTILES:
        assert histogram.quantile(ratio) == pytest.approx(exact(values, ratio), rel=ERROR_BOUND)
    assert histogram.mean == pytest.approx(fmean(values))
    assert (histogram.smallest, histogram.largest) == (min(values), max(values))


@pytest.mark.parametrize("values", [[0.2], [0.2, 0.3], [0.0, 0.0, 1.0], [1e-9, 5e4]])
def test_a_few_values_have_percentiles_too(values: list[float]) -> None:
    histogram = counted(values)

    for ratio in QUANTILES:
        expected = pytest.approx(exact(values, ratio), rel=ERROR_BOUND, abs=1e-6)
        assert histogram.quantile(ratio) == expected


def test_nothing_measured_has_no_percentile() -> None:
    empty = Histogram()

    assert (empty.quantile(0.5), empty.mean, empty.largest) == (None, None, None)


def test_merging_is_as_if_counted_together_also_across_a_pipe() -> None:
    random = Random(3)
    one = [random.expovariate(5) for _ in range(1000)]
    other = [random.expovariate(50) for _ in range(500)]
    whole = counted([*one, *other])

    merged = counted(one)
    merged.merge(Histogram.from_record(orjson.loads(orjson.dumps(counted(other).record()))))

    assert sorted(map(tuple, merged.record()["buckets"])) == sorted(
        map(tuple, whole.record()["buckets"])
    )
    assert merged.count == whole.count
    assert [merged.quantile(each) for each in QUANTILES] == [
        whole.quantile(each) for each in QUANTILES
    ]


def test_a_histograms_size_does_not_depend_on_the_number_of_values() -> None:
    random = Random(1)

    histogram = counted([10 ** random.uniform(-6, 4) for _ in range(100_000)])

    assert len(histogram.record()["buckets"]) < 4700


@pytest.mark.parametrize(
    ("text", "middle", "spread"),
    [
        ("12", 12, 0),
        ("fixed:200", 200, 0),
        ("uniform:100-300", 200, 200 / math.sqrt(12)),
        ("normal:200,20", 200, 20),
        ("lognormal:200,0.1", 200, 20),
    ],
)
def test_a_distribution_has_its_middle_and_its_spread(
    text: str, middle: float, spread: float
) -> None:
    drawn = distribution(text)
    random = Random(5)

    values = [drawn.draw(random) for _ in range(20_000)]

    assert median(values) == pytest.approx(middle, rel=0.03)
    assert stdev(values) == pytest.approx(spread, rel=0.05, abs=1e-9)


def test_a_length_is_never_below_its_least() -> None:
    random = Random(1)
    wild = distribution("normal:2,50")

    assert min(wild.whole(random, least=1) for _ in range(1000)) == 1


@pytest.mark.parametrize(
    "text", ["", "x", "fixed:", "fixed:-1", "uniform:9-1", "uniform:1", "normal:1", "zipf:1",
             "lognormal:0,1", "fixed:nan", "fixed:1,2", "normal:1,inf"],
)  # fmt: skip
def test_what_is_no_distribution_is_refused_with_a_word(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|begins|median"):
        distribution(text)


def first_seconds(arrivals: Arrivals, seconds: float, *, ramp: float = 0.0) -> list[float]:
    due = due_times(arrivals, rate=200.0, ramp_seconds=ramp, phase=0.0, random=Random(2))
    return [at for at in islice(due, 100_000) if at < seconds]


def test_constant_arrivals_are_a_metronome() -> None:
    times = first_seconds(Arrivals.CONSTANT, 2.0)

    assert len(times) == 400
    assert {round(b - a, 9) for a, b in pairwise(times)} == {0.005}


def test_poisson_arrivals_have_their_rate_and_exponential_gaps() -> None:
    gaps = [b - a for a, b in pairwise(first_seconds(Arrivals.POISSON, 200.0))]

    assert fmean(gaps) == pytest.approx(0.005, rel=0.03)
    assert stdev(gaps) == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize("arrivals", list(Arrivals))
def test_a_ramp_sends_half_as_much_as_the_full_rate(arrivals: Arrivals) -> None:
    times = first_seconds(arrivals, 20.0, ramp=10.0)

    assert times == sorted(times)
    assert sum(at < 10 for at in times) == pytest.approx(1000, rel=0.1)
    assert sum(at >= 10 for at in times) == pytest.approx(2000, rel=0.1)


def test_the_same_seed_gives_the_same_requests_and_no_two_share_a_beginning() -> None:
    plan = replace(PLAN, prompt_tokens="uniform:5-50", api_key="k")

    one, same = (list(islice(requests(plan), 50)) for _ in range(2))
    other = list(islice(requests(replace(plan, worker=1)), 50))

    assert one == same
    contents = [content_of(each) for each in one + other]
    assert len({content.split()[0] for content in contents}) == 100
    assert all(5 <= len(content.split()) - 1 <= 51 for content in contents)


def test_prompts_of_a_file_are_shared_out_and_come_again(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text('one\n\n{"prompt":"two \\"quoted\\"","output_tokens":9}\n'
                    '{"messages":[{"role":"system","content":"three"}]}\n')  # fmt: skip

    plans = [replace(PLAN, prompt_file=str(file), workers=2, worker=each) for each in (0, 1)]
    asked = [[content_of(each) for each in islice(requests(plan), 3)] for plan in plans]

    assert asked == [["one", "three", 'two "quoted"'], ['two "quoted"', "one", "three"]]


def test_extra_fields_are_in_each_body() -> None:
    plan = replace(
        PLAN, extra_body='{"temperature": 0, "user": "me"}', endpoint=Endpoint.COMPLETIONS
    )

    body = orjson.loads(next(requests(plan)).partition(b"\r\n\r\n")[2])

    assert (body["temperature"], body["user"], body["max_tokens"]) == (0, "me", 6)
    assert body["stream_options"] == {"include_usage": True}


def content_of(request: bytes) -> str:
    body = orjson.loads(request.partition(b"\r\n\r\n")[2])
    content: str = body["messages"][0]["content"]
    return content


def test_shares_add_up_to_the_plan() -> None:
    plans = replace(PLAN, concurrency=10, rate=9.0).shares(workers=3, start_at=1.0)

    assert [plan.concurrency for plan in plans] == [4, 3, 3]
    assert sum(plan.rate for plan in plans) == pytest.approx(9.0)
    assert [Plan.from_json(plan.to_json()) for plan in plans] == plans


def frame(at: float, *, cpu_seconds: float = 0.0, ok: int = 0) -> Frame:
    tally = Tally(live_ok=ok)
    for _ in range(ok):
        tally.end_to_end.add(0.5)
    return Frame(0, at, 1, cpu_seconds, 0.0, counted([0.001]), tally, is_last=False)


def test_a_long_run_has_no_more_slots_than_a_short_one() -> None:
    timeline = Timeline(begin_at=0.0)

    for second in range(3600):
        timeline.add(frame(second + 0.5, ok=2))

    slots = list(timeline.slots())
    assert len(slots) <= 240
    assert sum(slot.ok for _, slot in slots) == 7200
    assert timeline.width_seconds == 16.0


def test_a_busy_generator_says_that_it_is_the_limit() -> None:
    busy, idle = (Health(begin_at=0.0, end_at=10.0) for _ in range(2))
    for second in range(11):
        busy.add(frame(second, cpu_seconds=second * 0.97))
        idle.add(frame(second, cpu_seconds=second * 0.2))

    assert [warning for warning in busy.warnings(Tally()) if "it is the limit" in warning]
    assert idle.warnings(Tally()) == []


def test_a_late_event_loop_says_so() -> None:
    health = Health(begin_at=0.0, end_at=10.0)
    for second in range(11):
        health.add(replace(frame(second), loop_lag=counted([0.05])))

    assert ["event loop was late by 50 ms" in each for each in health.warnings(Tally())] == [True]


def test_ticks_of_an_axis_are_round() -> None:
    assert axis_to(str, str, 0.73).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert Axis("", str, str, 0, 60, is_time=True).ticks() == [0, 10, 20, 30, 40, 50, 60]
    decades = Axis("", str, str, 0.008, 2.0, is_logarithmic=True).ticks()
    assert decades == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.00025, "250 us"),
        (0.0201, "20.1 ms"),
        (0.2, "200 ms"),
        (2, "2.00 s"),
    ],
)
def test_a_duration_is_three_digits_and_a_unit(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words
