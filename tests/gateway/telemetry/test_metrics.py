"""The metrics: frozen names, closed labels, and text that parsers read."""

import pytest

from gateway.exchange import Exchange, Outcome, TokenUsage
from gateway.telemetry.metrics import Metrics, WatchedValue
from tests.harness.exposition import openmetrics_families, text_families

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def exchange(**facts: object) -> Exchange:
    made = Exchange(request_id="r", method="POST", started_at=0.0, client_address="::1")
    for name, fact in facts.items():
        setattr(made, name, fact)
    return made


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.count(
        exchange(
            route="/v1/chat/completions",
            model="m",
            upstream="u",
            status=200,
            attempts=2,
            usage=TokenUsage(3, 4),
            first_token_at=0.5,
        ),
        Outcome.OK,
        1.0,
    )
    made.count(
        exchange(status=429, error_code="rate_limit_exceeded", limit="key_rate"),
        Outcome.REJECTED,
        0.1,
    )
    made.count_transition("u", "open")
    made.watch(WatchedValue("queue_depth", "Waiting.", lambda: 7.0))
    made.watch(WatchedValue("ledger_flush_failures", "Failures.", lambda: 2.0, is_counter=True))
    return made


async def exposed(metrics: Metrics, accept: str) -> str:
    body, _ = await metrics.render(accept)
    return body.decode()


async def test_the_text_format_is_read_by_a_parser(metrics: Metrics) -> None:
    families = {family.name: family for family in text_families(await exposed(metrics, ""))}

    tokens = {sample.labels["type"]: sample.value for sample in families["gateway_tokens"].samples}
    assert tokens == {"input": 3.0, "output": 4.0}
    assert families["gateway_queue_depth"].samples[0].value == 7.0
    assert families["gateway_refusals"].samples[0].labels == {"limit": "key_rate"}


async def test_openmetrics_is_read_by_its_stricter_parser(metrics: Metrics) -> None:
    text = await exposed(metrics, OPENMETRICS)

    families = {family.name: family for family in openmetrics_families(text)}
    assert families["gateway_ledger_flush_failures"].samples[0].value == 2.0
    assert text.endswith("# EOF\n")


async def test_the_content_type_is_the_one_agreed(metrics: Metrics) -> None:
    _, plain = await metrics.render("")
    _, open_metrics = await metrics.render(OPENMETRICS)

    assert plain.startswith(b"text/plain")
    assert open_metrics.startswith(b"application/openmetrics-text")


async def test_no_upstream_no_tokens(metrics: Metrics) -> None:
    text = await exposed(metrics, "")

    assert 'gateway_requests_total{model="",outcome="rejected",route="other"' in text
    assert 'gateway_tokens_total{model=""' not in text
