"""A stream that spans midnight, carried by the real dispatch and the real reader."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime

from gateway.admission import AdmissionConfig, AdmissionGate
from gateway.breaker import BreakerConfig, CircuitBreaker
from gateway.dispatch import DispatchConfig, Dispatcher
from gateway.exchange import Exchange, Health, Operation, Principal, ServedModel, UpstreamAnswer
from gateway.routing.definition import UpstreamDefinition
from gateway.routing.policy import least_in_flight
from gateway.routing.pool import UpstreamPool
from gateway.routing.upstream import Upstream
from gateway.wire.openai import OpenAIConfig, OpenAIDialect
from tests.fakes.clock import FakeClock
from tests.gateway.quota.conftest import Bench

BEFORE_MIDNIGHT = datetime(2026, 3, 14, 23, 59, 59, tzinfo=UTC)
FIRST_DAY, SECOND_DAY = date(2026, 3, 14), date(2026, 3, 15)
# Far more than this call can cost, so that nobody asks a tokenizer.
QUOTA = 100_000
TEAM = Principal("team", "Team", daily_token_quota=QUOTA)
BODY = (
    b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,'
    b'"max_completion_tokens":60}'
)
WORD = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":10,'
    b'"total_tokens":%d,"completion_tokens":%d}}\n\n'
)
DONE = b"data: [DONE]\n\n"


class HandFedAnswer:
    """An UpstreamAnswer whose chunks a test puts in; b"" is its end."""

    status, content_type, retry_after_seconds = 200, b"text/event-stream", None

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()

    async def deliver(self, take: Callable[[bytes], bool]) -> bool:
        while chunk := await self.chunks.get():
            if not take(chunk):
                return True
        return False

    async def read(self, *, limit_bytes: int) -> bytes:
        raise AssertionError("this answer is a stream")

    def take_unread(self) -> bytes:
        return b""

    def see_out(self) -> None:
        pass

    def close(self) -> None:
        pass

    def say(self, tokens: int) -> None:
        self.chunks.put_nowait(WORD % (10 + tokens, tokens))


class OneAnswer:
    """An UpstreamTransport that has one answer for everybody."""

    def __init__(self, answer: HandFedAnswer) -> None:
        self._answer = answer

    async def send(
        self,
        path: str,
        body: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        is_stream: bool,
        content_type: bytes,
        on_sent: Callable[[], None],
    ) -> UpstreamAnswer:
        on_sent()
        return self._answer


class NoProbe:
    async def check(self) -> Health:
        raise AssertionError("nobody probes here")


class Listener:
    """A Client that tells when it has heard something."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hears(self) -> bytes:
        async with asyncio.timeout(2):
            return await self._heard.get()

    async def answer(self, *, content_type: bytes, body: bytes) -> None:
        raise AssertionError("this answer is a stream")

    async def send(self, chunk: bytes) -> None:
        self._heard.put_nowait(chunk)

    def send_now(self, chunk: bytes) -> bool:
        self._heard.put_nowait(chunk)
        return True

    async def finish(self, last: bytes) -> None:
        self._heard.put_nowait(last)


def dispatcher(bench: Bench, answer: HandFedAnswer) -> Dispatcher:
    clock = bench.clock
    upstream = Upstream(
        UpstreamDefinition(name="one", url="http://one"),
        transport=OneAnswer(answer),
        probe=NoProbe(),
        breaker=CircuitBreaker(BreakerConfig(), clock=clock),
        clock=clock,
    )
    upstream.learn(Health(is_healthy=True, models=(ServedModel("m", 4096),)))
    return Dispatcher(
        ledger=bench.ledger,
        pool=UpstreamPool([upstream], policy=least_in_flight(), default_model=None),
        gate=AdmissionGate(AdmissionConfig(None, 0, 1.0), clock=clock),
        clock=clock,
        config=DispatchConfig(),
    )


def exchange(clock: FakeClock) -> Exchange:
    made = Exchange(
        request_id="r", method="POST", started_at=clock.monotonic(), client_address="127.0.0.1"
    )
    made.principal = TEAM
    return made


async def tokens_of(bench: Bench, day: date) -> int:
    report = await bench.ledger.report(TEAM, days=2)
    return sum(known.total.total_tokens for known in report.history if known.day == day)


async def test_a_stream_over_midnight_is_charged_to_the_day_it_was_admitted(bench: Bench) -> None:
    bench.clock.set_now(BEFORE_MIDNIGHT)
    answer, listener = HandFedAnswer(), Listener()
    dispatch = dispatcher(bench, answer)
    call = OpenAIDialect(OpenAIConfig()).parse(Operation.CHAT, BODY)
    async with AsyncExitStack() as held:
        await held.enter_async_context(bench.journal)
        stream = asyncio.create_task(dispatch(call, exchange(bench.clock), listener))
        answer.say(1)
        await listener.hears()
        bench.clock.advance(2)
        answer.say(30)
        await listener.hears()

        # While it runs: the new day is whole, and the flush finds the old day's row.
        assert bench.ledger.remaining(TEAM) == QUOTA
        await bench.journal.flush()
        assert await tokens_of(bench, FIRST_DAY) == 40
        answer.chunks.put_nowait(DONE)
        answer.chunks.put_nowait(b"")
        await stream

        assert await tokens_of(bench, FIRST_DAY) == 40
        assert await tokens_of(bench, SECOND_DAY) == 0
        assert bench.ledger.standing(TEAM).reserved == 0


async def test_who_has_heard_the_end_holds_nothing_and_has_paid(bench: Bench) -> None:
    """Also while the upstream takes its time to close the answer after its terminator."""
    answer, listener = HandFedAnswer(), Listener()
    dispatch = dispatcher(bench, answer)
    call = OpenAIDialect(OpenAIConfig()).parse(Operation.CHAT, BODY)
    stream = asyncio.create_task(dispatch(call, exchange(bench.clock), listener))
    answer.say(5)
    await listener.hears()
    answer.chunks.put_nowait(DONE)
    assert await listener.hears() == DONE

    standing = bench.ledger.standing(TEAM)
    assert (standing.used, standing.reserved) == (15, 0)
    answer.chunks.put_nowait(b"")
    await stream
