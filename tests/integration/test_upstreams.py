"""Several upstreams: the classic pair, kinds, weights, bounds, sessions, and one killed in use."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED
from tests.harness.commands import run_gateway
from tests.harness.gateway import GatewayProcess, chat, free_port
from tests.harness.simulator import SimulatorProcess

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
GENERATES = SimulatorConfig(models=("gen",), embedding_models=())
EMBEDS = SimulatorConfig(models=(), embedding_models=("bge",))


def toml(*tables: str, aliases: str = "") -> str:
    return "\n".join([*(f"[[upstream]]\n{table}" for table in tables), "[aliases]", aliases, ""])


def file_in(folder: Path, text: str) -> str:
    path = folder / "upstreams.toml"
    path.write_text(text)
    return str(path)


@asynccontextmanager
async def behind(folder: Path, text: str, **settings: str) -> AsyncIterator[GatewayProcess]:
    """A gateway in front of what a file names, when all of it is well."""
    path = file_in(folder, text)
    async with GatewayProcess(
        folder=folder, UPSTREAMS_FILE=path, **UNLIMITED | settings
    ) as gateway:
        while await gateway.metric("gateway_upstream_healthy") < text.count("[[upstream]]"):
            await asyncio.sleep(0.02)
        yield gateway


@dataclass(frozen=True, slots=True)
class Pair:
    """One upstream that generates and one that embeds, and a gateway in front."""

    gateway: GatewayProcess
    generator: Simulator
    embedder: Simulator


@asynccontextmanager
async def pair(folder: Path, **settings: str) -> AsyncIterator[Pair]:
    async with Simulator(GENERATES) as generator, Simulator(EMBEDS) as embedder:
        text = toml(
            f'name = "gen"\nurl = "{generator.url}"\nkind = "generate"',
            f'name = "emb"\nurl = "{embedder.url}"\nkind = "embed"',
        )
        async with behind(folder, text, **settings) as gateway:
            yield Pair(gateway, generator, embedder)


def embedding(model: str = "bge") -> dict[str, Any]:
    return {"model": model, "input": "a text"}


# The classic pair


async def test_the_classic_pair_needs_one_line(tmp_path: Path) -> None:
    async with Simulator(GENERATES) as generator, Simulator(EMBEDS) as embedder:
        both = f"gen={generator.url},emb={embedder.url}"
        async with GatewayProcess(folder=tmp_path, UPSTREAMS=both) as gateway:
            while await gateway.metric("gateway_upstream_healthy") < 2:
                await asyncio.sleep(0.02)
            answer = await gateway.client.post(CHAT, json=chat(model="gen"))
            vectors = await gateway.client.post(EMBEDDINGS, json=embedding())
            listed = (await gateway.client.get("/v1/models")).json()

    assert (answer.status_code, vectors.status_code) == (200, 200)
    assert [model["id"] for model in listed["data"]] == ["bge", "gen"]


async def test_what_names_no_model_goes_to_the_only_one_of_its_kind(tmp_path: Path) -> None:
    async with pair(tmp_path) as running:
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        answer = await running.gateway.client.post(CHAT, json=body)
        vectors = await running.gateway.client.post(EMBEDDINGS, json={"input": "a text"})

    assert answer.json()["model"] == "gen"
    assert vectors.json()["model"] == "bge"


async def test_a_model_of_the_wrong_kind_is_refused_with_what_it_does(tmp_path: Path) -> None:
    async with pair(tmp_path) as running:
        wrong = await running.gateway.client.post(CHAT, json=chat(model="bge"))
        other = await running.gateway.client.post(EMBEDDINGS, json=embedding("gen"))
        asked = [r for r in running.embedder.requests if r.method == "POST"]

    assert (wrong.status_code, other.status_code) == (400, 400)
    assert wrong.json()["error"]["code"] == "unsupported_operation"
    assert wrong.json()["error"]["param"] == "model"
    assert "'bge' does embeddings only" in wrong.json()["error"]["message"]
    assert "'gen' does text generation only" in other.json()["error"]["message"]
    assert asked == []


async def test_health_of_the_pair_is_degraded_while_one_of_them_is_away(tmp_path: Path) -> None:
    async with pair(tmp_path, HEALTH_INTERVAL_SECONDS="0.1") as running:
        gateway = running.gateway
        whole = await gateway.client.get("/health/upstreams")
        running.embedder.vanish()
        while (degraded := await gateway.client.get("/health/upstreams")).status_code == 200:
            await asyncio.sleep(0.02)
        alive, ready = await gateway.client.get("/health"), await gateway.client.get("/ready")
        forwarded = {"x-forwarded-for": "10.1.2.3"}
        stranger = await gateway.client.get("/health/upstreams", headers=forwarded)

    assert whole.json()["status"] == "ok"
    assert whole.json()["missing"] == []
    report = degraded.json()
    assert (degraded.status_code, report["status"], report["missing"]) == (503, "degraded", ["bge"])
    states = {each["name"]: (each["kinds"], each["healthy"]) for each in report["upstreams"]}
    assert states == {"gen": (["generate"], True), "emb": (["embed"], False)}
    assert (alive.status_code, ready.status_code) == (200, 200)
    assert (stranger.status_code, stranger.json()) == (503, {"status": "degraded"})


async def test_check_asks_every_upstream_of_the_file(tmp_path: Path) -> None:
    async with Simulator(GENERATES) as generator:
        text = toml(
            f'name = "gen"\nurl = "{generator.url}"\nmodels = ["gen", "gone"]',
            f'name = "emb"\nurl = "http://127.0.0.1:{free_port()}"\nkind = "embed"',
            aliases='"gpt-4o" = "nothing"',
        )
        ended = await run_gateway(
            "check",
            settings={
                "GATEWAY_API_KEYS": "sk-test-abcdefghijkl",
                "DATABASE_PATH": str(tmp_path / "gateway.db"),
                "UPSTREAMS_FILE": file_in(tmp_path, text),
            },
        )

    assert ended.code == 1
    assert "upstream 'gen', models: gone not served there; it has gen" in ended.err
    assert "upstream 'emb': nothing answers at" in ended.err
    assert "alias gpt-4o=nothing: not served" in ended.err
    assert "3 fault" in ended.err


async def test_check_tells_the_faults_of_two_sources_and_of_the_file_among_them(
    tmp_path: Path,
) -> None:
    ended = await run_gateway(
        "check",
        settings={
            "GATEWAY_API_KEYS": "sk-test-abcdefghijkl",
            "DATABASE_PATH": str(tmp_path / "gateway.db"),
            "VLLM_URL": f"http://127.0.0.1:{free_port()}",
            "UPSTREAMS_FILE": file_in(tmp_path, "[[upstream]]\nweight = 0\n"),
        },
    )

    assert ended.code == 78
    assert "UPSTREAMS_FILE and VLLM_URL are set" in ended.err
    assert "weight: must be a whole number" in ended.err
    assert "3 fault" in ended.err


# Choice


@asynccontextmanager
async def replicas(
    folder: Path, *words: str, pace: SimulatorConfig | None = None, **settings: str
) -> AsyncIterator[tuple[GatewayProcess, list[Simulator]]]:
    """As many replicas of one model as there are words, which go into their tables."""
    async with AsyncExitStack() as opened:
        simulators = [
            await opened.enter_async_context(Simulator(pace or SimulatorConfig())) for _ in words
        ]
        tables = [
            f'name = "u{number}"\nurl = "{simulator.url}"\n{word}'
            for number, (simulator, word) in enumerate(zip(simulators, words, strict=True))
        ]
        calm = {"SLOW_START_SECONDS": "0", **settings}
        gateway = await opened.enter_async_context(behind(folder, toml(*tables), **calm))
        yield gateway, simulators


def chats(simulator: Simulator) -> int:
    return sum(request.path == CHAT for request in simulator.requests)


async def test_calls_are_shared_by_weight(tmp_path: Path) -> None:
    async with replicas(tmp_path, "weight = 1", "weight = 3") as (gateway, simulators):
        for _ in range(40):
            await gateway.client.post(CHAT, json=chat())

    assert [chats(simulator) for simulator in simulators] == [10, 30]


async def test_calls_to_full_replicas_wait_and_are_answered(tmp_path: Path) -> None:
    slow = SimulatorConfig(ttft_seconds=0.3)
    bound = "max_in_flight = 2"
    async with replicas(tmp_path, bound, bound, pace=slow) as (gateway, simulators):
        calls = [asyncio.create_task(gateway.client.post(CHAT, json=chat())) for _ in range(10)]
        most = [0, 0]
        async with asyncio.timeout(60):
            while not all(call.done() for call in calls):
                running = [simulator.state.running for simulator in simulators]
                most = [max(pair) for pair in zip(most, running, strict=True)]
                await asyncio.sleep(0.01)
        statuses = [(await call).status_code for call in calls]

    assert statuses == [200] * 10
    assert most == [2, 2]


async def test_a_full_model_with_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    slow = SimulatorConfig(ttft_seconds=1.0)
    bound = "max_in_flight = 2"
    async with replicas(tmp_path, bound, bound, pace=slow, MAX_QUEUED="3") as (
        gateway,
        simulators,
    ):
        answers = await asyncio.gather(*(gateway.client.post(CHAT, json=chat()) for _ in range(9)))
        asked = sum(chats(simulator) for simulator in simulators)
        refused = [answer for answer in answers if answer.status_code == 503]

    assert Counter(answer.status_code for answer in answers) == {200: 7, 503: 2}
    assert asked == 7
    assert {answer.json()["error"]["code"] for answer in refused} == {"server_is_overloaded"}
    assert all("Every replica of this model" in answer.text for answer in refused)
    assert all("retry-after" in answer.headers for answer in refused)


async def test_calls_to_a_full_model_hold_up_no_other_model(tmp_path: Path) -> None:
    async with (
        Simulator(GENERATES) as generator,
        Simulator(EMBEDS) as embedder,
    ):
        text = toml(
            f'name = "gen"\nurl = "{generator.url}"\nmax_in_flight = 1',
            f'name = "emb"\nurl = "{embedder.url}"\nmax_in_flight = 1',
        )
        limits = {"MAX_IN_FLIGHT": "4", "MAX_QUEUED": "8", "QUEUE_TIMEOUT_SECONDS": "30"}
        async with behind(tmp_path, text, **limits) as gateway:
            generator.arm(Fault(FaultKind.STALLED))
            body = chat(model="gen")
            stuck = [asyncio.create_task(gateway.client.post(CHAT, json=body)) for _ in range(6)]
            async with asyncio.timeout(20):
                while await gateway.metric("gateway_queue_depth") < 5:
                    await asyncio.sleep(0.02)
            vectors = [await gateway.client.post(EMBEDDINGS, json=embedding()) for _ in range(5)]
            waiting = await gateway.metric("gateway_queue_depth")
            generator.disarm()
            statuses = [(await call).status_code for call in stuck]

    assert [answer.status_code for answer in vectors] == [200] * 5
    assert waiting == 5
    assert statuses == [200] * 6


async def test_who_waits_for_a_replica_that_dies_is_told_at_once(tmp_path: Path) -> None:
    async with replicas(
        tmp_path,
        "max_in_flight = 1",
        QUEUE_TIMEOUT_SECONDS="60",
        CIRCUIT_FAILURE_THRESHOLD="1",
    ) as (gateway, (simulator,)):
        simulator.arm(Fault(FaultKind.STALLED))
        calls = [asyncio.create_task(gateway.client.post(CHAT, json=chat())) for _ in range(4)]
        async with asyncio.timeout(30):
            while await gateway.metric("gateway_queue_depth") < 3:
                await asyncio.sleep(0.02)
            simulator.vanish()
            answers = [await call for call in calls]

    codes = Counter(answer.json()["error"]["code"] for answer in answers)
    assert codes.total() == 4
    assert codes["circuit_open"] == 3, codes


async def test_a_session_stays_with_its_replica_and_sessions_spread(tmp_path: Path) -> None:
    async with replicas(tmp_path, "", "", "", SESSION_HEADER="X-Session-Id") as (
        gateway,
        simulators,
    ):
        homes = []
        for session in range(12):
            before = [chats(simulator) for simulator in simulators]
            for _ in range(3):
                await gateway.client.post(
                    CHAT, json=chat(), headers={"x-session-id": f"session-{session}"}
                )
            moved = [chats(s) - b for s, b in zip(simulators, before, strict=True)]
            assert sorted(moved) == [0, 0, 3]
            homes.append(moved.index(3))
        # A session goes elsewhere when its replica is gone, and is answered.
        simulators[homes[0]].vanish()
        answer = await gateway.client.post(CHAT, json=chat(), headers={"x-session-id": "session-0"})

    assert len(set(homes)) == 3
    assert answer.status_code == 200


# One of two replicas killed under load


@dataclass(slots=True)
class Heard:
    """What one caller got: `has_begun` is set at the first byte of the answer's body."""

    status: int = 0
    has_begun: bool = False
    is_whole: bool = False


async def call(client: httpx2.AsyncClient, body: dict[str, Any], heard: Heard) -> None:
    """One call to its end, however that comes."""
    try:
        async with client.stream("POST", CHAT, json=body) as answer:
            heard.status = answer.status_code
            text = b""
            async for piece in answer.aiter_raw():
                heard.has_begun = True
                text += piece
    except httpx2.TransportError:
        return
    heard.is_whole = heard.status == 200 and (not body["stream"] or b"[DONE]" in text)


@pytest.mark.parametrize("are_answers_under_way", [False, True])
async def test_a_replica_killed_under_load_loses_nothing_that_had_not_begun(
    tmp_path: Path, are_answers_under_way: bool
) -> None:
    pace = ("--ttft", "1.5", "--inter-token", "0.05", "--max-num-seqs", "400")
    async with SimulatorProcess(*pace) as first, SimulatorProcess(*pace) as second:
        both = f"first={first.url},second={second.url}"
        async with GatewayProcess(
            folder=tmp_path, UPSTREAMS=both, **UNLIMITED | {"MAX_IN_FLIGHT": "off"}
        ) as gateway:
            while await gateway.metric("gateway_upstream_healthy") < 2:
                await asyncio.sleep(0.02)
            bounds = httpx2.Limits(max_connections=400)
            async with gateway.client_with(gateway.key, limits=bounds) as client:
                heard = [Heard() for _ in range(200)]
                bodies = [
                    chat(stream=number % 2 == 0, max_tokens=12) for number in range(len(heard))
                ]
                calls = asyncio.gather(*map(call, [client] * 200, bodies, heard))
                while await gateway.metric("gateway_upstream_in_flight") < 200:
                    await asyncio.sleep(0.01)
                while are_answers_under_way and not any(each.has_begun for each in heard):
                    await asyncio.sleep(0.001)
                nothing_has_begun = not any(each.has_begun for each in heard)
                await first.kill()
                await calls

        lost = [each for each in heard if not each.is_whole]
        assert all(each.has_begun for each in lost)
        assert nothing_has_begun is not are_answers_under_way
        assert are_answers_under_way or lost == []
        assert sum(each.is_whole for each in heard) >= 100
