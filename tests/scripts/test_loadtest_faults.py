"""What a server does wrong is counted under the right name, and nothing else is."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import sleep
from typing import cast

import pytest

from scripts.loadtest.plan import Endpoint, Slo
from scripts.simulator import Fault, FaultKind, Simulator, SimulatorConfig
from tests.scripts.loadtesting import load


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorConfig(max_num_seqs=1024)) as running:
        yield running


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        (FaultKind.ERROR_500, "http 500 InternalServerError"),
        (FaultKind.ERROR_429, "http 429 Too Many Requests"),
        (FaultKind.RESET, "closed"),
        (FaultKind.CLOSE_MID_STREAM, "truncated"),
        (FaultKind.RESET_MID_STREAM, "truncated"),
        (FaultKind.TRUNCATE, "truncated"),
        (FaultKind.STREAM_ERROR, "error_event InternalServerError"),
        (FaultKind.GARBAGE, "protocol"),
    ],
)
async def test_a_fault_of_a_stream_has_its_name(
    simulator: Simulator, kind: FaultKind, label: str
) -> None:
    simulator.arm(Fault(kind, count=3))

    tally = await load(simulator)

    assert {name: failure.count for name, failure in tally.failures.items()} == {label: 3}
    assert tally.ok > 0
    assert tally.begun == tally.ok + 3


@pytest.mark.parametrize("kind", [FaultKind.TRUNCATE, FaultKind.CLOSE_MID_STREAM])
async def test_a_whole_answer_that_stops_half_way_is_truncated(
    simulator: Simulator, kind: FaultKind
) -> None:
    simulator.arm(Fault(kind, count=2))

    tally = await load(simulator, is_stream=False)

    assert {name: failure.count for name, failure in tally.failures.items()} == {"truncated": 2}


async def test_refusals_are_not_errors_but_count_apart(simulator: Simulator) -> None:
    simulator.arm(Fault(FaultKind.ERROR_503, count=2))
    simulator.arm(Fault(FaultKind.ERROR_500, count=1))

    tally = await load(simulator)

    assert (tally.refused, tally.failed) == (2, 1)


async def test_a_server_that_hangs_is_a_timeout(simulator: Simulator) -> None:
    simulator.arm(Fault(FaultKind.HANG, count=1))
    simulator.arm(Fault(FaultKind.HANG_MID_STREAM, count=1))

    tally = await load(simulator, timeout_seconds=0.3)

    assert {name: failure.count for name, failure in tally.failures.items()} == {"timeout": 2}


async def test_nobody_there_is_a_failure_to_connect() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        tally = await load(unused.getsockname()[1])

    assert set(tally.failures) == {"connect"}
    assert tally.failures["connect"].message == "Connection refused"
    assert tally.ok == 0


async def test_a_server_that_hangs_up_on_everybody_is_counted_not_waited_for() -> None:
    class HangsUp(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            cast(asyncio.Transport, transport).abort()

    server = await asyncio.get_running_loop().create_server(HangsUp, "127.0.0.1", 0)
    async with server:
        tally = await load(server.sockets[0].getsockname()[1])

    assert set(tally.failures) == {"closed"}
    assert tally.failures["closed"].count > 5


async def test_a_stream_without_its_last_word_is_truncated() -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"so"}}]}\n\n'
    async with answering(b"content-type: text/event-stream\r\n", lambda: event) as port:
        tally = await load(port)

    assert set(tally.failures) == {"truncated"}
    assert tally.failures["truncated"].message == "the stream ended without [DONE]"


async def test_an_answer_that_is_no_stream_is_against_the_protocol() -> None:
    async with answering(b"content-type: application/json\r\n", lambda: b'{"choices":[]}') as port:
        tally = await load(port)

    assert set(tally.failures) == {"protocol"}


async def test_invented_codes_cannot_fill_the_memory() -> None:
    served = 0

    def body() -> bytes:
        nonlocal served
        served += 1
        return b'{"error":{"code":"code-%d"}}' % served

    async with answering(b"", body, status=b"418 I'm a teapot") as port:
        tally = await load(port, concurrency=40, failure_pause_seconds=0.0, duration_seconds=2.0)

    assert served > 100
    assert len(tally.failures) <= 61
    assert tally.failures["other"].count > 0


async def test_a_kept_alive_connection_that_was_closed_is_no_failure() -> None:
    async with Simulator(SimulatorConfig(keep_alive_seconds=0.02)) as simulator:
        tally = await load(simulator, think_seconds="fixed:0.1")

    assert not tally.failures
    assert tally.ok >= 4


async def test_tokens_are_those_the_server_reports(simulator: Simulator) -> None:
    tally = await load(simulator)

    assert tally.live_ok == sum(simulator.state.finished_total.values())
    assert tally.live_tokens == simulator.state.generation_tokens_total
    assert tally.without_usage == 0


@pytest.mark.parametrize("endpoint", [Endpoint.CHAT, Endpoint.COMPLETIONS])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_generation_is_counted_on_both_endpoints(
    simulator: Simulator, endpoint: Endpoint, is_stream: bool
) -> None:
    tally = await load(simulator, endpoint=endpoint, is_stream=is_stream)

    assert not tally.failures
    assert tally.live_tokens == tally.live_ok * 6
    assert bool(tally.time_to_first_token.count) is is_stream


async def test_embeddings_have_input_tokens_only(simulator: Simulator) -> None:
    tally = await load(
        simulator, endpoint=Endpoint.EMBEDDINGS, is_stream=False, model="sim-embedding"
    )

    assert tally.ok > 0
    assert not tally.failures
    assert tally.input_tokens > 0
    assert tally.output_tokens == 0


async def test_latencies_are_the_servers(simulator: Simulator) -> None:
    pace = SimulatorConfig(ttft_seconds=0.1, inter_token_seconds=0.02, max_num_seqs=1024)
    simulator.configure(pace)

    tally = await load(simulator, duration_seconds=1.0)

    assert tally.time_to_first_token.quantile(0.5) == pytest.approx(0.1, rel=0.1)
    assert tally.inter_token.quantile(0.5) == pytest.approx(0.02, rel=0.1)
    assert tally.time_per_output_token.quantile(0.5) == pytest.approx(0.02, rel=0.1)
    assert tally.end_to_end.quantile(0.5) == pytest.approx(0.2, rel=0.1)


async def test_good_is_what_meets_every_limit(simulator: Simulator) -> None:
    simulator.configure(SimulatorConfig(ttft_seconds=0.1, inter_token_seconds=0.02))

    easy = await load(simulator, slo=Slo(ttft_seconds=1.0, tpot_seconds=1.0, e2el_seconds=5.0))
    hard = await load(simulator, slo=Slo(ttft_seconds=1.0, tpot_seconds=0.005))

    assert easy.good == easy.ok > 0
    assert hard.good == 0 < hard.ok


async def test_an_open_loop_says_what_it_could_not_send(simulator: Simulator) -> None:
    simulator.configure(SimulatorConfig(ttft_seconds=0.3))

    tally = await load(simulator, rate=100.0, max_outstanding=10, duration_seconds=0.5)

    assert tally.begun == pytest.approx(50, abs=2)
    assert tally.not_sent == tally.begun - tally.ok > 20


async def test_a_stall_of_the_sender_is_not_hidden(simulator: Simulator) -> None:
    """Requests that were due meanwhile count from when they were due."""
    loop = asyncio.get_running_loop()
    loop.call_later(0.2, sleep, 0.3)

    tally = await load(simulator, rate=100.0, duration_seconds=0.8)

    assert tally.ok == pytest.approx(80, abs=1)
    assert (tally.end_to_end.quantile(0.95) or 0.0) > 0.2
    assert (tally.send_lag.quantile(0.95) or 0.0) > 0.2


async def test_what_is_overdue_at_the_end_is_sent_all_the_same(simulator: Simulator) -> None:
    asyncio.get_running_loop().call_later(0.2, sleep, 0.4)

    tally = await load(simulator, rate=100.0, duration_seconds=0.4)

    assert tally.ok == tally.begun == pytest.approx(40, abs=1)


async def test_what_is_under_way_at_the_end_is_cut_and_counted(simulator: Simulator) -> None:
    simulator.configure(SimulatorConfig(ttft_seconds=30.0))

    tally = await load(simulator, duration_seconds=0.2, drain_seconds=0.1)

    assert (tally.begun, tally.unfinished, tally.ok) == (2, 2, 0)
    assert not tally.failures


async def test_the_warm_up_does_not_count(simulator: Simulator) -> None:
    simulator.configure(SimulatorConfig(ttft_seconds=0.1))

    tally = await load(simulator, warm_up_seconds=0.5, duration_seconds=0.5)

    assert tally.begun < tally.live_ok
    assert tally.ok == tally.begun


class Answering(asyncio.Protocol):
    """Gives one answer to every request."""

    def __init__(self, head: bytes, body: Callable[[], bytes]) -> None:
        self._head = head
        self._body = body
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, content = self._received.partition(b"\r\n\r\n")
        if len(content) >= int(head.rpartition(b"content-length: ")[2]):
            self._received = b""
            body = self._body()
            length = b"content-length: %d\r\n\r\n" % len(body)
            self._transport.write(self._head + length + body)


@asynccontextmanager
async def answering(
    headers: bytes, body: Callable[[], bytes], *, status: bytes = b"200 OK"
) -> AsyncIterator[int]:
    """A server that gives this answer to every request; its port."""
    head = b"HTTP/1.1 %b\r\n%b" % (status, headers)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(head, body), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)
