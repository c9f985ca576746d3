"""Spans on their way to the collector: a bounded queue and a thread that empties it."""

import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans

import gateway
from gateway.telemetry.collector import Collector, Undelivered
from gateway.telemetry.logs import Log
from gateway.telemetry.sampling import Warn
from gateway.telemetry.spans import FinishedTrace

CLOSE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
PATIENCE_SECONDS = 30.0
REMIND_SECONDS = 60.0
# A tenth of a millisecond's work; each turn that is given away has its price too.
TRACES_AT_ONCE = 8
CREDENTIALS = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    """As OpenTelemetry's batch processor is set up; `queue_spans` bounds the memory."""

    queue_spans: int = 2048
    batch_spans: int = 512
    delay_seconds: float = 5.0

    @classmethod
    def of(cls, otel: Mapping[str, str], *, warn: Warn) -> "OutboxConfig":
        def number(name: str, default: int) -> int:
            raw = otel.get(name, "").strip()
            if raw.isdecimal() and int(raw) > 0:
                return int(raw)
            if raw:
                warn(f"{name}={raw}: must be a whole number from 1; {default} is used")
            return default

        queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        batch = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)
        delay = number("OTEL_BSP_SCHEDULE_DELAY", 5000)
        return cls(queue, min(queue, batch), delay / 1000)


class Outbox:
    """Takes finished traces from the event loop and sends them from a thread of its own.

    What does not fit into the queue is dropped and counted, and so is a batch that the collector
    does not take within half a minute. The log hears when the collector cannot be reached, once
    a minute while that lasts, and when it can be again.
    """

    def __init__(
        self, collector: Collector, *, resource: Resource, config: OutboxConfig, log: Log
    ) -> None:
        self._collector = collector
        self._resource = resource
        self._scope = InstrumentationScope(name="gateway", version=gateway.__version__)
        self._config = config
        self._log = log
        self._queue: deque[FinishedTrace] = deque()
        # Each number has one writer: the event loop, or the thread. Together they tell the rest.
        self._spans_in = self._spans_refused = 0
        self._spans_out = self._spans_lost = 0
        self._wake = threading.Event()
        self._end = threading.Event()
        self._in_trouble = False
        self._remind_at = 0.0
        self._thread = threading.Thread(target=self._run, name="otlp-outbox", daemon=True)
        self._thread.start()

    @property
    def dropped_spans(self) -> int:
        return self._spans_refused + self._spans_lost

    def put(self, trace: FinishedTrace) -> None:
        """Never blocks, never raises."""
        queued = self._spans_in - self._spans_out + trace.size
        if queued > self._config.queue_spans:
            self._spans_refused += trace.size
            return
        self._spans_in += trace.size
        self._queue.append(trace)
        if queued >= self._config.batch_spans and not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Send what is queued, for at most a second; what is left then is dropped."""
        lost_before = self._spans_lost
        self._end.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        self._collector.close()
        unsent = self._spans_in - self._spans_out + self._spans_lost - lost_before
        if unsent:
            self._log.warning("spans were not sent before the end", spans=unsent)

    def _run(self) -> None:
        while not self._end.is_set():
            self._wake.wait(self._config.delay_seconds)
            self._wake.clear()
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._queue:
            request, size = self._next_batch()
            if size:
                self._send(request, size)

    def _next_batch(self) -> tuple[ExportTraceServiceRequest, int]:
        """What to send, and how many spans that is."""
        request = ExportTraceServiceRequest()
        all_of_ours = request.resource_spans.add(resource=self._resource)
        ours = all_of_ours.scope_spans.add(scope=self._scope)
        taken = 0
        while self._queue and len(ours.spans) < self._config.batch_spans:
            self._add(self._queue.popleft(), ours)
            taken += 1
            if taken % TRACES_AT_ONCE == 0:
                # Let the event loop have its turn: it must not wait for a whole batch.
                time.sleep(0)
        return request, len(ours.spans)

    def _add(self, trace: FinishedTrace, ours: ScopeSpans) -> None:
        """The spans of one trace; one that OTLP has no words for is lost, and no other with it."""
        before = len(ours.spans)
        try:
            trace.add_to(ours.spans)
        except Exception as error:  # A fault of ours must not end the sending.
            del ours.spans[before:]
            self._spans_lost += trace.size
            self._spans_out += trace.size
            self._log.error("a trace cannot be encoded", exc_info=error)

    def _send(self, request: ExportTraceServiceRequest, size: int) -> None:
        lost = size
        try:
            lost = self._deliver(request)
        except Undelivered as failure:
            self._say(failure)
        except Exception as error:  # As above.
            self._log.error("spans cannot be sent", exc_info=error)
        finally:
            self._spans_lost += lost
            self._spans_out += size

    def _deliver(self, request: ExportTraceServiceRequest) -> int:
        """How many spans the collector refused. Raises Undelivered when patience ends."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        pause_seconds = FIRST_PAUSE_SECONDS
        while True:
            try:
                refused = self._collector.send(request)
            except Undelivered as failure:
                wait_seconds = max(pause_seconds, failure.retry_after_seconds)
                is_hopeless = time.monotonic() + wait_seconds > give_up_at
                if self._end.is_set() or is_hopeless or not failure.is_transient:
                    raise
                self._say(failure)
                self._rest(wait_seconds)
                pause_seconds = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)
            else:
                self._all_is_well()
                return refused

    def _rest(self, seconds: float) -> None:
        """Pause, though not at the end; a full queue is no reason to ask more often."""
        self._end.wait(seconds)

    def _say(self, failure: Undelivered) -> None:
        now = time.monotonic()
        if self._in_trouble and now < self._remind_at:
            return
        self._in_trouble = True
        self._remind_at = now + REMIND_SECONDS
        self._log.warning(
            "traces do not reach the collector",
            reason=CREDENTIALS.sub("//", str(failure)),
            dropped=self.dropped_spans,
        )

    def _all_is_well(self) -> None:
        if self._in_trouble:
            self._in_trouble = False
            self._log.warning("traces reach the collector again", dropped=self.dropped_spans)
