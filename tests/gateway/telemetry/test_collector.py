"""The way to a collector: the standard variables, TLS, and failures told apart."""

import socket
import subprocess
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.telemetry.collector import Collector, CollectorConfig, Undelivered, open_collector
from gateway.telemetry.traces import TracingUnusable, open_tracing
from tests.harness import otlp as harness
from tests.harness.otlp import Certificate
from tests.harness.programs import installed

ALL = "OTEL_EXPORTER_OTLP_"
OURS = "OTEL_EXPORTER_OTLP_TRACES_"


def never(what: str) -> None:
    raise AssertionError(what)


def config(**otel: str) -> CollectorConfig:
    return CollectorConfig.of(otel, warn=never)


@pytest.mark.parametrize(
    ("otel", "address", "path"),
    [
        ({f"{ALL}ENDPOINT": "http://c:4318"}, "c:4318", "/v1/traces"),
        ({f"{ALL}ENDPOINT": "http://c:4318/otel/"}, "c:4318", "/otel/v1/traces"),
        ({f"{OURS}ENDPOINT": "http://c:4318/mine"}, "c:4318", "/mine"),
        ({f"{OURS}ENDPOINT": "http://c:4318"}, "c:4318", "/"),
        (
            {f"{ALL}ENDPOINT": "http://all:1", f"{OURS}ENDPOINT": "http://me:2/x"},
            "me:2",
            "/x",
        ),
        ({f"{ALL}ENDPOINT": "http://u:p@c:4318"}, "c:4318", "/v1/traces"),
    ],
)
def test_the_endpoint_for_all_signals_gets_a_path_and_the_one_for_traces_is_taken_as_it_is(
    otel: dict[str, str], address: str, path: str
) -> None:
    found = config(**otel)

    assert (found.address, found.path) == (address, path)


@pytest.mark.parametrize(
    ("endpoint", "insecure", "is_encrypted"),
    [
        ("http://c:1", "", False),
        ("http://c:1", "false", False),
        ("https://c:1", "", True),
        ("https://c:1", "true", True),
        ("c:4317", "", True),
        ("c:4317", "true", False),
    ],
)
def test_a_scheme_says_whether_it_is_encrypted_and_without_one_the_variable(
    endpoint: str, insecure: str, is_encrypted: bool
) -> None:
    found = config(**{f"{ALL}ENDPOINT": endpoint, f"{ALL}INSECURE": insecure})

    assert (found.is_encrypted, found.address) == (is_encrypted, endpoint.rpartition("/")[2])


def test_what_is_said_for_traces_wins() -> None:
    found = config(
        **{
            f"{ALL}ENDPOINT": "http://c:1",
            f"{ALL}TIMEOUT": "10",
            f"{OURS}TIMEOUT": "2.5",
            f"{ALL}COMPRESSION": "gzip",
            f"{OURS}COMPRESSION": "none",
            f"{ALL}HEADERS": "a=all",
            f"{OURS}HEADERS": "authorization=Basic%20eA%3D%3D, x-a = b=c",
            f"{OURS}PROTOCOL": "http/protobuf",
        }
    )

    assert (found.timeout_seconds, found.is_compressed) == (2.5, False)
    assert found.headers == (("authorization", "Basic eA=="), ("x-a", "b=c"))
    assert found.protocol == "http/protobuf"


@pytest.mark.parametrize(
    ("name", "value"), [("TIMEOUT", "soon"), ("TIMEOUT", "-1"), ("PROTOCOL", "http/json")]
)
def test_what_cannot_be_read_is_warned_of(name: str, value: str) -> None:
    warnings: list[str] = []

    CollectorConfig.of({f"{ALL}ENDPOINT": "http://c:1", ALL + name: value}, warn=warnings.append)

    (warning,) = warnings
    assert f"{ALL}{name}={value}" in warning


@pytest.mark.parametrize("url", ["http://", "http://c:port", "c:99999", "/v1/traces"])
def test_an_endpoint_that_is_none_is_a_fault(url: str) -> None:
    with pytest.raises(ValueError, match=r"names no host|[Pp]ort"):
        config(**{f"{ALL}ENDPOINT": url})


def request_of(size: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(size):
        spans.add(name=f"span {number}")
    return request


def opened(collector: harness.Collector, **otel: str) -> Collector:
    return open_collector({**collector.settings, **otel}, warn=never)


KINDS = [harness.HttpCollector, harness.GrpcCollector]


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_says_why_and_whether_it_passes(kind: type[harness.Collector]) -> None:
    with kind() as there:
        sender = opened(there)
        assert sender.send(request_of(3)) == 0
        there.rejected_spans = 2
        assert sender.send(request_of(3)) == 2
        there.is_failing = True
        with pytest.raises(Undelivered, match=r"503|UNAVAILABLE: overwhelmed") as failure:
            sender.send(request_of(1))
        assert failure.value.is_transient
        sender.close()

    assert [span.name for span in there.spans[:3]] == ["span 0", "span 1", "span 2"]


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        (format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 3000, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("soon", 0, 0),
    ],
)
def test_a_collector_says_when_to_come_again_in_seconds_or_by_a_date(
    said: str, least: float, most: float
) -> None:
    with harness.HttpCollector() as there:
        there.is_failing, there.retry_after = True, said
        sender = opened(there)
        with pytest.raises(Undelivered) as failure:
            sender.send(request_of(1))
        sender.close()

    assert least <= failure.value.retry_after_seconds <= most


@pytest.mark.parametrize(
    "raw", ["a b=1", "authorization=Bearer%0Asecret", "x-name=%E2%82%ACsecret"]
)
def test_a_header_that_http_cannot_carry_is_a_fault_that_keeps_its_value(raw: str) -> None:
    with pytest.raises(ValueError, match=r"the header .* is none") as fault:
        config(**{f"{ALL}ENDPOINT": "http://c:1", f"{ALL}HEADERS": raw})

    assert "secret" not in str(fault.value)


def test_a_line_break_at_the_end_of_a_header_is_no_part_of_it() -> None:
    headers = {f"{ALL}HEADERS": "authorization=Bearer%20x%0A"}

    found = config(**{f"{ALL}ENDPOINT": "http://c:1"}, **headers)

    assert found.headers == (("authorization", "Bearer x"),)


def test_a_path_nobody_serves_is_a_failure_that_stays() -> None:
    with harness.HttpCollector() as there:
        url = f"http://127.0.0.1:{there.port}/elsewhere"
        sender = opened(there, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=url)
        with pytest.raises(Undelivered, match="HTTP 404") as failure:
            sender.send(request_of(1))
        sender.close()

    assert not failure.value.is_transient


def test_a_connection_the_collector_closed_while_idle_is_replaced_unseen() -> None:
    there = harness.HttpCollector()
    there.idle_seconds = 0.05
    with there:
        sender = opened(there)
        for _ in range(3):
            sender.send(request_of(1))
            time.sleep(0.2)  # Longer than the collector keeps it.
        sender.close()

    assert len(there.exports) == 3


def test_a_collector_that_answers_byte_by_byte_has_no_more_time_than_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=dripping, args=(listener,), daemon=True).start()
        sender = open_collector(
            {
                f"{ALL}ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}",
                f"{ALL}PROTOCOL": "http/protobuf",
                f"{ALL}TIMEOUT": "0.5",
            },
            warn=never,
        )
        began = time.monotonic()
        with pytest.raises(Undelivered, match=r"no answer within 0.5 s"):
            sender.send(request_of(1))
        sender.close()

    assert time.monotonic() - began < 2


def dripping(listener: socket.socket) -> None:
    """A collector that says a byte of its answer's head every tenth of a second."""
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n":
            connection.send(bytes([byte]))
            time.sleep(0.1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Of 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(folder / "key.pem", folder / "certificate.pem")
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=collector"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.chain)]
    openssl = installed("openssl", package="openssl")
    subprocess.run([openssl, *command.split(), *names, *files], check=True, capture_output=True)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_collector_behind_tls_is_believed_by_the_certificate_named(
    kind: type[harness.Collector], certificate: Certificate
) -> None:
    with kind(certificate) as there:
        url = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{there.port}"}
        named = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate.chain)}
        client = {
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(certificate.chain),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(certificate.key),
        }
        for settings in (url | named, url | named | client):
            sender = opened(there, **settings)
            assert sender.send(request_of(1)) == 0
            sender.close()
        stranger = opened(there, **url)
        with pytest.raises(Undelivered):
            stranger.send(request_of(1))
        stranger.close()

    assert len(there.exports) == 2


def test_a_certificate_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    for protocol in ("grpc", "http/protobuf"):
        otel = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "missing.pem"),
        }
        with pytest.raises(TracingUnusable, match="No such file"):
            open_tracing(otel, trusts=lambda address: False, log=structlog.get_logger())
