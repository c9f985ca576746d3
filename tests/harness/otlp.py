"""OTLP collectors on real sockets, by gRPC and HTTP: what they got, and how they may fail."""

import asyncio
import gzip
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc  # type: ignore[import-untyped]  # has no stubs of its own
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WAIT_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Trace:
    """What one request left: its server span and that span's children, oldest first."""

    server: Span
    clients: list[Span]

    @property
    def client(self) -> Span:
        """The only one."""
        (client,) = self.clients
        return client


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server behind TLS shows, and the key to it."""

    key: Path
    chain: Path


class Collector:
    """What both protocols share: the exports so far, and what the next ones are told.

    `is_failing` refuses batches as a collector that is overwhelmed does; `rejected_spans` is
    what it says it did not want of each batch. With a certificate it is behind TLS.
    """

    protocol = ""

    def __init__(self, certificate: Certificate | None = None) -> None:
        self.certificate = certificate
        self.exports: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.is_failing = False
        self.rejected_spans = 0
        self.port = 0

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        raise NotImplementedError

    @property
    def settings(self) -> dict[str, str]:
        """The variables that lead a gateway here, and make it send soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for export in list(self.exports)
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def everything(self) -> bytes:
        """All that was exported, as bytes to search in."""
        return b"".join(export.SerializeToString() for export in self.exports)

    async def trace_of(self, request_id: str) -> Trace:
        """Waits for the spans of that request, which come together."""
        server = await self._found(lambda s: facts(s).get("gateway.request_id") == request_id)
        clients = [s for s in self.spans if s.parent_span_id == server.span_id]
        return Trace(server, sorted(clients, key=lambda span: span.start_time_unix_nano))

    async def _found(self, is_wanted: Callable[[Span], bool]) -> Span:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                found = [span for span in self.spans if is_wanted(span)]
                if found:
                    assert len(found) == 1
                    return found[0]
                await asyncio.sleep(0.02)

    def take(
        self, request: ExportTraceServiceRequest, headers: Mapping[str, str]
    ) -> ExportTraceServiceResponse:
        self.headers.append(dict(headers))
        self.exports.append(request)
        refused = ExportTracePartialSuccess(rejected_spans=self.rejected_spans)
        return ExportTraceServiceResponse(partial_success=refused)


class GrpcCollector(Collector, TraceServiceServicer):
    """OTLP/gRPC."""

    protocol = "grpc"

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(max_workers=2))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated
        if self.certificate is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            pair = (self.certificate.key.read_bytes(), self.certificate.chain.read_bytes())
            credentials = grpc.ssl_server_credentials([pair])
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop(grace=None).wait()

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> Any:
        if self.is_failing:
            context.abort(grpc.StatusCode.UNAVAILABLE, "overwhelmed")
        return self.take(request, dict(context.invocation_metadata()))


class HttpCollector(Collector):
    """OTLP/HTTP with protobuf, gzipped or not. Closes a connection idle for `idle_seconds`, and
    says `retry_after` where it is not empty."""

    protocol = "http/protobuf"
    idle_seconds: float | None = None
    retry_after = ""

    def __enter__(self) -> Self:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = collector.idle_seconds

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if collector.is_failing or self.path != "/v1/traces":
                    self._answer(503 if collector.is_failing else 404, b"")
                    return
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                named = {name.lower(): value for name, value in self.headers.items()}
                answer = collector.take(ExportTraceServiceRequest.FromString(body), named)
                self._answer(200, answer.SerializeToString())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(body)))
                if collector.retry_after:
                    self.send_header("retry-after", collector.retry_after)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate.chain, self.certificate.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class SilentCollector:
    """Takes connections and says nothing: what a collector that hangs looks like."""

    async def __aenter__(self) -> Self:
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._hold, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)


def facts(of: Any) -> dict[str, Any]:
    """The attributes of a span, an event or a resource, as Python's values."""
    pairs: list[KeyValue] = list(of.attributes)
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


def events(span: Span) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, facts(event)) for event in span.events]
