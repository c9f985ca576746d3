"""A dispatcher before scripted upstreams, and the books it keeps, for the tests of dispatch."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import pytest

from gateway.admission import AdmissionConfig, AdmissionGate
from gateway.breaker import BreakerConfig, BreakerState, CircuitBreaker
from gateway.dispatch import DispatchConfig, Dispatcher
from gateway.errors import (
    GatewayError,
)
from gateway.exchange import (
    Exchange,
    Health,
    Principal,
    ServedModel,
)
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.memory import MemoryLedger
from gateway.routing.definition import UpstreamDefinition
from gateway.routing.demand import RoutingDemand
from gateway.routing.pool import UpstreamPool
from gateway.routing.replicas import Tier
from gateway.routing.upstream import Upstream
from gateway.transport.client import UpstreamClient
from gateway.transport.config import TransportConfig
from tests.fakes.call import DONE, TOKEN, FakeCall, RecordingClient
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import (
    Receive,
    Script,
    ScriptedUpstream,
    Send,
    event_stream,
)
from tests.gateway.routing.fleet import ScriptedProbe

ROLE = b"data: role\n\n"
STREAM: Script = (Receive(), Send(event_stream(ROLE, TOKEN, TOKEN, TOKEN, DONE)))


def key(quota: int | None = 1000, models: frozenset[str] | None = None) -> Principal:
    return Principal("k", "Key", daily_token_quota=quota, allowed_models=models)


@dataclass
class Bench:
    """A dispatcher before scripted upstreams, and the books it keeps."""

    upstreams: list[ScriptedUpstream]
    pool: UpstreamPool
    ledger: MemoryLedger
    gate: AdmissionGate
    dispatch: Dispatcher
    principal: Principal
    client: RecordingClient = field(default_factory=RecordingClient)

    def exchange(self) -> Exchange:
        exchange = Exchange(
            request_id="r-1", method="POST", started_at=0.0, client_address="127.0.0.1"
        )
        exchange.principal = self.principal
        return exchange

    async def run(self, call: FakeCall) -> Exchange:
        exchange = self.exchange()
        await self.dispatch(call, exchange, self.client)
        return exchange

    async def fails(self, call: FakeCall, error: type[GatewayError]) -> Exchange:
        exchange = self.exchange()
        with pytest.raises(error):
            await self.dispatch(call, exchange, self.client)
        return exchange

    async def cancelled(self, call: FakeCall, *, when_sent: int) -> Exchange:
        """Run until the client has got so many bytes, then as if it had left."""
        exchange = self.exchange()
        task = asyncio.create_task(self.dispatch(call, exchange, self.client))
        await self.upstreams[0].sees_requests(1)
        while len(self.client.received) < when_sent:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await self.upstreams[0].sees_end()
        return exchange

    @property
    def booked(self) -> tuple[int, int, int]:
        """Requests, input tokens and output tokens in the ledger."""
        rows = self.ledger.held()
        return (
            sum(row.requests for row in rows),
            sum(row.input_tokens for row in rows),
            sum(row.output_tokens for row in rows),
        )

    @property
    def bodies(self) -> list[list[str]]:
        """What each upstream was sent."""
        return [[r.body.decode() for r in upstream.requests] for upstream in self.upstreams]

    def breaker(self, number: int) -> BreakerState:
        return self.pool.upstreams[number].breaker.state

    def require_nothing_held(self) -> None:
        assert [upstream.in_flight for upstream in self.pool.upstreams] == [0] * len(self.upstreams)
        assert (self.gate.in_flight, self.gate.queued) == (0, 0)
        assert self.ledger.standing(self.principal).reserved == 0


@asynccontextmanager
async def bench_of(
    *fleet: Sequence[Script],
    principal: Principal | None = None,
    context_tokens: int | None = 4096,
    transport: TransportConfig | None = None,
    config: DispatchConfig | None = None,
) -> AsyncIterator[Bench]:
    """One upstream per argument, each with its scripts. Leaving checks that nothing is held."""
    clock = FakeClock()
    async with AsyncExitStack() as opened:
        scripted = [await opened.enter_async_context(ScriptedUpstream(*each)) for each in fleet]
        upstreams = []
        for number, each in enumerate(scripted):
            client = UpstreamClient(
                url=each.url, api_key=None, config=transport or TransportConfig()
            )
            upstream = Upstream(
                UpstreamDefinition(name=f"u{number}", url=each.url),
                transport=await opened.enter_async_context(client),
                probe=ScriptedProbe(),
                breaker=CircuitBreaker(BreakerConfig(failure_threshold=1), clock=clock),
                clock=clock,
            )
            upstream.learn(Health(is_healthy=True, models=(ServedModel("m", context_tokens),)))
            upstreams.append(upstream)
        pool = UpstreamPool(upstreams, policy=First(), default_model=None)
        ledger = MemoryLedger(calendar=QuotaCalendar(zone=ZoneInfo("UTC"), clock=clock))
        gate = AdmissionGate(AdmissionConfig(8, 0, 0.0), clock=clock)
        dispatch = Dispatcher(
            ledger=ledger, pool=pool, gate=gate, clock=clock, config=config or DispatchConfig()
        )
        bench = Bench(scripted, pool, ledger, gate, dispatch, principal or key())
        yield bench
        bench.require_nothing_held()


class First:
    """The first that may be asked, so that a test knows who is."""

    def pick(
        self, tier: Tier, demand: RoutingDemand, besides: Collection[Upstream]
    ) -> Upstream | None:
        free = (u for u in tier.upstreams if u not in besides and u.breaker.permits)
        return next(free, None)
