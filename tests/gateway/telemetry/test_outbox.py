"""Outbox: spans leave in batches, in bounded memory, and nobody waits for a bad collector."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.exchange import Exchange, Outcome
from gateway.telemetry.collector import Undelivered
from gateway.telemetry.outbox import Outbox, OutboxConfig
from gateway.telemetry.spans import FinishedTrace


class ScriptedCollector:
    """Takes batches, after failing with what `failures` holds; waits while `gate` is shut."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_entered = threading.Event()
        self.rejected = 0

    def send(self, request: ExportTraceServiceRequest) -> int:
        self.is_entered.set()
        self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.sizes.append(len(request.resource_spans[0].scope_spans[0].spans))
        return self.rejected

    def close(self) -> None:
        return


class Lines:
    """A log that remembers."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.log = structlog.wrap_logger(None, processors=[self._keep])

    def _keep(self, _logger: object, _method: str, event: Any) -> Any:
        self.said.append(dict(event))
        raise structlog.DropEvent

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.said]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def collector() -> Iterator[ScriptedCollector]:
    made = ScriptedCollector()
    yield made
    made.gate.set()


def trace() -> FinishedTrace:
    exchange = Exchange(request_id="r", method="GET", started_at=0.0, client_address="::1")
    return FinishedTrace(exchange, Outcome.OK, 1.0, 1, 1, 1, 1, b"", None, None, ())


def outbox_of(collector: ScriptedCollector, lines: Lines, **config: Any) -> Outbox:
    return Outbox(collector, resource=Resource(), config=OutboxConfig(**config), log=lines.log)


def test_what_is_queued_is_sent_at_the_end_in_batches(
    collector: ScriptedCollector, lines: Lines
) -> None:
    outbox = outbox_of(collector, lines, batch_spans=4, queue_spans=100)

    for _ in range(10):
        outbox.put(trace())
    outbox.close()

    assert sum(collector.sizes) == 10
    assert max(collector.sizes) <= 4
    assert (outbox.dropped_spans, lines.said) == (0, [])


def test_a_full_queue_drops_and_counts_and_blocks_nobody(
    collector: ScriptedCollector, lines: Lines
) -> None:
    collector.gate.clear()
    outbox = outbox_of(collector, lines, batch_spans=5, queue_spans=10)

    began = time.perf_counter()
    for _ in range(10_000):
        outbox.put(trace())
    assert time.perf_counter() - began < 2
    assert outbox.dropped_spans == 10_000 - 10
    collector.gate.set()
    outbox.close()

    assert sum(collector.sizes) == 10


def test_a_collector_that_is_away_for_a_moment_loses_nothing(
    collector: ScriptedCollector, lines: Lines
) -> None:
    collector.failures = [Undelivered("away"), Undelivered("away")]
    outbox = outbox_of(collector, lines, delay_seconds=0.01)

    outbox.put(trace())
    deadline = time.monotonic() + 5
    while not collector.sizes and time.monotonic() < deadline:
        time.sleep(0.01)
    outbox.close()

    assert (collector.sizes, outbox.dropped_spans) == ([1], 0)
    # Said once, though it failed twice.
    assert lines.events == ["traces do not reach the collector", "traces reach the collector again"]


def test_what_may_not_be_sent_again_is_dropped_and_so_is_what_was_refused(
    collector: ScriptedCollector, lines: Lines
) -> None:
    collector.failures = [Undelivered("INVALID_ARGUMENT", is_transient=False)]
    collector.rejected = 1
    collector.gate.clear()
    outbox = outbox_of(collector, lines, batch_spans=2)

    for _ in range(4):
        outbox.put(trace())
    collector.gate.set()
    outbox.close()

    assert collector.sizes == [2]
    assert outbox.dropped_spans == 3


def test_a_trace_that_cannot_be_encoded_costs_no_other(
    collector: ScriptedCollector, lines: Lines
) -> None:
    outbox = outbox_of(collector, lines, queue_spans=3, batch_spans=3)

    outbox.put(trace())
    outbox.put(trace()._replace(span_id=-1))
    outbox.put(trace())
    outbox.close()

    assert (collector.sizes, outbox.dropped_spans) == ([2], 1)
    assert lines.events[0] == "a trace cannot be encoded"


def test_a_fault_of_ours_does_not_end_the_sending(
    collector: ScriptedCollector, lines: Lines
) -> None:
    collector.failures = [ValueError("a header that nobody foresaw")]
    collector.gate.clear()
    outbox = outbox_of(collector, lines, batch_spans=1)

    outbox.put(trace())
    outbox.put(trace())
    collector.gate.set()
    outbox.close()

    assert (collector.sizes, outbox.dropped_spans) == ([1], 1)
    assert lines.events[0] == "spans cannot be sent"


def test_no_password_of_an_address_is_said(collector: ScriptedCollector, lines: Lines) -> None:
    collector.failures = [Undelivered("http://me:pass-word@collector:4318", is_transient=False)]
    outbox = outbox_of(collector, lines)

    outbox.put(trace())
    outbox.close()

    assert lines.said[0]["reason"] == "http://collector:4318"


def test_the_end_waits_a_second_for_a_collector_that_hangs(
    collector: ScriptedCollector, lines: Lines
) -> None:
    collector.gate.clear()
    outbox = outbox_of(collector, lines, delay_seconds=0.01)
    outbox.put(trace())
    assert collector.is_entered.wait(5)

    began = time.monotonic()
    outbox.close()

    assert 0.9 < time.monotonic() - began < 2
    assert lines.said == [{"event": "spans were not sent before the end", "spans": 1}]


def test_numbers_of_the_environment_that_cannot_be_read_are_warned_of() -> None:
    warnings: list[str] = []
    otel = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "900",
        "OTEL_BSP_SCHEDULE_DELAY": "soon",
    }

    assert OutboxConfig.of(otel, warn=warnings.append) == OutboxConfig(100, 100, 5.0)
    (warning,) = warnings
    assert "OTEL_BSP_SCHEDULE_DELAY=soon" in warning
