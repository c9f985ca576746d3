"""OTLP traces: one server span per request at a real receiver, and nothing unless asked for."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.gateway import GatewayProcess, chat

CHAT = "/v1/chat/completions"
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PROMPT = "what-nobody-else-may-read"


class Receiver:
    """A little OTLP/HTTP collector on a socket."""

    def __init__(self) -> None:
        self.exports: list[ExportTraceServiceRequest] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for export in self.exports
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    async def received(self, request_id: str) -> Span:
        """The span of that request; exactly one."""
        async with asyncio.timeout(5):
            while True:
                found = [s for s in self.spans if text(s, "gateway.request_id") == request_id]
                if found:
                    assert len(found) == 1
                    return found[0]
                await asyncio.sleep(0.02)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(
                    line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line
                )
                body = await reader.readexactly(int(fields[b"content-length"]))
                self.exports.append(ExportTraceServiceRequest.FromString(body))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n"
                    b"content-length: 0\r\n\r\n"
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def value(span: Span, name: str) -> AnyValue:
    return next((pair.value for pair in span.attributes if pair.key == name), AnyValue())


def text(span: Span, name: str) -> str:
    return value(span, name).string_value


def number(span: Span, name: str) -> int:
    return value(span, name).int_value


def traced(folder: Path, simulator: Simulator, endpoint: str) -> GatewayProcess:
    return GatewayProcess(
        folder=folder,
        VLLM_URL=simulator.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as running:
        yield running


async def test_a_request_is_one_server_span_with_its_facts_and_no_content(
    simulator: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    async with traced(tmp_path, simulator, receiver.url) as gateway:
        answer = await gateway.client.post(
            CHAT, json=chat(PROMPT, stream=True), headers={"x-request-id": "span-1"}
        )
        seen = simulator.requests[-1].headers
        span = await receiver.received("span-1")
        (line,) = await gateway.logged(request_id="span-1")

    assert answer.status_code == 200
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.name == f"POST {CHAT}"
    assert text(span, "http.route") == CHAT
    assert number(span, "http.response.status_code") == 200
    assert text(span, "gen_ai.request.model") == "sim-model"
    assert number(span, "gen_ai.usage.input_tokens") == line["input_tokens"] > 0
    assert number(span, "gen_ai.usage.output_tokens") == line["output_tokens"] == 8
    assert span.trace_id.hex() == line["trace_id"]
    assert seen["traceparent"].startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")
    exported = b"".join(export.SerializeToString() for export in receiver.exports)
    assert PROMPT.encode() not in exported
    assert gateway.key.encode() not in exported


async def test_an_error_is_a_span_too(
    simulator: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    async with traced(tmp_path, simulator, receiver.url) as gateway:
        await gateway.client.post(CHAT, json=chat(model="x"), headers={"x-request-id": "span-2"})
        span = await receiver.received("span-2")

    assert number(span, "http.response.status_code") == 404
    assert text(span, "error.type") == "model_not_found"


async def test_a_callers_trace_is_linked_and_does_not_become_ours(
    simulator: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    async with traced(tmp_path, simulator, receiver.url) as gateway:
        headers = {"x-request-id": "span-3", "traceparent": CALLER}
        await gateway.client.post(CHAT, json=chat(), headers=headers)
        span = await receiver.received("span-3")

    assert [link.trace_id.hex() for link in span.links] == [CALLER.split("-")[1]]
    assert span.trace_id.hex() != CALLER.split("-")[1]


async def test_the_last_spans_are_sent_at_the_end(
    simulator: Simulator, receiver: Receiver, tmp_path: Path
) -> None:
    gateway = traced(tmp_path, simulator, receiver.url)
    gateway.settings["OTEL_BSP_SCHEDULE_DELAY"] = "60000"
    async with gateway:
        await gateway.client.get("/v1/models", headers={"x-request-id": "span-4"})

    await receiver.received("span-4")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_dead_collector_delays_neither_answers_nor_the_end(
    simulator: Simulator, tmp_path: Path, protocol: str
) -> None:
    gateway = traced(tmp_path, simulator, "http://127.0.0.1:9")
    gateway.settings["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    async with gateway:
        async with asyncio.timeout(2):
            for _ in range(20):
                answer = await gateway.client.post(CHAT, json=chat())
                assert answer.status_code == 200
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended(within_seconds=3) == 0


async def test_without_an_endpoint_the_sdk_is_not_even_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from gateway.app import Application; from gateway.clock import SystemClock;"
        "from gateway.settings import Settings; from gateway.telemetry.logs import Logging;"
        "Application(Settings.from_env({'GATEWAY_API_KEYS': 'sk-test-abcdefgh'}),"
        " logging=Logging(level='INFO', form='json'), clock=SystemClock());"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env={"PATH": os.environ["PATH"]}
    )

    assert await process.wait() == 0


async def test_a_disabled_sdk_sends_nothing(receiver: Receiver, tmp_path: Path) -> None:
    async with Simulator(SimulatorConfig()) as simulator:
        gateway = traced(tmp_path, simulator, receiver.url)
        gateway.settings["OTEL_SDK_DISABLED"] = "true"
        async with gateway:
            await gateway.client.post(CHAT, json=chat(), headers={"traceparent": CALLER})

    assert receiver.exports == []
    # A caller's own trace still passes through.
    assert simulator.requests[-1].headers["traceparent"] == CALLER
