"""What is soaked: a gateway process and two simulators that may be killed, and keys."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.harness.callers import UNLIMITED
from tests.harness.commands import KeyCommands, MadeKey
from tests.harness.gateway import GatewayProcess
from tests.harness.simulator import SimulatorProcess
from tests.soak.inspected import ASK

KEYS: Final = 5
MODEL: Final = "sim-model"
EMBEDDING_MODEL: Final = "sim-embedding"
ALIAS: Final = "an-alias"
_TELL_SECONDS: Final = 10.0
_PACE: Final = (
    "--inter-token",
    "0.02",
    "--ttft",
    "0.05",
    "--jitter",
    "0.3",
    "--max-num-seqs",
    "64",
)
# Patience is short, so that what hangs shows what it leaves behind while the soak still runs.
_SETTINGS: Final = {
    "MAX_IN_FLIGHT": "40",
    "MAX_QUEUED": "20",
    "QUEUE_TIMEOUT_SECONDS": "2",
    "FIRST_BYTE_TIMEOUT_SECONDS": "3",
    "IDLE_TIMEOUT_SECONDS": "2",
    "WRITE_TIMEOUT_SECONDS": "3",
    "HEADER_TIMEOUT_SECONDS": "3",
    "BODY_TIMEOUT_SECONDS": "3",
    "CIRCUIT_OPEN_SECONDS": "1",
    "CIRCUIT_OPEN_MAX_SECONDS": "2",
    "HEALTH_INTERVAL_SECONDS": "1",
    "SLOW_START_SECONDS": "2",
    "DAILY_TOKEN_QUOTA": "1000000000",
    "LOG_LEVEL": "INFO",
    **UNLIMITED,
}


@dataclass(slots=True)
class Replica:
    """One simulator over all its lives: what was generated until a kill is counted before it."""

    name: str
    process: SimulatorProcess
    is_up: bool = True
    kills: int = 0
    generated_before: int = 0

    async def kill(self) -> None:
        self.generated_before += _generated(await self.process.state())
        self.is_up = False
        self.kills += 1
        await self.process.kill()

    async def revive(self) -> None:
        await self.process.start()
        self.is_up = True

    async def generated(self) -> int:
        """Prompt and output tokens by its own count, but for what a kill cut off from counting."""
        return self.generated_before + _generated(await self.process.state())


@dataclass(slots=True)
class Plant:
    """The processes, and the keys that live as long as they do."""

    folder: Path
    gateway: GatewayProcess
    replicas: list[Replica]
    commands: KeyCommands
    keys: list[MadeKey] = field(default_factory=list)

    @property
    def upstreams_file(self) -> Path:
        return self.folder / "upstreams.toml"

    @property
    def notes(self) -> Path:
        return self.folder / "held.json"

    def write_upstreams(self, *extra: str, weights: tuple[int, int] = (1, 1)) -> None:
        """Another generation, in one step as editors do it."""
        tables = [
            f'[[upstream]]\nname = "{each.name}"\nurl = "{each.process.url}"\n'
            f"weight = {weight}\nmax_in_flight = 30\n"
            for each, weight in zip(self.replicas, weights, strict=True)
        ]
        text = "\n".join([*tables, "[aliases]", f'{ALIAS} = "{MODEL}"', *extra, ""])
        part = self.upstreams_file.with_suffix(".part")
        part.write_text(text)
        part.replace(self.upstreams_file)

    async def held(self) -> dict[str, Any]:
        """What the gateway holds, by its own look."""
        self.notes.unlink(missing_ok=True)
        self.gateway.signal(ASK)
        async with asyncio.timeout(_TELL_SECONDS):
            while not self.notes.exists():
                await asyncio.sleep(0.05)
        held: dict[str, Any] = json.loads(self.notes.read_text())
        return held


@asynccontextmanager
async def plant(folder: Path) -> AsyncIterator[Plant]:
    async with SimulatorProcess(*_PACE) as first, SimulatorProcess(*_PACE) as second:
        replicas = [Replica("first", first), Replica("second", second)]
        settings = _SETTINGS | {"UPSTREAMS_FILE": str(folder / "upstreams.toml")}
        notes = str(folder / "held.json")
        gateway = GatewayProcess(
            folder=folder, under=("-m", "tests.soak.inspected", notes), **settings
        )
        running = Plant(folder, gateway, replicas, KeyCommands(gateway.settings))
        running.write_upstreams()
        async with gateway:
            for number in range(KEYS):
                running.keys.append(await running.commands.create(f"soak-{number}"))
            await _known(running, running.keys[-1])
            yield running


async def _known(running: Plant, key: MadeKey) -> None:
    async with asyncio.timeout(20), running.gateway.client_with(key.secret) as client:
        while (await client.get("/v1/models")).status_code != 200:
            await asyncio.sleep(0.1)


def _generated(state: Mapping[str, Any]) -> int:
    total: int = state["prompt_tokens_total"] + state["generation_tokens_total"]
    return total
