"""The wall clock steps: quotas give no second helping, and nothing that runs notices."""

import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts.simulator.config import SimulatorConfig
from tests.harness.callers import RawCall, fronted, settled
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.wallclock import WallClock

CHAT = "/v1/chat/completions"


def june(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2030, 6, day, hour, minute, tzinfo=UTC)


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path, at=june(1, 23))


async def is_refused(gateway: GatewayProcess) -> bool:
    answer = await gateway.client.post(CHAT, json=chat(max_tokens=20))
    if answer.status_code == 429:
        assert answer.json()["error"]["code"] == "insufficient_quota"
        return True
    assert answer.status_code == 200
    return False


async def spend_all(gateway: GatewayProcess) -> None:
    while not await is_refused(gateway):
        pass


async def test_a_clock_that_steps_gives_no_second_helping_of_the_quota(
    tmp_path: Path, clock: WallClock
) -> None:
    async with fronted(tmp_path, **clock.environ | {"DAILY_TOKEN_QUOTA": "60"}) as pair:
        gateway = pair.gateway

        async def day() -> str:
            found: str = (await gateway.usage())["date"]
            return found

        await spend_all(gateway)
        assert await day() == "2030-06-01"
        for moment in (june(1, 1), june(1, 23, 59), datetime(2030, 5, 31, 23, 30, tzinfo=UTC)):
            clock.set(moment)
            assert await is_refused(gateway)
            assert await day() == "2030-06-01"

        clock.set(june(2, 0, 10))
        assert not await is_refused(gateway)
        assert await day() == "2030-06-02"
        await spend_all(gateway)
        clock.set(june(1, 22))
        assert await is_refused(gateway)
        assert await day() == "2030-06-02"

        gateway.signal(signal.SIGTERM)
        await gateway.ended()
        await gateway.start()
        assert await is_refused(gateway)
        assert await day() == "2030-06-02"
        report = await settled(gateway)
        history = (await gateway.usage(days=2))["history"]
        assert sum(each["total_tokens"] for each in history) == pair.generated_tokens
        assert report["total_tokens"] <= 60


async def test_a_stream_and_its_deadlines_do_not_notice_that_the_clock_steps(
    tmp_path: Path, clock: WallClock
) -> None:
    pace = SimulatorConfig(inter_token_seconds=0.02)
    patience = {"IDLE_TIMEOUT_SECONDS": "5", "RATE_LIMIT_PER_KEY": "2/hour"}
    async with fronted(tmp_path, pace=pace, **clock.environ | patience) as pair:
        gateway = pair.gateway
        body = chat(stream=True, max_tokens=40, ignore_eos=True)
        async with RawCall(gateway, body) as call:
            for steps, moment in enumerate((june(3, 1), june(1, 20), june(3, 2)), start=1):
                await call.read_times(b'"content":" ', 5 * steps)
                clock.set(moment)
            await call.read_until(b"[DONE]")
        days = (await gateway.usage(days=3))["history"]
        generated = pair.generated_tokens
        again = [(await gateway.client.post(CHAT, json=chat())).status_code for _ in range(2)]

    # All of it on the day it was admitted, which was over long before its end.
    booked = {day["date"]: day["total_tokens"] for day in days}
    assert booked == {"2030-06-03": 0, "2030-06-02": 0, "2030-06-01": generated}
    assert again == [200, 429]
