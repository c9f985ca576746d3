"""The story of one inference call: resolve, reserve, admit, ask, relay, settle."""

import asyncio
from contextlib import closing
from dataclasses import dataclass, field

from gateway.admission import AdmissionGate
from gateway.clock import Clock
from gateway.errors import (
    AnswerTooLarge,
    AnswerUnusable,
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
    Operation,
    Principal,
    ServedModel,
    TokenUsage,
    UpstreamAnswer,
)
from gateway.quota.demand import demand_of, is_worth_counting
from gateway.quota.ledger import Ledger, TokenDemand
from gateway.relay import Audience, Meter, NobodyWatches, StreamWatch, relay
from gateway.routing.asking import Asking
from gateway.routing.demand import RoutingDemand
from gateway.routing.lease import Lease
from gateway.routing.pool import UpstreamPool
from gateway.routing.retries import Retries, RetryConfig

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
    retries: RetryConfig = field(default_factory=RetryConfig)


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
        self._retries = Retries(pool, config=config.retries, clock=clock)
        self._gate = gate
        self._clock = clock
        self._config = config
        self._streams = streams or NobodyWatches()

    async def __call__(self, call: InferenceCall, exchange: Exchange, client: Client) -> None:
        """Answer the call. Raises GatewayError for everything that is not a model's answer."""
        caller = exchange.caller
        model = self._resolve(call, caller)
        exchange.model = model.name
        exchange.is_stream, exchange.choices = call.is_stream, call.choices
        demand = await self._demand(call, model, exchange)

        async with (
            self._ledger.reserve(caller, demand, exchange.shared_limits) as reservation,
            self._gate.admit(caller.key_id, (model.name, call.operation)) as waited_seconds,
        ):
            exchange.queue_seconds += waited_seconds
            exchange.was_sent = False  # To count a prompt is not yet to ask.
            meter = Meter(settle=reservation.settle)
            reservation.follow(meter)
            audience = Audience(client, meter)
            try:
                await self._converse(call, reservation.output_limit, meter, exchange, audience)
            except (asyncio.CancelledError, AnswerUnusable):
                # The prompt was sent, and nobody stayed for the count or could read it.
                if exchange.was_sent and meter.usage.total_tokens == 0:
                    meter.conclude(TokenUsage(demand.input_tokens, is_estimated=True))
                raise
            finally:
                # What was never sent costs nothing and counts as no request.
                if exchange.was_sent:
                    exchange.usage = meter.close()

    async def _converse(
        self,
        call: InferenceCall,
        output_limit: int | None,
        meter: Meter,
        exchange: Exchange,
        audience: Audience,
    ) -> None:
        """Ask upstreams until one answers, and relay that answer.

        Another one is tried only while the client has seen nothing: vLLM sends the head of a
        stream long before its first token. And not after a time-out: the first may still be
        generating.
        """
        wish = RoutingDemand(exchange.model, call.operation, exchange.session, call)
        attempts = self._retries.begin(wish)
        while True:
            with attempts.lease() as lease:
                try:
                    await self._attempt(lease, call, output_limit, meter, exchange, audience)
                except (UpstreamFailed, UpstreamUnavailable) as error:
                    if audience.has_heard:
                        raise
                    lease.judge(error)
                    failure = error
                else:
                    if call.is_metered:
                        # That a tokenizer answers says nothing about the engine: no verdict.
                        lease.succeed()
                    return
            await attempts.go_on(lease.upstream, failure)

    async def _attempt(
        self,
        lease: Lease,
        call: InferenceCall,
        output_limit: int | None,
        meter: Meter,
        exchange: Exchange,
        audience: Audience,
    ) -> None:
        call = call.as_served_by(lease.upstream.operations)
        body = call.encode(model=exchange.model, output_limit=output_limit)
        exchange.attempts += 1
        exchange.upstream = lease.upstream.name
        with Asking(
            exchange,
            exchange.upstream,
            url=lease.upstream.url,
            path=call.operation.path,
            output_limit=call.output_limit,
            clock=self._clock,
        ) as asking:
            answer = await self._ask(lease, call, call.operation.path, body, exchange)
            del body  # It is on its way, and its answer may last for minutes.
            try:
                await self._pass_on(answer, call, meter, exchange, audience, lease, asking)
            finally:
                answer.close()

    async def _ask(
        self, lease: Lease, call: InferenceCall, path: str, body: bytes, exchange: Exchange
    ) -> UpstreamAnswer:
        answer = await lease.upstream.transport.send(
            path,
            body,
            exchange.upstream_headers(),
            is_stream=call.is_stream,
            content_type=call.content_type,
            on_sent=exchange.note_sent,
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
        audience: Audience,
        lease: Lease,
        asking: Asking,
    ) -> None:
        shown_model = call.model if call.model != exchange.model else ""
        if not answer.content_type.lower().startswith(EVENT_STREAM):
            body = await answer.read(limit_bytes=self._config.max_answer_bytes)
            asking.hear_end()
            usage, body = call.mend_answer(body, shown_model)
            meter.conclude(usage)
            await audience.answer(content_type=JSON, body=body)
            return

        def on_content() -> None:
            exchange.first_token_at = self._clock.monotonic()
            lease.begin_answer()

        reader = call.new_reader(shown_model)
        meter.follow(reader)
        audience.on_heard = call.forget  # No other upstream will be asked.
        with self._streams.follow(exchange.model) as pulse:
            await relay(
                answer,
                reader=reader,
                client=audience,
                on_content=on_content,
                on_events=pulse,
                on_end=asking.hear_end,
            )

    def _resolve(self, call: InferenceCall, principal: Principal) -> ServedModel:
        """The model that is meant. A key may use it by its own name or by the alias it was asked
        by; to a key that may use neither, a model that is not served looks like any other."""
        may_use, asked = principal.may_use, call.model
        try:
            model = self._pool.catalogue.resolve(asked, operation=call.operation, visible=may_use)
        except GatewayError:
            if asked and not may_use(asked):
                raise _not_allowed(asked) from None
            raise
        if not may_use(model.name) and not (asked and may_use(asked)):
            raise _not_allowed(asked or model.name)
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
        line = (model.name, Operation.TOKENIZE)
        async with self._gate.admit(exchange.caller.key_id, line) as waited_seconds:
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
        wish = RoutingDemand(model.name, Operation.TOKENIZE, exchange.session)
        attempts = self._retries.begin(wish)
        while True:
            with attempts.lease() as lease:
                try:
                    with Asking(
                        exchange,
                        lease.upstream.name,
                        url=lease.upstream.url,
                        path="/tokenize",
                        clock=self._clock,
                    ) as asking:
                        answer = await self._ask(lease, call, "/tokenize", body, exchange)
                        with closing(answer):
                            words = await answer.read(limit_bytes=self._config.max_answer_bytes)
                            asking.hear_end()
                            return call.read_token_count(words)
                except (UpstreamFailed, UpstreamUnavailable) as error:
                    lease.judge(error)
                    failure = error
            await attempts.go_on(lease.upstream, failure)


def _not_allowed(model: str) -> ModelNotAllowed:
    return ModelNotAllowed(f"This key may not use the model '{model[:200]}'.", param="model")
