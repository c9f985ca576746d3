"""A gateway whose keys have history, and keys in every state the dashboard has words for."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.callers import UNLIMITED
from tests.harness.commands import KeyCommands
from tests.harness.gateway import GatewayProcess, chat

CHAT = "/v1/chat/completions"
# A model's name is the operator's text, and still nothing that may run.
NASTY_MODEL = "<img src=x onerror=alert(1)>"


@dataclass(frozen=True, slots=True)
class UsedService:
    """A gateway with history, and the secrets of its keys by their names."""

    gateway: GatewayProcess
    simulator: Simulator
    secrets: dict[str, str]


@asynccontextmanager
async def used_service(folder: Path) -> AsyncIterator[UsedService]:
    """Keys: used (with 30 days of history), spent, unlimited, fresh. Days turn in Auckland."""
    async with (
        Simulator(SimulatorConfig()) as simulator,
        GatewayProcess(
            folder=folder, VLLM_URL=simulator.url, QUOTA_TIMEZONE="Pacific/Auckland", **UNLIMITED
        ) as gateway,
    ):
        commands = KeyCommands(gateway.settings)
        quotas = {"used": "200000", "spent": "12", "unlimited": "unlimited", "fresh": "50000"}
        keys = {
            name: await commands.create(name, "--daily-tokens", q) for name, q in quotas.items()
        }
        write_history(gateway.database, key_id=keys["used"].key_id, today=await day_of(gateway))
        for name in ("used", "unlimited", "spent"):
            async with gateway.client_with(keys[name].secret) as client:
                await client.post(CHAT, json=chat())
        yield UsedService(gateway, simulator, {name: key.secret for name, key in keys.items()})


async def day_of(gateway: GatewayProcess) -> date:
    """The day in the time zone of the quotas."""
    return date.fromisoformat((await gateway.usage())["date"])


def write_history(database: Path, *, key_id: str, today: date) -> None:
    with sqlite3.connect(database) as books:
        for back in range(1, 30, 2):
            day = (today - timedelta(days=back)).isoformat()
            for model, tokens in (("sim-model", 1000 * back), (NASTY_MODEL, 77)):
                row = (day, key_id, model, tokens, 2 * tokens, back, 0)
                books.execute("INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    books.close()
