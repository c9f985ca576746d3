"""The metrics: what one finished exchange adds to them, closed labels, text that parsers read."""

import pytest

from gateway.errors import UpstreamFault
from gateway.exchange import Exchange, Outcome, TokenUsage
from gateway.telemetry.goodput import Slo
from gateway.telemetry.metrics import Metrics, MetricsConfig
from gateway.telemetry.tallies import Exemplar
from gateway.telemetry.watched import WatchedValue
from tests.gateway.telemetry.exchanges import (
    CHAT,
    OPENMETRICS,
    exchange,
    exposed,
    series,
    stream,
)
from tests.harness.exposition import openmetrics_families, text_families


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(MetricsConfig(slo=Slo(ttft_seconds=1.0, time_per_output_token_seconds=0.1)))


async def test_a_request_is_counted_by_the_class_of_its_status(metrics: Metrics) -> None:
    for status in (200, 200, 404, 499, 503):
        metrics.count(exchange(route="r", status=status), Outcome.OK, 0.1)
    metrics.count(exchange(route="r"), Outcome.ERROR, 0.1)

    counted = await series(metrics, "gateway_requests_total")

    labels = '{{route="r",model="",upstream="",status="{}",outcome="{}"}}'
    assert counted == {
        labels.format("2xx", "ok"): 2,
        labels.format("4xx", "ok"): 2,
        labels.format("5xx", "ok"): 1,
        labels.format("5xx", "error"): 1,
    }


async def test_streams_and_whole_answers_have_durations_of_their_own(metrics: Metrics) -> None:
    metrics.count(stream(), Outcome.OK, 1.6)
    metrics.count(stream(is_stream=False), Outcome.OK, 0.2)

    summed = await series(metrics, "gateway_request_duration_seconds_sum")

    assert summed == {
        f'{{route="{CHAT}",model="m",stream="true"}}': 1.6,
        f'{{route="{CHAT}",model="m",stream="false"}}': 0.2,
    }


async def test_overhead_is_what_neither_queue_nor_upload_nor_upstream_took(
    metrics: Metrics,
) -> None:
    ended = stream(queue_seconds=0.25, upload_seconds=0.5, upstream_seconds=1.0)

    metrics.count(ended, Outcome.OK, 1.875)

    assert await series(metrics, "gateway_overhead_seconds_sum") == {f'{{route="{CHAT}"}}': 0.125}


async def test_what_reached_no_upstream_has_no_overhead_and_no_tokens(metrics: Metrics) -> None:
    metrics.count(exchange(route=CHAT, status=429, limit="key_rate"), Outcome.REJECTED, 0.1)

    assert await series(metrics, "gateway_overhead_seconds_count") == {}
    assert await series(metrics, "gateway_tokens_total") == {}


async def test_a_stream_tells_its_first_token_and_the_time_for_each_later_one(
    metrics: Metrics,
) -> None:
    metrics.count(stream(), Outcome.OK, 1.6)

    first = await series(metrics, "gateway_time_to_first_token_seconds_sum")
    later = await series(metrics, "gateway_time_per_output_token_seconds_sum")

    assert first == {'{model="m",upstream="u"}': 0.5}
    assert later == {'{model="m"}': 0.1}


@pytest.mark.parametrize(
    ("ended", "seconds_per_token"),
    [
        (stream(choices=2, usage=TokenUsage(3, 22)), 0.1),
        (stream(usage=TokenUsage(3, 1)), None),
        (stream(heard_at=None), None),
        (stream(first_token_at=None, is_stream=False), None),
    ],
    ids=["two choices side by side", "one token", "cut off", "not streamed"],
)
async def test_the_time_per_token_is_that_of_one_choice_and_only_where_it_is_known(
    metrics: Metrics, ended: Exchange, seconds_per_token: float | None
) -> None:
    metrics.count(ended, Outcome.OK, 1.6)

    summed = await series(metrics, "gateway_time_per_output_token_seconds_sum")
    counted = await series(metrics, "gateway_time_per_output_token_seconds_count")
    assert sum(summed.values()) == (seconds_per_token or 0.0)
    assert sum(counted.values()) == (seconds_per_token is not None)


@pytest.mark.parametrize(
    ("ended", "outcome", "seconds", "judged", "good"),
    [
        (stream(), Outcome.OK, 1.6, 1, 1),
        (stream(first_token_at=1.01), Outcome.OK, 1.6, 1, 0),
        (stream(heard_at=1.6), Outcome.OK, 1.7, 1, 0),
        (stream(), Outcome.TRUNCATED, 1.6, 1, 0),
        (stream(status=502), Outcome.ERROR, 0.1, 1, 0),
        (stream(), Outcome.CANCELLED, 1.6, 0, 0),
        (exchange(route=CHAT, status=429), Outcome.REJECTED, 0.1, 0, 0),
        (exchange(route=CHAT, status=400), Outcome.CLIENT_ERROR, 0.1, 0, 0),
        (stream(route="/v1/embeddings", first_token_at=None), Outcome.OK, 0.1, 0, 0),
        (stream(first_token_at=None), Outcome.OK, 2.0, 1, 1),
        (stream(first_token_at=None), Outcome.OK, 2.1, 1, 0),
    ],
    ids=[
        "in time",
        "first token late",
        "tokens slow",
        "truncated",
        "failed",
        "client left",
        "refused",
        "client's fault",
        "no generation",
        "whole and in time",
        "whole and late",
    ],
)
async def test_goodput_counts_what_went_well_and_met_every_limit(
    metrics: Metrics, ended: Exchange, outcome: Outcome, seconds: float, judged: int, good: int
) -> None:
    metrics.count(ended, outcome, seconds)

    assert sum((await series(metrics, "gateway_slo_requests_total")).values()) == judged
    assert sum((await series(metrics, "gateway_goodput_requests_total")).values()) == good


async def test_every_failed_attempt_and_every_abort_counts_for_its_upstream(
    metrics: Metrics,
) -> None:
    faults = (("a", UpstreamFault.CONNECT), ("b", UpstreamFault.TIMEOUT))
    metrics.count(stream(attempts=3, faults=faults, aborts=("b",)), Outcome.OK, 1.6)

    assert await series(metrics, "gateway_upstream_errors_total") == {
        '{upstream="a",kind="connect"}': 1,
        '{upstream="b",kind="timeout"}': 1,
    }
    assert await series(metrics, "gateway_upstream_aborts_total") == {'{upstream="b"}': 1}
    assert await series(metrics, "gateway_failovers_total") == {'{model="m"}': 2}


async def test_an_upstreams_troubles_are_shown_as_nothing_before_there_are_any(
    metrics: Metrics,
) -> None:
    metrics.expect_upstream("u", circuit_states=["open", "closed"])

    assert await series(metrics, "gateway_upstream_aborts_total") == {'{upstream="u"}': 0}
    assert set((await series(metrics, "gateway_upstream_errors_total")).values()) == {0}
    assert len(await series(metrics, "gateway_upstream_errors_total")) == len(UpstreamFault)
    assert len(await series(metrics, "gateway_circuit_transitions_total")) == 2


async def test_a_traced_request_is_pointed_out_where_an_exemplar_can_stand(
    metrics: Metrics,
) -> None:
    metrics.count(stream(), Outcome.OK, 1.6, Exemplar("ab" * 16, 1_700_000_000.0))
    metrics.count(stream(), Outcome.OK, 30.0)

    text = await exposed(metrics, OPENMETRICS)
    pointed_out = {
        sample.name: (sample.exemplar.labels, sample.exemplar.value)
        for family in openmetrics_families(text)
        for sample in family.samples
        if sample.exemplar is not None
    }

    trace = {"trace_id": "ab" * 16}
    assert pointed_out == {
        "gateway_request_duration_seconds_bucket": (trace, 1.6),
        "gateway_time_to_first_token_seconds_bucket": (trace, 0.5),
    }
    assert "trace_id" not in await exposed(metrics)


async def test_a_value_of_another_room_is_read_when_it_is_asked_for(metrics: Metrics) -> None:
    depth = [7.0]
    metrics.watch(WatchedValue("depth", "Waiting.", lambda: depth[0], (("a", "x"),)))
    metrics.watch(WatchedValue("failures", "Failures.", lambda: 2, is_counter=True))
    depth[0] = 8.0

    assert await series(metrics, "gateway_depth") == {'{a="x"}': 8.0}
    assert await series(metrics, "gateway_failures_total") == {"": 2.0}


async def test_the_process_tells_of_itself(metrics: Metrics) -> None:
    names = {family.name for family in text_families(await exposed(metrics))}

    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= names


async def test_both_formats_are_read_by_their_parsers(metrics: Metrics) -> None:
    metrics.count(stream(error_code="x", queue_seconds=0.1), Outcome.OK, 1.6)
    plain, open_metrics = await metrics.render(""), await metrics.render(OPENMETRICS)

    assert plain[1].startswith(b"text/plain")
    assert open_metrics[1].startswith(b"application/openmetrics-text")
    text = {family.name for family in text_families(plain[0].decode())}
    assert text == {family.name for family in openmetrics_families(open_metrics[0].decode())}
