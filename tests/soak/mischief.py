"""What befalls the plant while it is soaked, one thing after the other, as chance has it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import httpx2

from tests.soak.callers import Callers
from tests.soak.plant import Plant
from tests.soak.told import Story

_PASSING: Final = (
    "error500",
    "error503",
    "error429",
    "hang",
    "hang_mid_stream",
    "drip",
    "reset",
    "reset_mid_stream",
    "close_mid_stream",
    "stream_error",
    "garbage",
    "truncate",
    "slow_head",
)
_STANDING: Final = ("stalled", "kv_full", "unhealthy")
_SCRAPE_SECONDS: Final = 2.0
_OPENMETRICS: Final = {"accept": "application/openmetrics-text;version=1.0.0"}


class Mischief:
    """Does one thing at a time; each leaves the plant as it was."""

    def __init__(self, plant: Plant, callers: Callers, story: Story, chance: Random) -> None:
        self._plant = plant
        self._callers = callers
        self._story = story
        self._chance = chance
        self._deeds: dict[Callable[[], Awaitable[None]], int] = {
            self._kill_a_replica: 3,
            self._arm_a_fault: 8,
            self._stop_an_engine: 3,
            self._reload: 2,
            self._break_the_file: 1,
            self._change_the_log: 1,
            self._lend_a_key: 1,
            self._rush: 3,
        }
        self._lent = 0

    async def go_on(self, *, until: float) -> None:
        """Until that time of the loop, and to the end of what was begun then."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self._chance.uniform(1.0, 6.0))
            await self.do_one()
        for replica in self._plant.replicas:
            await replica.process.disarm()

    async def do_one(self) -> None:
        """Not to be cut short: the plant would be left broken."""
        (deed,) = self._chance.choices([*self._deeds], [*self._deeds.values()])
        self._story.befell[deed.__name__.strip("_").replace("_", " ")] += 1
        await deed()

    async def _kill_a_replica(self) -> None:
        replica = self._chance.choice(self._plant.replicas)
        await replica.kill()
        await asyncio.sleep(self._chance.uniform(0.2, 3.0))
        await replica.revive()

    async def _arm_a_fault(self) -> None:
        kind = self._chance.choice(_PASSING)
        self._story.befell[kind] += 1
        await self._chance.choice(self._plant.replicas).process.arm(
            kind,
            count=self._chance.randrange(1, 8),
            events=self._chance.randrange(0, 12),
            seconds=self._chance.choice((0.001, 0.3)),
        )

    async def _stop_an_engine(self) -> None:
        kind = self._chance.choice(_STANDING)
        self._story.befell[kind] += 1
        process = self._chance.choice(self._plant.replicas).process
        await process.arm(kind)
        await asyncio.sleep(self._chance.uniform(0.5, 4.0))
        await process.disarm()

    async def _reload(self) -> None:
        weights = (self._chance.randrange(1, 4), self._chance.randrange(1, 4))
        self._plant.write_upstreams(weights=weights)
        self._plant.gateway.signal(signal.SIGHUP)

    async def _break_the_file(self) -> None:
        self._plant.write_upstreams('"broken" = 5')
        self._plant.gateway.signal(signal.SIGHUP)
        await asyncio.sleep(1.0)
        self._plant.write_upstreams()
        self._plant.gateway.signal(signal.SIGHUP)

    async def _change_the_log(self) -> None:
        self._plant.gateway.signal(signal.SIGUSR1)
        await asyncio.sleep(2.0)
        self._plant.gateway.signal(signal.SIGUSR2)

    async def _lend_a_key(self) -> None:
        """A key of its own for a while; what it used stays in the books."""
        self._lent += 1
        key = await self._plant.commands.create(f"lent-{self._lent}")
        await asyncio.sleep(3.0)
        await asyncio.gather(*(self._callers.call(key) for _ in range(10)))
        await self._plant.commands.run("revoke", key.key_id)

    async def _rush(self) -> None:
        """One key calls far more often than there are places, all at once."""
        key = self._chance.choice(self._plant.keys)
        await asyncio.gather(*(self._callers.call(key) for _ in range(80)))


async def scrape(plant: Plant, story: Story) -> None:
    """What watches a gateway, until it is cancelled: two scrapers, probes, a key holder's page."""
    gateway = plant.gateway
    pages = ("/metrics", "/health", "/ready", "/health/upstreams", "/v1/usage?days=7", "/v1/models")
    async with gateway.client_with(plant.keys[0].secret) as client:
        while True:
            for page in pages:
                headers = _OPENMETRICS if page == "/metrics" else {}
                try:
                    answer = await client.get(page, headers=headers)
                except httpx2.HTTPError as error:
                    story.faults[f"{page}: {error!r}"] += 1
                    continue
                if answer.status_code not in (200, 503):
                    story.faults[f"{page}: {answer.status_code}"] += 1
            await asyncio.sleep(_SCRAPE_SECONDS)
