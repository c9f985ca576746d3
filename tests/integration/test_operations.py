"""What is asked of the gateway itself: metrics and who may read them, usage, models, version."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.exposition import openmetrics_families, text_families
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.raw import RawClient, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"

# Dashboards and alerts of operators name these: add, never rename.
METRIC_FAMILIES = {
    "gateway_requests": "counter",
    "gateway_request_duration_seconds": "histogram",
    "gateway_overhead_seconds": "histogram",
    "gateway_queue_wait_seconds": "histogram",
    "gateway_event_loop_lag_seconds": "histogram",
    "gateway_time_to_first_token_seconds": "histogram",
    "gateway_time_per_output_token_seconds": "histogram",
    "gateway_inter_event_seconds": "histogram",
    "gateway_tokens": "counter",
    "gateway_slo_requests": "counter",
    "gateway_goodput_requests": "counter",
    "gateway_refusals": "counter",
    "gateway_protocol_refusals": "counter",
    "gateway_errors": "counter",
    "gateway_failovers": "counter",
    "gateway_upstream_aborts": "counter",
    "gateway_upstream_errors": "counter",
    "gateway_circuit_transitions": "counter",
    "gateway_key_requests": "counter",
    "gateway_key_tokens": "counter",
    "gateway_key_refusals": "counter",
    "gateway_quota_used_tokens": "gauge",
    "gateway_quota_limit_tokens": "gauge",
    "gateway_quota_reserved_tokens": "gauge",
    "gateway_requests_in_flight": "gauge",
    "gateway_streams_open": "gauge",
    "gateway_calls_in_flight": "gauge",
    "gateway_calls_in_flight_limit": "gauge",
    "gateway_queue_depth": "gauge",
    "gateway_queue_depth_limit": "gauge",
    "gateway_build_info": "gauge",
    "gateway_circuit_state": "gauge",
    "gateway_upstream_healthy": "gauge",
    "gateway_upstreams_generation": "gauge",
    "gateway_upstreams_reload_failures": "counter",
    "gateway_upstream_in_flight": "gauge",
    "gateway_ledger_flush_age_seconds": "gauge",
    "gateway_ledger_flush_failures": "counter",
    "gateway_key_store_failures": "counter",
    "gateway_log_lines_dropped": "counter",
    "gateway_spans_dropped": "counter",
    "process_cpu_seconds": "counter",
    "process_max_fds": "gauge",
    "process_open_fds": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_virtual_memory_bytes": "gauge",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    simulator: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("operations")
    async with GatewayProcess(folder=folder, VLLM_URL=simulator.url) as running:
        await running.client.post(CHAT, json=chat(stream=True))
        await running.client.post(CHAT, json=chat(model="none"))
        yield running


async def test_the_names_of_the_metrics_are_frozen(gateway: GatewayProcess) -> None:
    text = (await gateway.client.get("/metrics")).text

    assert {family.name: family.type for family in text_families(text)} == METRIC_FAMILIES


async def test_the_exposition_is_read_by_both_parsers(gateway: GatewayProcess) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}

    text = list(text_families((await gateway.client.get("/metrics")).text))
    strict = list(openmetrics_families((await gateway.client.get("/metrics", headers=accept)).text))

    assert {family.name for family in strict} == {family.name for family in text}


async def test_tokens_are_counted_as_charged(gateway: GatewayProcess) -> None:
    usage = await gateway.usage()

    assert await gateway.metric("gateway_tokens_total", type="output") == usage["output_tokens"]
    assert await gateway.metric("gateway_tokens_total", type="input") == usage["input_tokens"]


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip"])
async def test_metrics_are_not_shown_through_a_proxy_nobody_told_us_about(
    gateway: GatewayProcess, header: str
) -> None:
    answer = await gateway.client.get("/metrics", headers={header: "127.0.0.1"})

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "metrics_not_allowed"


async def test_a_trusted_proxy_shows_them_only_to_the_allowed_networks(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with GatewayProcess(
        folder=tmp_path,
        VLLM_URL=simulator.url,
        TRUSTED_PROXIES="127.0.0.1",
        METRICS_ALLOW="192.0.2.0/24",
    ) as proxied:
        statuses = {
            client: (
                await proxied.client.get("/metrics", headers={"x-forwarded-for": client})
            ).status_code
            for client in ("192.0.2.7", "198.51.100.1", "127.0.0.1, 198.51.100.1")
        }

    assert statuses == {"192.0.2.7": 200, "198.51.100.1": 403, "127.0.0.1, 198.51.100.1": 403}


async def test_what_is_no_valid_http_is_counted_by_its_status(gateway: GatewayProcess) -> None:
    async with RawClient(gateway.port) as raw:
        await raw.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await raw.answer()).status == 400
    async with RawClient(gateway.port) as raw:
        await raw.send(request("GET", "/", *[b"x: y"] * 101))
        assert (await raw.answer()).status == 431

    for status in ("400", "431"):
        assert await gateway.metric("gateway_protocol_refusals_total", status=status) == 1
    assert await gateway.logged(event="request refused as no valid HTTP", status=431)


@pytest.mark.parametrize(
    "days", ["0", "-1", "x", "401", "1e3", "\u0663", "", "0" * 9 + "19999999999", "1" + "0" * 5000]
)
async def test_a_wrong_number_of_days_is_a_400(gateway: GatewayProcess, days: str) -> None:
    answer = await gateway.client.get("/v1/usage", params={"days": days})

    if days:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "days")
    else:
        assert answer.status_code == 200


async def test_ready_tells_why_not(gateway: GatewayProcess, simulator: Simulator) -> None:
    assert (await gateway.client.get("/ready")).json() == {"status": "ready"}
    assert (await gateway.client.get("/readyz")).status_code == 200


async def test_an_upstream_that_says_it_is_unwell_makes_the_gateway_unready(
    tmp_path: Path,
) -> None:
    async with (
        Simulator(SimulatorConfig()) as sick,
        GatewayProcess(
            folder=tmp_path, VLLM_URL=sick.url, HEALTH_INTERVAL_SECONDS="0.1"
        ) as waiting,
    ):
        sick.arm(Fault(FaultKind.UNHEALTHY))
        (line,) = await waiting.logged(event="upstream is unhealthy")
        unready = await waiting.client.get("/ready")
        sick.disarm()
        await waiting.logged(event="upstream is healthy", level="info")

    assert "engine is not running" in line["reason"]
    assert unready.status_code == 503
    assert "engine is not running" in unready.json()["reasons"][0]
