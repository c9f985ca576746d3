"""The story of one inference call: resolve, reserve, admit, ask, relay, settle."""

import asyncio
from contextlib import closing
from dataclasses import dataclass

from gateway.admission import AdmissionGate
from gateway.clock import Clock
from gateway.errors import (
    GatewayError,
    ModelNotAllowed,
    UpstreamFailed,
    UpstreamRejected,
    UpstreamUnavailable,
)
from gateway.exchange import (
    Client,
    Exchange,
    InferenceCall,
    Principal,
    ServedModel,
    TokenUsage,
    UpstreamAnswer,
)
from gateway.quota.ledger import Ledger, TokenDemand
from gateway.relay import Audience, Meter, relay
from gateway.routing.pool import Lease, UpstreamPool
from gateway.routing.upstream import Upstream

REJECTION_BYTES_MAX = 256 * 1024
EVENT_STREAM = b"text/event-stream"
JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """`max_answer_bytes` bounds an answer that is not streamed.

    `count_timeout_seconds` is what an exact count of a prompt may take before its ceiling is
    taken instead: it is a help, and must not hold up the call.
    """

    max_answer_bytes: int = 32 * 1024 * 1024
    count_timeout_seconds: float = 5.0


class Dispatcher:
    """Carries calls to upstreams. Sees no wire format and no HTTP."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        pool: UpstreamPool,
        gate: AdmissionGate,
        clock: Clock,
        config: DispatchConfig,
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._gate = gate
        self._clock = clock
        self._config = config

    async def __call__(self, call: InferenceCall, exchange: Exchange, client: Client) -> None:
        """Answer the call. Raises GatewayError for everything that is not a model's answer."""
        model = self._resolve(call, exchange.caller)
        exchange.model = model.name
        exchange.is_stream = call.is_stream
        demand = await self._demand(call, model, exchange)

        async with (
            self._ledger.reserve(exchange.caller, demand) as reservation,
            self._gate.admit() as waited_seconds,
        ):
            exchange.queue_seconds = waited_seconds
            body = call.encode(model=model.name, output_limit=reservation.output_limit)
            meter = Meter(settle=reservation.settle)
            reservation.follow(meter)
            try:
                await self._converse(call, body, meter, exchange, Audience(client, meter))
            except asyncio.CancelledError:
                # The prompt was sent, and nobody stayed to hear the count.
                if exchange.sent_at is not None and meter.usage.total_tokens == 0:
                    meter.conclude(TokenUsage(demand.input_tokens, is_estimated=True))
                raise
            finally:
                # What was never sent costs nothing and counts as no request.
                if exchange.sent_at is not None:
                    exchange.usage = meter.close()

    async def _converse(
        self,
        call: InferenceCall,
        body: bytes,
        meter: Meter,
        exchange: Exchange,
        audience: Audience,
    ) -> None:
        """Ask upstreams until one answers, and relay that answer.

        Another one is tried only while the client has seen nothing: vLLM sends the head of a
        stream long before its first token. And not after a time-out: the first may still be
        generating.
        """
        failures: dict[Upstream, GatewayError] = {}
        while True:
            with self._lease(exchange.model, failures) as lease:
                try:
                    await self._attempt(lease, call, body, meter, exchange, audience)
                except (UpstreamFailed, UpstreamUnavailable) as error:
                    if audience.has_heard:
                        raise
                    failures[lease.upstream] = error
                    lease.fail()
                    continue
                if call.is_metered:
                    # That a tokenizer answers says nothing about the engine: no verdict.
                    lease.succeed()
                return

    async def _attempt(
        self,
        lease: Lease,
        call: InferenceCall,
        body: bytes,
        meter: Meter,
        exchange: Exchange,
        audience: Audience,
    ) -> None:
        exchange.attempts += 1
        exchange.upstream = lease.upstream.name
        exchange.sent_at = self._clock.monotonic()
        answer = await self._ask(lease, call, call.operation.value, body, exchange)
        exchange.answered_at = self._clock.monotonic()
        with closing(answer):
            await self._pass_on(answer, call, meter, exchange, audience, lease)

    def _lease(self, model: str, failures: dict[Upstream, GatewayError]) -> Lease:
        try:
            return self._pool.lease(model, besides=failures)
        except UpstreamUnavailable as nobody_left:
            # What went wrong tells the caller more than that nobody else is there.
            raise next(iter(failures.values()), nobody_left) from None

    async def _ask(
        self, lease: Lease, call: InferenceCall, path: str, body: bytes, exchange: Exchange
    ) -> UpstreamAnswer:
        answer = await lease.upstream.transport.send(
            path, body, exchange.upstream_headers(), is_stream=call.is_stream
        )
        if 200 <= answer.status < 300:
            return answer
        with closing(answer):
            words = await answer.read(limit_bytes=REJECTION_BYTES_MAX)
            raise call.read_rejection(
                answer.status, words, retry_after_seconds=answer.retry_after_seconds
            )

    async def _pass_on(
        self,
        answer: UpstreamAnswer,
        call: InferenceCall,
        meter: Meter,
        exchange: Exchange,
        client: Client,
        lease: Lease,
    ) -> None:
        if not answer.content_type.lower().startswith(EVENT_STREAM):
            body = await answer.read(limit_bytes=self._config.max_answer_bytes)
            meter.conclude(call.read_answer(body))
            await client.answer(content_type=JSON, body=body)
            return

        def on_content() -> None:
            exchange.first_token_at = self._clock.monotonic()
            lease.begin_answer()

        reader = call.new_reader()
        meter.follow(reader)
        await relay(answer, reader=reader, client=client, on_content=on_content)

    def _resolve(self, call: InferenceCall, principal: Principal) -> ServedModel:
        if call.model and not principal.may_use(call.model):
            raise _not_allowed(call.model)
        model = self._pool.resolve(call.model, visible=principal.may_use)
        if not principal.may_use(model.name):
            raise _not_allowed(model.name)
        return model

    async def _demand(
        self, call: InferenceCall, model: ServedModel, exchange: Exchange
    ) -> TokenDemand:
        """What to reserve: the prompt as estimated, or as counted where the quota is near.

        Near means that the worst case would not fit: until then no error of the estimate can
        carry the key over its quota.
        """
        if not call.is_metered:
            return TokenDemand(model.name, input_tokens=0, output_tokens=0)
        input_tokens = call.prompt.estimate
        output_tokens = _output_bound(call, model, input_tokens)
        remaining = self._ledger.remaining(exchange.caller)
        if remaining is not None and call.prompt.ceiling > call.prompt.estimate:
            worst_output = (output_tokens or 0) * call.choices
            is_near = output_tokens is None or remaining < call.prompt.ceiling + worst_output
            if is_near and remaining > 0:
                input_tokens = await self._count(call, model, exchange)
                output_tokens = _output_bound(call, model, input_tokens)
        return TokenDemand(model.name, input_tokens, output_tokens, call.choices)

    async def _count(self, call: InferenceCall, model: ServedModel, exchange: Exchange) -> int:
        """The prompt's exact length, by the upstream's own tokenizer; its ceiling failing that.

        Raises UpstreamUnavailable or UpstreamTimeout: who cannot count will not answer either.
        """
        bodies = call.tokenize_bodies(model=model.name)
        if not bodies:
            return call.prompt.ceiling
        try:
            async with asyncio.timeout(self._config.count_timeout_seconds):
                return sum([await self._count_one(body, call, model, exchange) for body in bodies])
        except (TimeoutError, UpstreamRejected, UpstreamFailed):
            return call.prompt.ceiling

    async def _count_one(
        self, body: bytes, call: InferenceCall, model: ServedModel, exchange: Exchange
    ) -> int:
        failures: dict[Upstream, GatewayError] = {}
        while True:
            with self._lease(model.name, failures) as lease:
                try:
                    answer = await self._ask(lease, call, "/tokenize", body, exchange)
                    with closing(answer):
                        words = await answer.read(limit_bytes=self._config.max_answer_bytes)
                        return call.read_token_count(words)
                except (UpstreamFailed, UpstreamUnavailable) as error:
                    failures[lease.upstream] = error
                    lease.fail()


def _output_bound(call: InferenceCall, model: ServedModel, input_tokens: int) -> int | None:
    """The most output tokens per choice this call can cost; None where nobody knows."""
    if model.context_tokens is None:
        return call.output_limit
    room = max(1, model.context_tokens - input_tokens)
    return room if call.output_limit is None else min(call.output_limit, room)


def _not_allowed(model: str) -> ModelNotAllowed:
    return ModelNotAllowed(f"This key may not use the model '{model[:200]}'.", param="model")
