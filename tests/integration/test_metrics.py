"""The metrics of a whole gateway: each number moves when that happens which it counts."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from gateway.auth.keystore import KeyStore
from gateway.auth.record import KeyTerms
from gateway.clock import SystemClock
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED, Departure, Fronted, RawCall, fronted
from tests.harness.exposition import openmetrics_families, series_of
from tests.harness.gateway import GatewayProcess, chat, free_port
from tests.harness.programs import unpacked
from tests.harness.prometheus import PrometheusProcess, quick_config

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
PACE = SimulatorConfig(ttft_seconds=0.05, inter_token_seconds=0.02)
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fronted]:
    """A gateway before an upstream that takes its time."""
    folder = tmp_path_factory.mktemp("metrics")
    patient = {
        "CIRCUIT_FAILURE_THRESHOLD": "100000",
        "SLO_TTFT_SECONDS": "20",
        "SLO_TIME_PER_OUTPUT_TOKEN_SECONDS": "5",
    }
    async with fronted(folder, pace=PACE, **patient) as running:
        yield running


async def value(gateway: GatewayProcess, name: str, **labels: str) -> float:
    return await gateway.metric(f"gateway_{name}", **labels)


async def until(look: Callable[[], Awaitable[float]], wanted: float) -> None:
    """Wait until a metric has a value: what ends a call is counted a moment after its answer."""
    async with asyncio.timeout(5):
        while await look() != wanted:
            await asyncio.sleep(0.02)


async def test_a_stream_is_seen_from_its_first_token_to_its_last(pair: Fronted) -> None:
    gateway = pair.gateway
    names = ("time_to_first_token_seconds", "time_per_output_token_seconds", "inter_event_seconds")
    before = {name: await value(gateway, f"{name}_sum") for name in names}
    events_before = await value(gateway, "inter_event_seconds_count")
    await gateway.client.post(CHAT, json=chat("tell me", stream=True, max_tokens=8))

    first, per_token, gaps = [await value(gateway, f"{n}_sum") - before[n] for n in names]

    assert 0.05 <= first < 2
    assert 0.01 <= per_token < 0.5
    # From the first token's read to the end: as often as there are later reads with events.
    assert 7 <= await value(gateway, "inter_event_seconds_count") - events_before <= 9
    assert gaps == pytest.approx(per_token * 7, rel=0.3)


async def test_overhead_is_small_where_the_duration_is_the_upstreams(pair: Fronted) -> None:
    async with RawCall(pair.gateway, chat("warm", stream=True)) as call:
        await call.read_until(b"[DONE]")
    for is_stream in (True, False):
        labels = {"route": CHAT, "stream": str(is_stream).lower()}
        overhead = await value(pair.gateway, "overhead_seconds_sum", route=CHAT)
        duration = await value(pair.gateway, "request_duration_seconds_sum", **labels)
        await pair.gateway.client.post(CHAT, json=chat("hello", stream=is_stream))

        added = await value(pair.gateway, "overhead_seconds_sum", route=CHAT) - overhead
        took = await value(pair.gateway, "request_duration_seconds_sum", **labels) - duration

        assert took > 0.1
        assert 0 < added < took / 2


async def test_a_slow_upload_is_no_overhead(pair: Fronted) -> None:
    before = await value(pair.gateway, "overhead_seconds_sum", route="/tokenize")

    async def body() -> AsyncIterator[bytes]:
        yield b'{"model":"sim-model",'
        await asyncio.sleep(0.5)
        yield b'"prompt":"hello"}'

    headers = {"content-type": "application/json"}
    answer = await pair.gateway.client.post("/tokenize", content=body(), headers=headers)

    assert answer.status_code == 200
    assert await value(pair.gateway, "overhead_seconds_sum", route="/tokenize") - before < 0.25


async def test_open_streams_and_calls_are_counted_while_they_last(pair: Fronted) -> None:
    gateway = pair.gateway
    async with RawCall(gateway, chat("long", stream=True, max_tokens=2000)) as call:
        await call.read_until(b'"content":')
        open_streams = await value(gateway, "streams_open")
        in_flight = await value(gateway, "calls_in_flight")
        call.leave(Departure.RST)

    assert (open_streams, in_flight) == (1, 1)
    await until(lambda: value(gateway, "streams_open"), 0)


async def test_a_client_that_leaves_is_an_abort_of_the_upstreams_answer(pair: Fronted) -> None:
    gateway = pair.gateway
    before = await value(gateway, "upstream_aborts_total")
    cancelled = await value(gateway, "requests_total", outcome="cancelled", status="2xx")

    async with RawCall(gateway, chat("long", stream=True, max_tokens=2000)) as call:
        await call.read_until(b'"content":')
        call.leave(Departure.FIN)
        await until(lambda: value(gateway, "upstream_aborts_total"), before + 1)

    after = await value(gateway, "requests_total", outcome="cancelled", status="2xx")
    assert after == cancelled + 1


@pytest.mark.parametrize(
    ("fault", "kind", "outcome"),
    [
        (Fault(FaultKind.ERROR_500), "status_5xx", "error"),
        (Fault(FaultKind.ERROR_503), "status_5xx", "error"),
        (Fault(FaultKind.RESET), "reset", "error"),
        (Fault(FaultKind.GARBAGE), "protocol", "error"),
        (Fault(FaultKind.CLOSE_MID_STREAM), "truncated", "truncated"),
        (Fault(FaultKind.STREAM_ERROR), "error_event", "truncated"),
    ],
    ids=lambda each: each.kind.value if isinstance(each, Fault) else "",
)
async def test_each_kind_of_failure_has_its_word(
    pair: Fronted, fault: Fault, kind: str, outcome: str
) -> None:
    gateway = pair.gateway

    async def errors() -> float:
        return await value(gateway, "upstream_errors_total", kind=kind)

    async def ended() -> float:
        return await value(gateway, "requests_total", outcome=outcome)

    before, ended_before = await errors(), await ended()
    pair.simulator.arm(fault)
    async with RawCall(gateway, chat("doomed", stream=True)) as call:
        await call.read_until(b"error")
    pair.simulator.disarm()

    await until(ended, ended_before + 1)
    assert await errors() == before + 1


async def test_goodput_is_what_met_the_limits_of_those_judged(tmp_path: Path) -> None:
    hasty = {"SLO_TTFT_SECONDS": "0.001"}
    async with fronted(tmp_path, pace=PACE, **hasty) as late:
        for is_stream in (True, False):
            await late.gateway.client.post(CHAT, json=chat(stream=is_stream, max_tokens=1))
        await late.gateway.client.post(CHAT, json=chat(model="nobody"))

        assert await value(late.gateway, "slo_requests_total") == 2
        assert await value(late.gateway, "goodput_requests_total") == 0


async def test_in_time_is_good(pair: Fronted) -> None:
    judged = await value(pair.gateway, "slo_requests_total")
    good = await value(pair.gateway, "goodput_requests_total")

    for is_stream in (True, False):
        await pair.gateway.client.post(CHAT, json=chat(stream=is_stream))

    assert await value(pair.gateway, "slo_requests_total") - judged == 2
    assert await value(pair.gateway, "goodput_requests_total") - good == 2


async def test_the_event_loops_lag_is_looked_at_ten_times_a_second(pair: Fronted) -> None:
    before = await value(pair.gateway, "event_loop_lag_seconds_count")
    await asyncio.sleep(1.0)

    looks = await value(pair.gateway, "event_loop_lag_seconds_count") - before
    assert 4 <= looks <= 14


async def test_the_limits_stand_beside_what_they_limit(pair: Fronted) -> None:
    assert await value(pair.gateway, "calls_in_flight_limit") == 256
    assert await value(pair.gateway, "queue_depth_limit") == 64


async def test_a_keys_quota_is_shown_as_its_holder_sees_it(pair: Fronted) -> None:
    await pair.gateway.client.post(CHAT, json=chat())
    usage = await pair.gateway.usage()

    assert await value(pair.gateway, "quota_used_tokens", key="test") == usage["total_tokens"]
    assert await value(pair.gateway, "quota_limit_tokens", key="test") == 1_000_000
    assert await value(pair.gateway, "quota_reserved_tokens", key="test") == 0
    output = await value(pair.gateway, "key_tokens_total", key="test", type="output")
    assert output == usage["output_tokens"]


async def test_what_a_running_call_holds_of_the_quota_is_shown(pair: Fronted) -> None:
    async with RawCall(pair.gateway, chat("long", stream=True, max_tokens=2000)) as call:
        await call.read_until(b'"content":')
        held = await value(pair.gateway, "quota_reserved_tokens", key="test")
        call.leave(Departure.RST)

    assert held > 1000
    await until(lambda: value(pair.gateway, "quota_reserved_tokens", key="test"), 0)


async def test_keys_beyond_the_bound_share_one_series(tmp_path: Path) -> None:
    keys = {f"team {number}": f"sk-{number}-" + "x" * 24 for number in range(4)}
    static = ",".join(f"{name}={key}" for name, key in keys.items())
    async with Simulator() as simulator:
        gateway = GatewayProcess(folder=tmp_path, VLLM_URL=simulator.url, METRICS_KEYS_MAX="2")
        gateway.settings["GATEWAY_API_KEYS"] += f",{static}"
        async with gateway:
            for key in keys.values():
                headers = {"authorization": f"Bearer {key}"}
                await gateway.client.post(CHAT, json=chat(), headers=headers)
            text = (await gateway.client.get("/metrics")).text

    counted = series_of(text, "gateway_key_requests_total")
    assert counted == {
        ("team 0", "ok"): 1.0,
        ("team 1", "ok"): 1.0,
        ("other", "ok"): 2.0,
    }
    used = series_of(text, "gateway_quota_used_tokens")
    assert {label for (label,) in used} == {"team 0", "team 1", "other"}


async def test_a_revoked_keys_series_are_gone(tmp_path: Path) -> None:
    async with (
        Simulator() as simulator,
        GatewayProcess(folder=tmp_path, VLLM_URL=simulator.url) as gateway,
    ):
        store = KeyStore(path=gateway.database, clock=SystemClock())
        _, secret = store.create("brief", KeyTerms())
        headers = {"authorization": f"Bearer {secret}"}
        async with asyncio.timeout(5):
            while (await gateway.client.get("/v1/usage", headers=headers)).status_code != 200:
                await asyncio.sleep(0.05)
        shown = await value(gateway, "key_requests_total", key="brief", outcome="ok")
        store.revoke("brief")
        await until(lambda: value(gateway, "key_requests_total", key="brief"), 0)
        text = (await gateway.client.get("/metrics")).text

    assert shown >= 1
    assert 'key="brief"' not in text


async def test_a_stranger_cannot_make_a_series(pair: Fronted) -> None:
    gateway = pair.gateway

    async def strangeness(word: str) -> None:
        client = gateway.client
        await client.post(CHAT, json=chat(model=f"model-{word}"))
        await client.post(CHAT, json=chat(model=f"model-{word}", stream=True))
        await client.get(f"/path-{word}")
        await client.get(f"/v1/models/{word}")
        await client.post(f"/v1/{word}", json={})
        await client.request(f"M{word}".upper(), CHAT)
        await client.get("/v1/usage", headers={"authorization": f"Bearer sk-{word}"})
        odd = chat(max_tokens=1, user=word) | {word: word}
        await client.post(CHAT, json=odd, headers={"x-request-id": word, "user-agent": word})

    async def names() -> set[str]:
        text = (await gateway.client.get("/metrics")).text
        return {line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    await strangeness("first")
    await gateway.client.get("/metrics")
    before = await names()
    for number in range(20):
        await strangeness(f"stranger{number}")

    assert await names() == before
    assert "stranger" not in "".join(before)


async def test_promtool_finds_nothing_to_say(pair: Fronted) -> None:
    promtool = unpacked("promtool", package="prometheus")
    text = (await pair.gateway.client.get("/metrics")).content

    checked = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, timeout=30
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


async def test_without_traces_there_are_no_exemplars(pair: Fronted) -> None:
    await pair.gateway.client.post(CHAT, json=chat(stream=True))
    text = (await pair.gateway.client.get("/metrics", headers=OPENMETRICS)).text

    samples = [s for family in openmetrics_families(text) for s in family.samples]
    assert [sample for sample in samples if sample.exemplar is not None] == []


def traced(folder: Path, simulator: Simulator, **settings: Any) -> GatewayProcess:
    """A gateway that samples traces; that no collector takes them changes no metric but one."""
    return GatewayProcess(
        folder=folder,
        VLLM_URL=simulator.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        **(UNLIMITED | settings),
    )


async def test_prometheus_keeps_the_trace_of_a_slow_request(tmp_path: Path) -> None:
    async with Simulator(PACE) as simulator, traced(tmp_path, simulator) as gateway:
        request_ids = {f"slow-{number}" for number in range(3)}
        for request_id in request_ids:
            headers = {"x-request-id": request_id}
            await gateway.client.post(CHAT, json=chat(stream=True), headers=headers)
        jobs = {"gateway": [f"127.0.0.1:{gateway.port}"]}
        async with PrometheusProcess(
            folder=tmp_path, config=quick_config(list(jobs)), targets=jobs
        ) as prometheus:
            await prometheus.until_scraped()

            async def kept() -> list[Any]:
                return await prometheus.exemplars("gateway_time_to_first_token_seconds_bucket")

            found = await prometheus.wait_until(kept)
            durations = await prometheus.exemplars("gateway_request_duration_seconds_bucket")

    traces = {line["trace_id"] for line in gateway.log_lines() if line.get("route") == CHAT}
    of_first_tokens = {e["labels"]["trace_id"] for row in found for e in row["exemplars"]}
    assert of_first_tokens
    assert of_first_tokens <= traces
    assert durations


async def test_what_is_not_sampled_is_no_exemplar(tmp_path: Path) -> None:
    never = {"OTEL_TRACES_SAMPLER": "always_off"}
    async with Simulator() as simulator, traced(tmp_path, simulator, **never) as gateway:
        await gateway.client.post(CHAT, json=chat(stream=True))
        text = (await gateway.client.get("/metrics", headers=OPENMETRICS)).text

    assert "trace_id" not in text


async def test_a_nonsensical_accept_header_gets_the_page(pair: Fronted) -> None:
    async with httpx2.AsyncClient(base_url=pair.gateway.url, trust_env=False) as anybody:
        headers = [(b"accept", b"application/openmetrics-text; version=\xff")]
        answer = await anybody.get("/metrics", headers=headers)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
