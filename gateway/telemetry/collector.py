"""The way to an OTLP collector, by gRPC or HTTP, as OTEL_EXPORTER_OTLP_* variables say."""

import gzip
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import grpc  # type: ignore[import-untyped]  # has no stubs of its own
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from gateway.telemetry.sampling import Warn

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
HTTP_PATH = "/v1/traces"
# OTLP's specification, "Failures": what may be sent again, all else may not.
TRANSIENT_CODES = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
DEFAULT_SECONDS = 10.0
ANSWER_BYTES_MAX = 64 * 1024
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")


class Undelivered(Exception):
    """The collector did not take a batch; says why. A transient failure may be tried again."""

    def __init__(
        self, reason: str, *, is_transient: bool = True, retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.is_transient = is_transient
        self.retry_after_seconds = retry_after_seconds


class Collector(Protocol):
    """Where spans go; called from one thread, but for `close`, which ends a call that runs."""

    def send(self, request: ExportTraceServiceRequest) -> int:
        """How many spans of it were refused. Raises Undelivered."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """`address` is host:port; `certificate` None trusts the system's authorities."""

    protocol: str
    address: str
    path: str
    is_encrypted: bool
    headers: tuple[tuple[str, str], ...]
    is_compressed: bool
    timeout_seconds: float
    certificate: Path | None
    client_certificate: Path | None
    client_key: Path | None

    @classmethod
    def of(cls, otel: Mapping[str, str], *, warn: Warn) -> "CollectorConfig":
        """A variable for traces alone wins over the one for all signals. Raises ValueError."""

        def said(word: str) -> str:
            for name in (f"OTEL_EXPORTER_OTLP_TRACES_{word}", f"OTEL_EXPORTER_OTLP_{word}"):
                if value := otel.get(name, "").strip():
                    return value
            return ""

        def file(word: str) -> Path | None:
            return Path(value) if (value := said(word)) else None

        protocol = said("PROTOCOL") or "grpc"
        if protocol not in ("grpc", "http/protobuf"):
            warn(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: unknown here; http/protobuf is used")
        url = said("ENDPOINT")
        parts = urlsplit(url if "//" in url else f"//{url}")
        is_plain = parts.scheme == "http" or said("INSECURE").lower() == "true"
        if not parts.hostname or parts.port == 0:
            raise ValueError(f"'{url}' names no host")
        own = otel.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
        return cls(
            protocol=protocol,
            address=parts.netloc.rpartition("@")[2],
            path=(parts.path or "/") if own else parts.path.rstrip("/") + HTTP_PATH,
            is_encrypted=parts.scheme == "https" or not is_plain,
            headers=_headers(said("HEADERS")),
            is_compressed=said("COMPRESSION").lower() == "gzip",
            timeout_seconds=_seconds(said("TIMEOUT"), warn),
            certificate=file("CERTIFICATE"),
            client_certificate=file("CLIENT_CERTIFICATE"),
            client_key=file("CLIENT_KEY"),
        )


def open_collector(otel: Mapping[str, str], *, warn: Warn) -> Collector:
    """Nothing is connected yet. Raises OSError for a certificate that cannot be read, and
    ValueError for an endpoint that is none."""
    config = CollectorConfig.of(otel, warn=warn)
    return GrpcCollector(config) if config.protocol == "grpc" else HttpCollector(config)


class GrpcCollector:
    """OTLP/gRPC. The channel connects by itself, and again after a failure."""

    def __init__(self, config: CollectorConfig) -> None:
        self._config = config
        self._headers = tuple((name.lower(), value) for name, value in config.headers)
        options = (("grpc.primary_user_agent", "vllm-gateway"),)
        if config.is_encrypted:
            credentials = grpc.ssl_channel_credentials(
                *(file and file.read_bytes() for file in (config.certificate, config.client_key)),
                config.client_certificate and config.client_certificate.read_bytes(),
            )
            self._channel = grpc.secure_channel(config.address, credentials, options)
        else:
            self._channel = grpc.insecure_channel(config.address, options)
        self._export = self._channel.unary_unary(
            EXPORT_METHOD,
            request_serializer=ExportTraceServiceRequest.SerializeToString,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )

    def send(self, request: ExportTraceServiceRequest) -> int:
        gzipped = grpc.Compression.Gzip if self._config.is_compressed else None
        try:
            answer: ExportTraceServiceResponse = self._export(
                request,
                timeout=self._config.timeout_seconds,
                metadata=self._headers,
                compression=gzipped,
            )
        except grpc.RpcError as error:
            code = error.code()
            reason = f"{code.name}: {error.details()}"
            raise Undelivered(reason, is_transient=code in TRANSIENT_CODES) from None
        except ValueError as error:
            raise Undelivered(str(error), is_transient=False) from None  # The channel is closed.
        return int(answer.partial_success.rejected_spans)

    def close(self) -> None:
        self._channel.close()


class HttpCollector:
    """OTLP/HTTP with protobuf over one kept-alive connection."""

    def __init__(self, config: CollectorConfig) -> None:
        self._config = config
        self._is_closed = self._is_late = False
        timeout = config.timeout_seconds
        if config.is_encrypted:
            context = ssl.create_default_context(cafile=config.certificate)
            if config.client_certificate is not None:
                context.load_cert_chain(config.client_certificate, config.client_key)
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                config.address, timeout=timeout, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(config.address, timeout=timeout)
        self._headers = {"content-type": "application/x-protobuf", **dict(config.headers)}
        if config.is_compressed:
            self._headers["content-encoding"] = "gzip"

    def send(self, request: ExportTraceServiceRequest) -> int:
        body = request.SerializeToString()
        if self._config.is_compressed:
            body = gzip.compress(body, compresslevel=1)
        was_kept = self._connection.sock is not None
        self._is_late = False
        try:
            with self._patience():
                return self._post(body)
        except (http.client.HTTPException, OSError) as error:
            self._connection.close()
            if self._is_late or isinstance(error, TimeoutError):
                seconds = self._config.timeout_seconds
                raise Undelivered(f"no answer within {seconds:g} s") from None
            if was_kept and not self._is_closed:
                # Collectors close what is idle; that is no trouble.
                return self.send(request)
            raise Undelivered(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        self._is_closed = True
        self._hang_up()
        self._connection.close()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """For the export as a whole: the socket's own is for each read, and a collector that says
        a byte now and then would never end it."""
        timer = threading.Timer(self._config.timeout_seconds, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self._is_late = True
        self._hang_up()

    def _hang_up(self) -> None:
        """Wake a thread that waits for the collector."""
        if (open_socket := self._connection.sock) is not None:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)

    def _post(self, body: bytes) -> int:
        self._connection.request("POST", self._config.path, body, self._headers)
        answer = self._connection.getresponse()
        words = answer.read(ANSWER_BYTES_MAX)
        if answer.status >= 300:
            self._connection.close()
            raise Undelivered(
                f"HTTP {answer.status} {answer.reason}",
                is_transient=answer.status in TRANSIENT_STATUSES,
                retry_after_seconds=_retry_after(answer.getheader("retry-after")),
            )
        if not answer.isclosed():
            self._connection.close()
        try:
            result = ExportTraceServiceResponse.FromString(words)
        except ValueError:
            return 0  # A collector that answers in other words has taken them all the same.
        return int(result.partial_success.rejected_spans)


def _headers(raw: str) -> tuple[tuple[str, str], ...]:
    """`name=value` pairs, comma-separated and percent-encoded, as W3C Baggage writes them.

    Raises ValueError, without the value: it may be a secret.
    """
    pairs = (part.partition("=") for part in raw.split(",") if "=" in part)
    headers = tuple((unquote(name).strip(), unquote(value).strip()) for name, _, value in pairs)
    for name, value in headers:
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the header {name!a} is none that HTTP can carry")
    return headers


def _seconds(raw: str, warn: Warn) -> float:
    """As OpenTelemetry for Python reads it: seconds, where the specification says milliseconds."""
    try:
        seconds = float(raw or DEFAULT_SECONDS)
    except ValueError:
        seconds = 0.0
    if seconds > 0:
        return seconds
    warn(f"OTEL_EXPORTER_OTLP_TIMEOUT={raw}: must be seconds above 0; {DEFAULT_SECONDS:g} is used")
    return DEFAULT_SECONDS


def _retry_after(raw: str | None) -> float:
    """Seconds, or until a date (RFC 9110, 10.2.3)."""
    if raw is None or raw.isdecimal():
        return float(raw or 0)
    try:
        moment = parsedate_to_datetime(raw)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        return 0.0
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
