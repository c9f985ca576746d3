"""OTLP traces at real collectors: what each request leaves, and what a bad collector cannot do."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.callers import Departure, RawCall
from tests.harness.gateway import GatewayProcess, chat, free_port
from tests.harness.otlp import (
    Collector,
    GrpcCollector,
    HttpCollector,
    SilentCollector,
    events,
    facts,
)

CHAT = "/v1/chat/completions"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
PROMPT = "what-nobody-else-may-read"
SAMPLED = 1


@pytest.fixture
def collector() -> Iterator[HttpCollector]:
    with HttpCollector() as running:
        yield running


@asynccontextmanager
async def traced(
    folder: Path, collector: Collector, *simulators: Simulator, **settings: str
) -> AsyncIterator[GatewayProcess]:
    urls = ",".join(simulator.url for simulator in simulators)
    merged: dict[str, Any] = {"CIRCUIT_FAILURE_THRESHOLD": "1000", **collector.settings, **settings}
    async with GatewayProcess(folder=folder, VLLM_URL=urls, **merged) as gateway:
        yield gateway


async def ask(gateway: GatewayProcess, name: str, *, trace: str = "", **fields: Any) -> int:
    headers = {"x-request-id": name} | ({"traceparent": trace} if trace else {})
    answer = await gateway.client.post(CHAT, json=chat(PROMPT, **fields), headers=headers)
    return answer.status_code


def port_of(simulator: Simulator) -> int:
    return int(simulator.url.rpartition(":")[2])


def parent_seen(simulator: Simulator, path: str = CHAT) -> tuple[str, str, bool]:
    """Trace, parent and sampled flag of the last request that reached vLLM."""
    last = [request for request in simulator.requests if request.path == path][-1]
    version, trace_id, span_id, flags = last.headers["traceparent"].split("-")
    assert version == "00"
    return trace_id, span_id, bool(int(flags, 16) & SAMPLED)


@pytest.mark.parametrize("kind", [HttpCollector, GrpcCollector])
async def test_a_stream_is_a_server_span_and_a_client_span_by_either_protocol(
    kind: type[HttpCollector | GrpcCollector], simulator: Simulator, tmp_path: Path
) -> None:
    secret = "Bearer%20collector-secret-1"
    extra = {
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={secret},x-tenant=blue",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    with kind() as collector:
        async with traced(tmp_path, collector, simulator, **extra) as gateway:
            await ask(gateway, "stream-1", stream=True)
            trace = await collector.trace_of("stream-1")
            (line,) = await gateway.logged(request_id="stream-1")

    server, client = trace.server, trace.client
    assert (server.kind, server.name) == (Span.SPAN_KIND_SERVER, f"POST {CHAT}")
    assert facts(server) == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "url.scheme": "http",
        "gateway.request_id": "stream-1",
        "gateway.outcome": "ok",
        "gateway.key_id": "test",
    }
    assert (client.kind, client.name) == (Span.SPAN_KIND_CLIENT, "chat sim-model")
    seen = facts(client)
    assert 0 < seen.pop("gen_ai.response.time_to_first_chunk") < 5
    assert seen == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "sim-model",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 8,
        "gen_ai.usage.input_tokens": line["input_tokens"],
        "gen_ai.usage.output_tokens": 8,
        "server.address": "127.0.0.1",
        "server.port": port_of(simulator),
    }
    assert events(client) == [("first_token", {})]
    assert server.start_time_unix_nano <= client.start_time_unix_nano
    assert client.start_time_unix_nano <= client.events[0].time_unix_nano
    assert client.events[0].time_unix_nano <= client.end_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    assert (line["trace_id"], line["span_id"]) == (server.trace_id.hex(), server.span_id.hex())
    assert parent_seen(simulator) == (client.trace_id.hex(), client.span_id.hex(), True)
    resource = facts(collector.exports[0].resource_spans[0].resource)
    assert resource["service.name"] == "vllm-gateway"
    assert resource["deployment.environment.name"] == "test"
    assert collector.headers[0]["x-tenant"] == "blue"
    assert collector.headers[0]["authorization"] == "Bearer collector-secret-1"
    for hidden in (PROMPT, gateway.key, "collector-secret-1"):
        assert hidden.encode() not in collector.everything
        assert hidden not in gateway.log_path.read_text()


async def test_what_goes_wrong_shows_where_and_how(
    collector: HttpCollector, simulator: Simulator, tmp_path: Path
) -> None:
    async with traced(tmp_path, collector, simulator) as gateway:
        await ask(gateway, "unknown", model="nobody-serves-this")
        simulator.arm(Fault(FaultKind.ERROR_500, count=1))
        await ask(gateway, "broken")
        simulator.arm(Fault(FaultKind.CLOSE_MID_STREAM, count=1))
        with pytest.raises(httpx2.RemoteProtocolError):
            await ask(gateway, "cut", stream=True)
        simulator.arm(Fault(FaultKind.HANG_MID_STREAM, count=1))
        body = chat(stream=True)
        async with RawCall(gateway, body, request_id="left") as call:
            await call.read_until(b"data:")
            call.leave(Departure.RST)
        await gateway.client.get("/health", headers={"x-request-id": "probe"})
        await gateway.client.get("/nowhere/at/all", headers={"x-request-id": "nowhere"})
        unknown, broken, cut, left, nowhere = [
            await collector.trace_of(name)
            for name in ("unknown", "broken", "cut", "left", "nowhere")
        ]

    assert facts(unknown.server)["error.type"] == "model_not_found"
    assert (unknown.clients, unknown.server.status.code) == ([], Status.STATUS_CODE_UNSET)
    assert facts(broken.client)["error.type"] == "status_5xx"
    assert facts(broken.server)["http.response.status_code"] == 502
    assert broken.server.status.code == broken.client.status.code == Status.STATUS_CODE_ERROR
    assert facts(cut.client)["error.type"] == "truncated"
    assert facts(cut.server)["gateway.outcome"] == "truncated"
    assert cut.server.status.code == Status.STATUS_CODE_ERROR
    assert facts(left.client)["error.type"] == "client_disconnected"
    assert facts(left.server)["gateway.outcome"] == "cancelled"
    assert left.client.status.code == left.server.status.code == Status.STATUS_CODE_UNSET
    assert (nowhere.server.name, "http.route" in facts(nowhere.server)) == ("GET", False)
    assert b"nobody-serves-this" not in collector.everything
    assert b"nowhere/at" not in collector.everything
    # Probes and scrapes would fill any store.
    assert b"probe" not in collector.everything


async def test_a_failover_is_an_event_and_two_client_spans(
    collector: HttpCollector, tmp_path: Path
) -> None:
    async with (
        Simulator(SimulatorConfig()) as first,
        Simulator(SimulatorConfig()) as second,
        traced(tmp_path, collector, first, second) as gateway,
    ):
        while await gateway.metric("gateway_upstream_healthy") < 2:
            await asyncio.sleep(0.02)
        first.arm(Fault(FaultKind.ERROR_500))
        for number in range(2):
            assert await ask(gateway, f"over-{number}") == 200
        traces = [await collector.trace_of(f"over-{number}") for number in range(2)]

    (moved,) = [trace for trace in traces if len(trace.clients) == 2]
    failed, answered = moved.clients
    assert facts(failed)["server.port"] == port_of(first)
    assert facts(failed)["error.type"] == "status_5xx"
    assert facts(answered)["server.port"] == port_of(second)
    assert "error.type" not in facts(answered)
    assert "gen_ai.usage.output_tokens" not in facts(failed)
    assert facts(answered)["gen_ai.usage.output_tokens"] == 8
    assert parent_seen(first)[1] == failed.span_id.hex()
    ((name, said),) = events(moved.server)
    upstream = f"127.0.0.1:{port_of(first)}"
    assert (name, said) == (
        "failover",
        {"gateway.upstream": upstream, "error.type": "status_5xx"},
    )
    assert moved.server.status.code == Status.STATUS_CODE_UNSET


async def test_counting_a_prompt_is_a_call_of_its_own(
    collector: HttpCollector, simulator: Simulator, tmp_path: Path
) -> None:
    async with traced(tmp_path, collector, simulator, DAILY_TOKEN_QUOTA="40") as gateway:
        assert await ask(gateway, "counted", max_tokens=1) == 200
        trace = await collector.trace_of("counted")

    counting, answering = trace.clients
    assert (counting.name, answering.name) == ("tokenize sim-model", "chat sim-model")
    assert "gen_ai.usage.input_tokens" not in facts(counting)
    assert parent_seen(simulator, "/tokenize")[1] == counting.span_id.hex()


async def test_a_strangers_trace_is_linked_and_does_not_become_ours(
    collector: HttpCollector, simulator: Simulator, tmp_path: Path
) -> None:
    async with traced(
        tmp_path, collector, simulator, TRUST_INCOMING_TRACES="10.0.0.0/8"
    ) as gateway:
        await ask(gateway, "stranger", trace=CALLER)
        span = (await collector.trace_of("stranger")).server

    ((link_trace, link_span),) = [(k.trace_id.hex(), k.span_id.hex()) for k in span.links]
    assert (link_trace, link_span) == (TRACE, PARENT)
    assert span.trace_id.hex() != TRACE
    assert span.parent_span_id == b""
    assert parent_seen(simulator)[0] == span.trace_id.hex()


async def test_a_trusted_callers_trace_is_continued_with_its_decision_and_its_state(
    collector: HttpCollector, simulator: Simulator, tmp_path: Path
) -> None:
    extra = {"TRUST_INCOMING_TRACES": "127.0.0.0/8", "TRUSTED_PROXIES": "127.0.0.1"}
    headers = {"x-request-id": "friend", "traceparent": CALLER, "tracestate": "a=b,c=d"}
    async with traced(tmp_path, collector, simulator, **extra) as gateway:
        await ask(gateway, "unsampled", trace=UNSAMPLED)
        left_alone = parent_seen(simulator)
        await gateway.client.post(CHAT, json=chat(), headers=headers)
        state = simulator.requests[-1].headers["tracestate"]
        trace = await collector.trace_of("friend")
        afar = {**headers, "x-request-id": "afar", "x-forwarded-for": "203.0.113.9"}
        await gateway.client.post(CHAT, json=chat(), headers=afar)
        through_proxy = await collector.trace_of("afar")
        (line,) = await gateway.logged(request_id="unsampled")

    assert (trace.server.trace_id.hex(), trace.server.parent_span_id.hex()) == (TRACE, PARENT)
    assert trace.client.trace_id.hex() == TRACE
    assert (list(trace.server.links), state) == ([], "a=b,c=d")
    # The address that counts is the client's, as trusted proxies tell it.
    assert through_proxy.server.trace_id.hex() != TRACE
    assert left_alone[0] == TRACE and left_alone[1] != PARENT and not left_alone[2]
    assert "trace_id" not in line
    assert len([span for span in collector.spans if span.trace_id.hex() == TRACE]) == 2


async def test_what_is_not_sampled_is_not_exported_and_vllm_is_told_so(
    collector: HttpCollector, simulator: Simulator, tmp_path: Path
) -> None:
    extra = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    async with traced(tmp_path, collector, simulator, **extra) as gateway:
        await ask(gateway, "quiet-1", trace=CALLER)
        trace_id, _, is_sampled = parent_seen(simulator)
        (line,) = await gateway.logged(request_id="quiet-1")

    assert trace_id != TRACE and not is_sampled
    assert "trace_id" not in line
    assert collector.spans == []


async def test_the_last_spans_are_sent_at_the_end(
    collector: HttpCollector, simulator: Simulator, tmp_path: Path
) -> None:
    async with traced(tmp_path, collector, simulator, OTEL_BSP_SCHEDULE_DELAY="60000") as gateway:
        await gateway.client.get("/v1/models", headers={"x-request-id": "last"})

    assert (await collector.trace_of("last")).clients == []


TROUBLE = "traces do not reach the collector"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("is_silent", [False, True], ids=["dead", "hanging"])
async def test_a_bad_collector_delays_neither_answers_nor_the_end(
    simulator: Simulator, tmp_path: Path, protocol: str, is_silent: bool
) -> None:
    async with SilentCollector() as silent:
        port = silent.port if is_silent else free_port()
        settings: dict[str, Any] = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://user:collector-password@127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8",
        }
        async with GatewayProcess(folder=tmp_path, VLLM_URL=simulator.url, **settings) as gateway:
            async with asyncio.timeout(4):
                for _ in range(20):
                    assert await ask(gateway, "x") == 200
            await gateway.logged(event=TROUBLE)
            dropped = await gateway.metric("gateway_spans_dropped_total")
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended(within_seconds=3) == 0

        said = [line for line in gateway.log_lines() if line["level"] in ("warning", "error")]
        log = gateway.log_path.read_text()

    # A queue of 8 spans, some of them perhaps on their way, and 40 that were made.
    assert dropped >= 16
    assert [line["event"] for line in said] == [TROUBLE, "spans were not sent before the end"]
    assert all(line.startswith("{") for line in log.splitlines())
    assert "collector-password" not in log


async def test_a_collector_that_goes_leaves_no_line_but_ours(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with AsyncExitStack() as standing:
        with GrpcCollector() as collector:
            gateway = await standing.enter_async_context(traced(tmp_path, collector, simulator))
            await ask(gateway, "before")
            await collector.trace_of("before")
        await ask(gateway, "after")
        await gateway.logged(event=TROUBLE)
        log = gateway.log_path.read_text()

    assert [line for line in log.splitlines() if not line.startswith("{")] == []


@pytest.mark.parametrize("kind", [HttpCollector, GrpcCollector])
async def test_what_waits_for_an_overwhelmed_collector_arrives_when_it_is_well(
    kind: type[HttpCollector | GrpcCollector], simulator: Simulator, tmp_path: Path
) -> None:
    with kind() as collector:
        collector.is_failing = True
        async with traced(tmp_path, collector, simulator) as gateway:
            await ask(gateway, "patient")
            (trouble,) = await gateway.logged(event=TROUBLE)
            collector.rejected_spans = 1
            collector.is_failing = False
            await collector.trace_of("patient")
            await gateway.logged(event="traces reach the collector again")
            refused = await gateway.metric("gateway_spans_dropped_total")

    assert "503" in trouble["reason"] or "UNAVAILABLE" in trouble["reason"]
    assert refused >= 1


async def test_without_an_endpoint_no_library_of_tracing_is_even_imported(tmp_path: Path) -> None:
    # Redis' library imports what there is of them, so that it must be absent too.
    script = (
        "import sys; import gateway.__main__;"
        "from gateway.app import Application; from gateway.clock import SystemClock;"
        "from gateway.settings import Settings; from gateway.telemetry.logs import Logging;"
        "Application(Settings.from_env({'GATEWAY_API_KEYS': 'sk-test-abcdefgh'}),"
        " logging=Logging(level='INFO', form='json'), clock=SystemClock());"
        "sdk = ('opentelemetry', 'grpc', 'google', 'redis');"
        "sys.exit(any(name.startswith(sdk) for name in sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env={"PATH": os.environ["PATH"]}
    )

    assert await process.wait() == 0


async def test_a_disabled_sdk_sends_nothing(
    collector: HttpCollector, simulator: Simulator, tmp_path: Path
) -> None:
    async with traced(tmp_path, collector, simulator, OTEL_SDK_DISABLED="true") as gateway:
        await ask(gateway, "off", trace=CALLER)

    assert collector.exports == []
    # A caller's own trace still passes through.
    assert simulator.requests[-1].headers["traceparent"] == CALLER
