"""The file of upstreams changes while the gateway runs: nothing is dropped, nothing half taken."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED
from tests.harness.gateway import GatewayProcess, chat

CHAT = "/v1/chat/completions"
RELOAD_SECONDS = 10.0


class File:
    """The upstreams file, and the gateway that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *simulators: tuple[str, Simulator, str], aliases: str = "") -> None:
        """Name, simulator and further lines of each upstream."""
        tables = [
            f'[[upstream]]\nname = "{name}"\nurl = "{simulator.url}"\n{more}\n'
            for name, simulator, more in simulators
        ]
        self.path.write_text("\n".join([*tables, "[aliases]", aliases, ""]))


async def generation(gateway: GatewayProcess, number: int) -> None:
    async with asyncio.timeout(RELOAD_SECONDS):
        while await gateway.metric("gateway_upstreams_generation") < number:
            await asyncio.sleep(0.02)


async def healthy(gateway: GatewayProcess, count: int) -> None:
    async with asyncio.timeout(RELOAD_SECONDS):
        while await gateway.metric("gateway_upstream_healthy") != count:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def reading(file: File, folder: Path, **settings: str) -> AsyncIterator[GatewayProcess]:
    merged = UNLIMITED | {"SLOW_START_SECONDS": "0", "UPSTREAMS_FILE": str(file.path)} | settings
    async with GatewayProcess(folder=folder, **merged) as gateway:
        yield gateway


def asked(simulator: Simulator) -> int:
    return sum(request.path == CHAT for request in simulator.requests)


async def upstreams_in_metrics(gateway: GatewayProcess) -> list[str]:
    """The upstream of each series of gateway_upstream_healthy, as often as it stands there."""
    lines = (await gateway.client.get("/metrics")).text.splitlines()
    series = [line for line in lines if line.startswith("gateway_upstream_healthy{")]
    return sorted(line.split('"')[1] for line in series)


async def test_a_change_is_taken_up_by_itself_and_a_hangup_hurries_it(tmp_path: Path) -> None:
    file = File(tmp_path / "upstreams.toml")
    async with Simulator() as first, Simulator() as second:
        file.write(("first", first, ""))
        async with reading(file, tmp_path) as gateway:
            assert await upstreams_in_metrics(gateway) == ["first"]
            file.write(("first", first, ""), ("second", second, ""))
            await generation(gateway, 2)
            await healthy(gateway, 2)
            assert await upstreams_in_metrics(gateway) == ["first", "second"]

            file.write(("second", second, ""), aliases='"gpt-4o" = "sim-model"')
            gateway.signal(signal.SIGHUP)
            async with asyncio.timeout(1.5):
                await generation(gateway, 3)
            assert await upstreams_in_metrics(gateway) == ["second"]
            answer = await gateway.client.post(CHAT, json=chat(model="gpt-4o"))
            lines = await gateway.logged(event="upstreams", generation=3)

    assert answer.json()["model"] == "gpt-4o"
    assert (asked(first), asked(second)) == (0, 1)
    assert lines[0]["upstreams"] == [f"second={second.url}"]


async def test_a_removed_upstream_finishes_what_it_began_and_gets_nothing_new(
    tmp_path: Path,
) -> None:
    file = File(tmp_path / "upstreams.toml")
    slow = SimulatorConfig(ttft_seconds=0.1, inter_token_seconds=0.1)
    async with Simulator(slow) as old, Simulator() as new:
        file.write(("old", old, ""))
        async with reading(file, tmp_path) as gateway:
            body = chat(stream=True, max_tokens=20)
            stream = asyncio.create_task(gateway.client.post(CHAT, json=body))
            async with asyncio.timeout(RELOAD_SECONDS):
                while old.state.running < 1:
                    await asyncio.sleep(0.01)
            file.write(("new", new, ""))
            gateway.signal(signal.SIGHUP)
            await generation(gateway, 2)
            await healthy(gateway, 1)
            answers = [await gateway.client.post(CHAT, json=chat()) for _ in range(5)]
            assert not stream.done()
            ended = await stream
            # Its connections are closed and its series are gone once the last call is over.
            async with asyncio.timeout(5):
                while "old" in (await gateway.client.get("/metrics")).text or (
                    old.state.connections
                ):
                    await asyncio.sleep(0.05)

    assert {answer.status_code for answer in answers} == {200}
    assert "[DONE]" in ended.text
    assert (asked(old), asked(new)) == (1, 5)


async def test_who_stays_keeps_its_connections_its_circuit_and_its_calls(tmp_path: Path) -> None:
    file = File(tmp_path / "upstreams.toml")
    slow = SimulatorConfig(ttft_seconds=4.0)  # all eight must be under way at once
    async with Simulator(slow) as stays, Simulator() as goes:
        file.write(("stays", stays, ""), ("goes", goes, ""))
        async with reading(file, tmp_path) as gateway:
            await healthy(gateway, 2)
            calls = [asyncio.create_task(gateway.client.post(CHAT, json=chat())) for _ in range(8)]
            async with asyncio.timeout(RELOAD_SECONDS):
                while stays.state.running < 4:
                    await asyncio.sleep(0.01)
            file.write(("stays", stays, "weight = 5\nmax_in_flight = 64"))
            gateway.signal(signal.SIGHUP)
            await generation(gateway, 2)
            in_flight = await gateway.metric("gateway_upstream_in_flight", upstream="stays")
            statuses = {(await call).status_code for call in calls}
            details = (await gateway.client.get("/health/upstreams")).json()["upstreams"]

    assert in_flight == 4
    assert statuses == {200}
    assert [(each["weight"], each["max_in_flight"], each["healthy"]) for each in details] == [
        (5, 64, True)
    ]


async def test_a_broken_file_changes_nothing_and_says_so(tmp_path: Path) -> None:
    file = File(tmp_path / "upstreams.toml")
    async with Simulator() as simulator:
        file.write(("only", simulator, ""))
        async with reading(file, tmp_path) as gateway:
            for number, text in enumerate(("[[upstream]\n", '[[upstream]]\nurll = "x"\n'), 1):
                file.path.write_text(text)
                gateway.signal(signal.SIGHUP)
                async with asyncio.timeout(RELOAD_SECONDS):
                    while await gateway.metric("gateway_upstreams_reload_failures_total") < number:
                        await asyncio.sleep(0.02)
            answer = await gateway.client.post(CHAT, json=chat())
            event = "the upstreams file cannot be used; the upstreams stay as they were"
            async with asyncio.timeout(RELOAD_SECONDS):
                while len(lines := await gateway.logged(event=event)) < 2:
                    await asyncio.sleep(0.02)
            told = [line["faults"] for line in lines]

            file.path.unlink()
            gateway.signal(signal.SIGHUP)
            async with asyncio.timeout(RELOAD_SECONDS):
                while await gateway.metric("gateway_upstreams_reload_failures_total") < 3:
                    await asyncio.sleep(0.02)
            still = await gateway.client.post(CHAT, json=chat())

            file.write(("only", simulator, ""), aliases='"again" = "sim-model"')
            await generation(gateway, 2)
            mended = await gateway.client.post(CHAT, json=chat(model="again"))

    assert [answer.status_code, still.status_code, mended.status_code] == [200] * 3
    assert "is no TOML" in told[0][0]
    assert any("urll: is no key of this file; did you mean url?" in fault for fault in told[1])
    assert any("url: is missing" in fault for fault in told[1])


async def test_nothing_is_lost_while_generations_follow_each_other(tmp_path: Path) -> None:
    file = File(tmp_path / "upstreams.toml")
    pace = SimulatorConfig(ttft_seconds=0.02, inter_token_seconds=0.005)
    async with Simulator(pace) as first, Simulator(pace) as second:
        first_alone, second_alone = ("first", first, ""), ("second", second, "")
        file.write(first_alone, second_alone)
        async with reading(file, tmp_path) as gateway:
            await healthy(gateway, 2)
            statuses: list[int] = []
            stop = asyncio.Event()

            async def keep_calling(is_stream: bool) -> None:
                while not stop.is_set():
                    answer = await gateway.client.post(CHAT, json=chat(stream=is_stream))
                    whole = not is_stream or "[DONE]" in answer.text
                    statuses.append(answer.status_code if whole else 0)

            callers = [
                asyncio.create_task(keep_calling(is_stream=number % 2 == 0)) for number in range(16)
            ]
            for number in range(2, 8):
                await healthy(gateway, len(await upstreams_in_metrics(gateway)))
                file.write(*((first_alone, second_alone) if number % 2 else (second_alone,)))
                gateway.signal(signal.SIGHUP)
                await generation(gateway, number)
            stop.set()
            await asyncio.gather(*callers)
            held = await gateway.metric("gateway_upstream_in_flight")

    assert len(statuses) > 100
    assert set(statuses) == {200}
    assert held == 0


async def test_a_key_from_the_environment_is_sent_and_never_shown(tmp_path: Path) -> None:
    file = File(tmp_path / "upstreams.toml")
    secret = "sk-of-the-upstream-1"
    async with Simulator(SimulatorConfig(api_key=secret)) as simulator:
        file.write(("guarded", simulator, 'api_key_env = "GUARDED_KEY"'))
        async with reading(file, tmp_path, GUARDED_KEY=secret) as gateway:
            answer = await gateway.client.post(CHAT, json=chat())
            shown = (await gateway.client.get("/health/upstreams")).text
            shown += (await gateway.client.get("/metrics")).text
        log = json.dumps(gateway.log_lines())

    assert answer.status_code == 200
    assert secret not in shown + log
