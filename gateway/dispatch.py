"""The story of one inference call: resolve, reserve, admit, ask, relay, settle."""

import asyncio
from contextlib import closing
from dataclasses import dataclass

from gateway.admission import AdmissionGate
from gateway.clock import Clock
from gateway.errors import (
    AnswerTooLarge,
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
from gateway.quota.demand import demand_of, is_worth_counting
from gateway.quota.ledger import Ledger, TokenDemand
from gateway.relay import Audience, Meter, NobodyWatches, StreamWatch, relay
from gateway.routing.asking import Asking
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
        streams: StreamWatch | None = None,
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._gate = gate
        self._clock = clock
        self._config = config
        self._streams = streams or NobodyWatches()

    async def __call__(self, call: InferenceCall, exchange: Exchange, client: Client) -> None:
        """Answer the call. Raises GatewayError for everything that is not a model's answer."""
        model = self._resolve(call, exchange.caller)
        exchange.model = model.name
        exchange.is_stream = call.is_stream
        exchange.choices = call.choices
        demand = await self._demand(call, model, exchange)

        async with (
            self._ledger.reserve(exchange.caller, demand) as reservation,
            self._gate.admit() as waited_seconds,
        ):
            exchange.queue_seconds += waited_seconds
            body = call.encode(model=model.name, output_limit=reservation.output_limit)
            meter = Meter(settle=reservation.settle)
            reservation.follow(meter)
            try:
                await self._converse(call, body, meter, exchange, Audience(client, meter))
            except (asyncio.CancelledError, AnswerTooLarge):
                # The prompt was sent, and nobody stayed for the count or could read it.
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
                    lease.judge(error)
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
        with Asking(
            exchange,
            exchange.upstream,
            path=call.operation.value,
            output_limit=call.output_limit,
            clock=self._clock,
        ) as asking:
            answer = await self._ask(lease, call, call.operation.value, body, exchange)
            with closing(answer):
                await self._pass_on(answer, call, meter, exchange, audience, lease, asking)

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
            try:
                words = await answer.read(limit_bytes=REJECTION_BYTES_MAX)
            except AnswerTooLarge:
                words = b""  # The status alone says what it is.
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
        asking: Asking,
    ) -> None:
        if not answer.content_type.lower().startswith(EVENT_STREAM):
            body = await answer.read(limit_bytes=self._config.max_answer_bytes)
            asking.hear_end()
            meter.conclude(call.read_answer(body))
            await client.answer(content_type=JSON, body=body)
            return

        def on_content() -> None:
            exchange.first_token_at = self._clock.monotonic()
            lease.begin_answer()

        reader = call.new_reader()
        meter.follow(reader)
        with self._streams.follow(exchange.model) as pulse:
            await relay(
                answer,
                reader=reader,
                client=client,
                on_content=on_content,
                on_events=pulse,
                on_end=asking.hear_end,
            )

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
            return TokenDemand.nothing(model.name)
        demand = demand_of(call, model, input_tokens=call.prompt.estimate)
        remaining = self._ledger.remaining(exchange.caller)
        if remaining is None or not is_worth_counting(call.prompt, demand, remaining):
            return demand
        return demand_of(call, model, input_tokens=await self._count(call, model, exchange))

    async def _count(self, call: InferenceCall, model: ServedModel, exchange: Exchange) -> int:
        """The prompt's exact length, by the upstream's own tokenizer; its ceiling failing that.

        Takes a place in flight, as all work of an upstream does. Raises Overloaded, and
        UpstreamUnavailable or UpstreamTimeout: who cannot count will not answer either.
        """
        bodies = call.tokenize_bodies(model=model.name)
        if not bodies:
            return call.prompt.ceiling
        async with self._gate.admit() as waited_seconds:
            exchange.queue_seconds = waited_seconds
            exchange.was_counted = True
            try:
                async with asyncio.timeout(self._config.count_timeout_seconds):
                    counts = [await self._count_one(b, call, model, exchange) for b in bodies]
            except (TimeoutError, UpstreamRejected, UpstreamFailed, AnswerTooLarge):
                return call.prompt.ceiling
            return sum(counts)

    async def _count_one(
        self, body: bytes, call: InferenceCall, model: ServedModel, exchange: Exchange
    ) -> int:
        failures: dict[Upstream, GatewayError] = {}
        while True:
            with self._lease(model.name, failures) as lease:
                try:
                    with Asking(
                        exchange, lease.upstream.name, path="/tokenize", clock=self._clock
                    ) as asking:
                        answer = await self._ask(lease, call, "/tokenize", body, exchange)
                        with closing(answer):
                            words = await answer.read(limit_bytes=self._config.max_answer_bytes)
                            asking.hear_end()
                            return call.read_token_count(words)
                except (UpstreamFailed, UpstreamUnavailable) as error:
                    failures[lease.upstream] = error
                    lease.judge(error)


def _not_allowed(model: str) -> ModelNotAllowed:
    return ModelNotAllowed(f"This key may not use the model '{model[:200]}'.", param="model")
