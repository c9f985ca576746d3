"""The simulator's pace, its queue, its counters and what a disconnect does to them."""

import asyncio
import time

import httpx2
import orjson
import pytest

from scripts.simulator import Fault, FaultKind, Simulator, SimulatorConfig
from tests.scripts.simulated import chat, eventually, metric, simulated, streamed

CONTINUOUS = {"include_usage": True, "continuous_usage_stats": True}


async def test_tokens_come_at_the_configured_pace() -> None:
    async with simulated(ttft_seconds=0.1, inter_token_seconds=0.02) as (_, client):
        began = time.perf_counter()
        await streamed(client, chat(max_tokens=6))
        took = time.perf_counter() - began
        first = await metric(client, "vllm:time_to_first_token_seconds_sum")
        later = await metric(client, "vllm:inter_token_latency_seconds_count")

    assert 0.19 < took < 1.0
    assert 0.095 < first < 0.5
    assert later == 5


async def test_counters_add_up_with_what_clients_were_told() -> None:
    async with simulated() as (simulator, client):
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=chat(max_tokens=n)) for n in range(1, 21))
        )
        told = [answer.json()["usage"] for answer in answers]
        state = simulator.state
        prompts = await metric(client, "vllm:prompt_tokens_total")
        finished = await metric(client, "vllm:request_success_total", 'finished_reason="length"')

    assert state.generation_tokens_total == sum(usage["completion_tokens"] for usage in told)
    assert state.prompt_tokens_total == prompts == sum(usage["prompt_tokens"] for usage in told)
    assert finished == 20


async def test_requests_beyond_max_num_seqs_wait() -> None:
    async with simulated(max_num_seqs=2, ttft_seconds=0.15) as (simulator, client):
        calls = [
            asyncio.create_task(client.post("/v1/chat/completions", json=chat())) for _ in range(5)
        ]
        await eventually(lambda: simulator.state.running == 2 and simulator.state.waiting == 3)
        waiting = await metric(client, "vllm:num_requests_waiting")
        answers = await asyncio.gather(*calls)

    assert waiting == 3
    assert [answer.status_code for answer in answers] == [200] * 5


async def test_disconnect_stops_a_stream_and_what_was_made_stays_counted() -> None:
    body = chat(max_tokens=5000, ignore_eos=True, stream=True, stream_options=CONTINUOUS)
    async with simulated(inter_token_seconds=0.01) as (simulator, client):
        seen = 0
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    seen = orjson.loads(line[6:])["usage"]["completion_tokens"]
                if seen == 5:
                    break
        await eventually(lambda: simulator.state.aborted_total == 1)
        made = simulator.state.generation_tokens_total
        await asyncio.sleep(0.05)
        state = simulator.state

    assert 5 <= made <= 15
    assert state.generation_tokens_total == made
    assert (state.running, sum(state.finished_total.values())) == (0, 0)


async def test_disconnect_frees_a_seat_for_a_waiting_request() -> None:
    async with simulated(max_num_seqs=1, ttft_seconds=0.2) as (simulator, client):
        first = asyncio.create_task(client.post("/v1/chat/completions", json=chat()))
        await eventually(lambda: simulator.state.running == 1)
        second = asyncio.create_task(client.post("/v1/chat/completions", json=chat()))
        await eventually(lambda: simulator.state.waiting == 1)
        first.cancel()
        answer = await second

    assert answer.status_code == 200
    assert simulator.state.aborted_total == 1


async def test_slow_reader_is_not_generated_for_without_bound() -> None:
    body = orjson.dumps(chat(max_tokens=30000, ignore_eos=True, stream=True))
    async with simulated() as (simulator, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port, limit=4096)
        writer.write(post_bytes(body))
        await asyncio.sleep(0.3)
        stalled = simulator.state.generation_tokens_total
        await asyncio.sleep(0.1)
        still = simulator.state.generation_tokens_total
        answer = bytearray()
        while not answer.endswith(b"0\r\n\r\n"):
            answer += await reader.read(65536)
        writer.close()

    # What the kernel's socket buffers take is the kernel's business.
    assert stalled == still < 30000
    assert answer.count(b'"content":') == 30001


async def test_kv_full_lets_requests_pile_up_until_it_is_taken_away() -> None:
    async with simulated() as (simulator, client):
        simulator.arm(Fault(FaultKind.KV_FULL))
        calls = [
            asyncio.create_task(client.post("/v1/chat/completions", json=chat())) for _ in range(50)
        ]
        await eventually(lambda: simulator.state.waiting == 50)
        usage = simulator.state.kv_cache_usage
        simulator.disarm()
        answers = await asyncio.gather(*calls)

    assert usage == 1.0
    assert {answer.status_code for answer in answers} == {200}


async def test_cached_prefix_shortens_the_time_to_first_token() -> None:
    body = chat(messages=[{"role": "user", "content": "the ship sails " * 40}], max_tokens=1)
    async with simulated(ttft_seconds=0.3) as (_, client):
        waits = []
        for _ in range(2):
            began = time.perf_counter()
            await client.post("/v1/chat/completions", json=body)
            waits.append(time.perf_counter() - began)

    assert waits[1] < waits[0] / 2


async def test_metrics_are_text_format_with_vllms_names() -> None:
    async with simulated() as (_, client):
        answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})

    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'vllm:num_requests_running{engine="0",model_name="sim-model"} 0.0' in answer.text
    assert 'model_name="sim-model",le="2560.0"} 0.0' in answer.text


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with simulated(inter_token_seconds=0.005) as (simulator, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        bodies = [orjson.dumps(chat(max_tokens=count)) for count in (9, 1, 5)]
        writer.write(b"".join(map(post_bytes, bodies)))
        counts = []
        for _ in bodies:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = orjson.loads(await reader.readexactly(length))
            counts.append(answer["usage"]["completion_tokens"])
        writer.close()

    assert counts == [9, 1, 5]


async def test_unread_pipelined_answers_stop_the_reading_of_requests() -> None:
    async with simulated() as (simulator, _):
        _, writer = await asyncio.open_connection("127.0.0.1", simulator.port, limit=4096)
        writer.write(post_bytes(orjson.dumps(chat(max_tokens=1000, ignore_eos=True))) * 5000)
        await asyncio.sleep(0.3)
        answered = simulator.state.finished_total["length"]
        writer.close()
        await eventually(lambda: simulator.state.connections == 0)

    assert 0 < answered < 5000


async def test_idle_connection_is_closed_after_the_keep_alive_time() -> None:
    async with simulated(keep_alive_seconds=0.1) as (simulator, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        began = time.perf_counter()
        await asyncio.wait_for(reader.read(), 3)
        took = time.perf_counter() - began
        writer.close()

    assert 0.09 < took < 1.0


async def test_settings_change_while_running() -> None:
    async with simulated() as (simulator, client):
        answer = await client.post("/sim/config", json={"ttft": 0.25, "output_tokens": 3})
        refused = await client.post("/sim/config", json={"port": 1})
        usage = (await client.post("/v1/chat/completions", json=chat())).json()["usage"]

    assert answer.json()["ttft_seconds"] == simulator.config.ttft_seconds == 0.25
    assert refused.status_code == 400
    assert usage["completion_tokens"] == 3


async def test_received_requests_are_recorded_with_a_bound() -> None:
    async with simulated(recorded_requests=2) as (simulator, client):
        for count in (1, 2, 3):
            await client.post(
                "/v1/chat/completions", json=chat(max_tokens=count), headers={"X-Trace": "t"}
            )

    recorded = [request.json()["max_tokens"] for request in simulator.requests]
    last = simulator.requests[-1]
    assert recorded == [2, 3]
    assert (last.method, last.path, last.headers["x-trace"]) == (
        "POST",
        "/v1/chat/completions",
        "t",
    )


async def test_leaving_the_simulator_refuses_connections() -> None:
    async with Simulator(SimulatorConfig()) as simulator:
        url = simulator.url
    async with httpx2.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"{url}/health")


def post_bytes(body: bytes) -> bytes:
    """A chat request on the wire."""
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )
