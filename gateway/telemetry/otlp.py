"""Traces over OTLP: ids that travel at once, spans that are made when all is known."""

from collections.abc import Mapping
from random import getrandbits
from time import time_ns
from typing import NamedTuple, Self

from gateway.exchange import Exchange, Outcome
from gateway.telemetry.collector import open_collector
from gateway.telemetry.logs import Log
from gateway.telemetry.outbox import Outbox, OutboxConfig
from gateway.telemetry.sampling import Sampling
from gateway.telemetry.spans import Caller, FinishedTrace, UpstreamCall, describe_resource
from gateway.telemetry.traces import NO_SPAN, Span, Trusts

SAMPLED, RANDOM = 1, 2  # Flags of W3C Trace Context; the second says how the id was made.


class Root(NamedTuple):
    """The trace an exchange belongs to: its id, the flags and state that travel, and where it
    comes from. At most one of `parent` and `link` is there."""

    trace_id: int
    flags: int
    state: bytes = b""
    parent: Caller | None = None
    link: Caller | None = None


class OtlpTracing:
    """A server span per exchange and a client span per call to an upstream.

    A caller is not trusted to choose our sampling: its trace is linked, and continued only
    where `trusts` says so. The upstream gets the client span as its parent, so that vLLM's own
    spans join; of an unsampled trace too, so that vLLM does not record what we do not.
    """

    def __init__(self, *, sampling: Sampling, outbox: Outbox, trusts: Trusts) -> None:
        self._sampling = sampling
        self._outbox = outbox
        self._trusts = trusts

    @classmethod
    def of(cls, otel: Mapping[str, str], *, trusts: Trusts, log: Log) -> Self:
        """As the standard variables say. What they say wrongly is warned of."""

        def warn(what: str) -> None:
            log.warning("settings", what=what)

        outbox = Outbox(
            open_collector(otel, warn=warn),
            resource=describe_resource(),
            config=OutboxConfig.of(otel, warn=warn),
            log=log,
        )
        return cls(sampling=Sampling.of(otel, warn=warn), outbox=outbox, trusts=trusts)

    @property
    def dropped_spans(self) -> int:
        return self._outbox.dropped_spans

    def start(self, exchange: Exchange) -> Span:
        if exchange.trace_headers:
            root = self._root_of(exchange)
        else:
            bits = getrandbits(192)
            trace_id = bits >> 64
            if not self._sampling.takes(trace_id):
                # By far most requests: no more is made for them than what travels on.
                ids = bits.to_bytes(24, "big").hex()
                parent = f"00-{ids[:32]}-{ids[32:]}-02".encode()
                exchange.trace_headers = [(b"traceparent", parent)]
                return NO_SPAN
            root = Root(trace_id, RANDOM | SAMPLED)
        if root.flags & SAMPLED:
            return SampledSpan(root, self._outbox)
        exchange.trace_headers = _headers(root, getrandbits(64))
        return NO_SPAN

    def close(self) -> None:
        """Send what is queued, if the collector takes it at once: nobody waits for a dead one."""
        self._outbox.close()

    def _root_of(self, exchange: Exchange) -> Root:
        """Of an exchange whose caller sent a trace: that one, or a new one with a link to it."""
        fields = dict(exchange.trace_headers)
        _, trace_text, span_text, flags_text = fields[b"traceparent"].split(b"-")
        state = fields.get(b"tracestate", b"")
        caller = Caller(int(trace_text, 16), int(span_text, 16), state)
        if not self._trusts(exchange.client_address):
            trace_id = getrandbits(128)
            return Root(trace_id, RANDOM | self._sampling.takes(trace_id), link=caller)
        flags = int(flags_text, 16)
        is_sampled = self._sampling.takes_child(
            caller.trace_id, is_parent_sampled=bool(flags & SAMPLED)
        )
        return Root(caller.trace_id, flags & RANDOM | is_sampled, state, parent=caller)


class SampledSpan:
    """The spans of one exchange while it runs."""

    __slots__ = ("_began_ns", "_calls", "_outbox", "_root", "_span_id", "span_id", "trace_id")

    def __init__(self, root: Root, outbox: Outbox) -> None:
        self._root = root
        self._outbox = outbox
        self._began_ns = time_ns()
        self._span_id = getrandbits(64)
        self._calls: list[UpstreamCall] = []
        self.trace_id = f"{root.trace_id:032x}"
        self.span_id = f"{self._span_id:016x}"

    def begin_call(
        self,
        exchange: Exchange,
        *,
        upstream: str,
        url: str,
        path: str,
        output_limit: int | None,
        at: float,
    ) -> None:
        span_id = getrandbits(64)
        exchange.trace_headers = _headers(self._root, span_id)
        self._calls.append(UpstreamCall(span_id, upstream, url, path, output_limit, at))

    def end_call(self, error: BaseException | None, *, at: float) -> None:
        self._calls[-1].end(error, at)

    def finish(self, exchange: Exchange, outcome: Outcome, ended_at: float) -> None:
        self._outbox.put(
            FinishedTrace(
                exchange=exchange,
                outcome=outcome,
                ended_at=ended_at,
                began_ns=self._began_ns,
                trace_id=self._root.trace_id,
                span_id=self._span_id,
                flags=self._root.flags,
                state=self._root.state,
                parent=self._root.parent,
                link=self._root.link,
                calls=tuple(self._calls),
            )
        )


def _headers(root: Root, span_id: int) -> list[tuple[bytes, bytes]]:
    parent = b"00-%032x-%016x-%02x" % (root.trace_id, span_id, root.flags)
    if not root.state:
        return [(b"traceparent", parent)]
    return [(b"traceparent", parent), (b"tracestate", root.state)]
