"""The simulator's failures, one by one, as a client meets them."""

import asyncio
from typing import Any

import httpx2
import pytest

from scripts.simulator import Fault, FaultKind
from tests.scripts.simulated import chat, eventually, simulated

PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("error500", 500, "InternalServerError"),
        ("error503", 503, "ServiceUnavailableError"),
        ("error429", 429, "Too Many Requests"),
    ],
)
async def test_error_faults_answer_in_vllms_shape(kind: str, status: int, error: str) -> None:
    async with simulated() as (_, client):
        answer = await client.post(PATH, json=chat(), headers={"X-Sim-Fault": kind})

    assert (answer.status_code, answer.json()["error"]["type"]) == (status, error)
    assert answer.headers.get("retry-after") == ("1" if status == 429 else None)


async def test_counted_fault_befalls_that_many_requests() -> None:
    async with simulated() as (_, client):
        await client.post("/sim/faults", json={"kind": "error500", "count": 2})
        statuses = [(await client.post(PATH, json=chat())).status_code for _ in range(3)]
        left = (await client.get("/sim/faults")).json()

    assert statuses == [500, 500, 200]
    assert left == {"faults": []}


async def test_uncounted_fault_lasts_until_it_is_deleted() -> None:
    async with simulated() as (_, client):
        await client.post("/sim/faults", json={"kind": "error503"})
        statuses = [(await client.post(PATH, json=chat())).status_code for _ in range(3)]
        await client.delete("/sim/faults")
        healed = (await client.post(PATH, json=chat())).status_code

    assert (statuses, healed) == ([503] * 3, 200)


async def test_hanging_request_is_held_until_its_client_leaves() -> None:
    async with simulated() as (simulator, client):
        with pytest.raises(httpx2.ReadTimeout):
            await client.post(PATH, json=chat(), headers={"X-Sim-Fault": "hang"}, timeout=0.1)
        await eventually(lambda: simulator.state.hanging == 0)

    assert simulator.state.generation_tokens_total == 0


async def test_stream_that_hangs_stops_generating() -> None:
    async with simulated(inter_token_seconds=0.001) as (simulator, client):
        events = await events_before_failure(client, "hang_mid_stream;events=4")
        await eventually(lambda: simulator.state.aborted_total == 1)

    assert events == (4, httpx2.ReadTimeout)


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("close_mid_stream", httpx2.RemoteProtocolError),
        ("reset_mid_stream", httpx2.ReadError),
        ("truncate", httpx2.RemoteProtocolError),
    ],
)
async def test_cut_stream_is_not_mistaken_for_a_whole_one(
    kind: str, failure: type[Exception]
) -> None:
    async with simulated() as (_, client):
        _, seen = await events_before_failure(client, f"{kind};events=3")

    assert seen is failure


@pytest.mark.parametrize("kind", ["reset", "reset_mid_stream", "close_mid_stream", "truncate"])
async def test_cut_whole_answer_is_not_mistaken_for_a_whole_one(kind: str) -> None:
    async with simulated() as (_, client):
        with pytest.raises(httpx2.TransportError):
            await client.post(PATH, json=chat(), headers={"X-Sim-Fault": kind})


async def test_stream_error_looks_like_success_as_in_vllm() -> None:
    headers = {"X-Sim-Fault": "stream_error;events=2"}
    async with simulated(inter_token_seconds=0.001) as (simulator, client):
        answer = await client.post(PATH, json=chat(stream=True), headers=headers)
        state = simulator.state

    *told, error, done, _ = answer.text.split("\n\n")
    assert answer.status_code == 200
    assert len(told) == 2
    assert error.startswith('data: {"error": {"message": "EngineCore encountered an issue.')
    assert done == "data: [DONE]"
    assert (state.running, state.aborted_total) == (0, 1)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["drip", "slow_head;seconds=0.05"])
async def test_slow_answers_arrive_whole(kind: str, stream: bool) -> None:
    async with simulated() as (_, client):
        whole = await client.post(PATH, json=chat(stream=stream))
        slow = await client.post(PATH, json=chat(stream=stream), headers={"X-Sim-Fault": kind})

    assert slow.status_code == 200
    assert len(slow.content) == len(whole.content)


async def test_garbage_is_html_with_status_200() -> None:
    async with simulated() as (_, client):
        answer = await client.post(PATH, json=chat(), headers={"X-Sim-Fault": "garbage"})

    assert (answer.status_code, answer.text[:6]) == (200, "<html>")


async def test_unhealthy_shows_on_health_only() -> None:
    async with simulated() as (simulator, client):
        simulator.arm(Fault(FaultKind.UNHEALTHY, count=1))
        statuses = [(await client.get("/health")).status_code for _ in range(2)]
        answer = await client.post(PATH, json=chat())

    assert (statuses, answer.status_code) == ([503, 200], 200)


async def test_death_drops_every_connection_and_the_listener() -> None:
    async with simulated(ttft_seconds=5) as (simulator, client):
        bystander = asyncio.create_task(client.post(PATH, json=chat()))
        await eventually(lambda: simulator.state.running == 1)
        with pytest.raises(httpx2.TransportError):
            await client.post(PATH, json=chat(), headers={"X-Sim-Fault": "die"})
        with pytest.raises(httpx2.TransportError):
            await bystander
        with pytest.raises(httpx2.ConnectError):
            await client.get("/health")


async def test_unknown_fault_is_refused() -> None:
    async with simulated() as (_, client):
        answer = await client.post("/sim/faults", json={"kind": "earthquake"})

    assert answer.status_code == 400
    assert "error500" in answer.json()["error"]["message"]


async def events_before_failure(
    client: httpx2.AsyncClient, fault: str
) -> tuple[int, type[Exception]]:
    """Events of a stream that came before it failed, and how it failed."""
    body: dict[str, Any] = chat(stream=True)
    seen = 0
    headers = {"X-Sim-Fault": fault}
    try:
        async with client.stream("POST", PATH, json=body, headers=headers, timeout=0.3) as answer:
            async for line in answer.aiter_lines():
                seen += line.startswith("data: {")
    except httpx2.TransportError as failure:
        return seen, type(failure)
    raise AssertionError("the stream ended as if nothing had happened")
