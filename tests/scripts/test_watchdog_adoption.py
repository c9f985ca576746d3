"""A watchdog that dies takes nobody with it, and the next one takes over what lives."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from tests.scripts.watched import Watched

CALLERS = 8


async def test_watchdog_is_killed_under_load_and_nobody_notices(tmp_path: Path) -> None:
    async with Watched(tmp_path, SIM_TTFT="0.05", SIM_INTER_TOKEN="0.01") as up:
        await up.ready()
        before = {name: up.pid(name) for name in ("gateway", "sim")}
        async with load(up) as answers:
            await more(answers, 20)
            up.kill("watchdog")
            await up.watchdog.wait()
            await more(answers, 20)
            orphaned = await up.command("status")
            await up.start()
            await up.said("runs already", times=2)
            await more(answers, 20)

        assert {name: up.pid(name) for name in before} == before
        assert set(answers) == {"200"}
        assert "Their watchdog is gone; `make up` brings it back" in orphaned
        # What was taken over is watched like a child of its own.
        up.kill("gateway")
        await up.said("gateway: it ended; starting it again")
        await up.ready(times=3)
        assert up.pid("gateway") not in (0, before["gateway"])
        assert up.pid("sim") == before["sim"]


async def test_watchdog_that_is_told_to_leave_ends_alone(tmp_path: Path) -> None:
    async with Watched(tmp_path) as up:
        await up.ready()
        before = {name: up.pid(name) for name in ("gateway", "sim")}
        up.kill("gateway")
        await up.ready(times=2)
        gateway = up.pid("gateway")
        up.watchdog.send_signal(signal.SIGQUIT)
        code, _ = await up.ended()
        answer = await up.chat()
        await up.start()
        await up.said("runs already", times=2)
        await up.ready(times=3)
        status = await up.command("status")

        assert code == 0
        assert answer.status_code == 200
        assert (up.pid("gateway"), up.pid("sim")) == (gateway, before["sim"])
        # The count of restarts outlives the watchdog that made them.
        row = next(row for row in status.splitlines() if row.startswith("gateway"))
        assert row.split()[4] == "1"


async def test_what_ended_without_a_watchdog_is_started_by_the_next(tmp_path: Path) -> None:
    async with Watched(tmp_path) as up:
        await up.ready()
        simulator = up.pid("sim")
        up.kill("watchdog")
        await up.watchdog.wait()
        gone = up.kill("gateway")
        await up.start()
        await up.ready(times=2)

        assert up.pid("gateway") not in (0, gone)
        assert up.pid("sim") == simulator


async def test_programs_of_other_settings_are_not_left_beside_the_new_ones(
    tmp_path: Path,
) -> None:
    async with Watched(tmp_path) as up:
        await up.ready()
        up.kill("watchdog")
        await up.watchdog.wait()
        up.options = ("--vllm=none", "--exporter=off")
        await up.start()
        code, said = await up.ended()

    assert code == 1
    assert "sim runs at port" in said
    assert "`make stop` first" in said


@asynccontextmanager
async def load(up: Watched) -> AsyncIterator[Counter[str]]:
    """Callers that stream one answer after the other; how each of them ended."""
    answers: Counter[str] = Counter()

    async def call() -> None:
        while True:
            answers[await outcome(up)] += 1

    callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
    try:
        yield answers
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def outcome(up: Watched) -> str:
    try:
        answer = await up.chat(stream=True)
    except httpx2.TransportError as fault:
        return repr(fault)
    is_whole = answer.text.endswith("data: [DONE]\n\n")
    return str(answer.status_code) if is_whole else "cut short"


async def more(answers: Counter[str], count: int) -> None:
    """Wait until so many more have ended."""
    wanted = answers.total() + count
    async with asyncio.timeout(10):
        while answers.total() < wanted:
            await asyncio.sleep(0.01)
