"""A call in the form that each upstream understands, and answers that cannot be passed on."""

from collections.abc import Container
from dataclasses import dataclass

import pytest

from gateway.errors import AnswerUnusable, GatewayError, InvalidRequest
from gateway.exchange import Health, Operation, ServedModel
from tests.fakes.call import FakeCall
from tests.fakes.upstream import Receive, Script, Send, whole
from tests.gateway.dispatching import STREAM, Bench, bench_of

FAILED: Script = (Receive(), Send(whole(b"oops", status=500)))
NO_ANSWER: Script = (Receive(), Send(whole(b"", status=400)))


@dataclass(frozen=True, slots=True)
class Message(FakeCall):
    """A call that some upstreams understand as it is, and the others as a chat."""

    operation: Operation = Operation.MESSAGES

    def as_served_by(self, operations: Container[Operation]) -> FakeCall:
        return self if self.operation in operations else FakeCall()


@dataclass(frozen=True, slots=True)
class Unsayable(Message):
    """A call that has no other form."""

    def as_served_by(self, operations: Container[Operation]) -> FakeCall:
        raise InvalidRequest("no words for this")


@dataclass(frozen=True, slots=True)
class Unlucky(FakeCall):
    """A call whose answer is none to be passed on."""

    def read_rejection(
        self, status: int, body: bytes, *, retry_after_seconds: float | None
    ) -> GatewayError:
        return AnswerUnusable("written wrongly", code="malformed_tool_call")


def speaks_messages(bench: Bench, number: int) -> None:
    models = (ServedModel("m", 4096),)
    bench.pool.upstreams[number].learn(Health(is_healthy=True, models=models, speaks_messages=True))


def paths(bench: Bench) -> list[list[str]]:
    return [[request.path for request in upstream.requests] for upstream in bench.upstreams]


@pytest.mark.parametrize("is_native", [True, False])
async def test_an_upstream_is_asked_in_the_form_that_it_understands(is_native: bool) -> None:
    async with bench_of([STREAM]) as bench:
        if is_native:
            speaks_messages(bench, 0)
        exchange = await bench.run(Message())

        form = Operation.MESSAGES if is_native else Operation.CHAT
        assert paths(bench) == [[form.value]]
        assert bench.booked == (1, 10, 3)
        assert exchange.usage.output_tokens == 3


async def test_the_next_upstream_is_asked_in_its_own_form() -> None:
    async with bench_of([FAILED], [STREAM]) as bench:
        speaks_messages(bench, 0)
        exchange = await bench.run(Message())

        assert paths(bench) == [[Operation.MESSAGES.value], [Operation.CHAT.value]]
        assert exchange.attempts == 2


async def test_what_has_no_such_form_is_the_callers_fault_and_costs_nothing() -> None:
    async with bench_of([STREAM]) as bench:
        exchange = await bench.fails(Unsayable(), InvalidRequest)

        assert bench.upstreams[0].requests == []
        assert bench.booked == (0, 0, 0)
        assert exchange.attempts == 0


async def test_an_answer_that_is_unusable_costs_its_prompt_and_blames_nobody() -> None:
    async with bench_of([NO_ANSWER]) as bench:
        exchange = await bench.fails(Unlucky(is_stream=False), AnswerUnusable)

        assert bench.booked == (1, 10, 0)
        assert exchange.usage.is_estimated
        assert exchange.faults == ()
        assert bench.pool.upstreams[0].breaker.permits
