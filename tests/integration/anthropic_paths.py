"""The two ways to an upstream that Anthropic's clients can take, for tests that hold for both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from scripts.simulator.config import SimulatorConfig
from tests.harness.callers import Fronted, fronted

NATIVE, TRANSLATED = "native", "translated"
BOTH = (NATIVE, TRANSLATED)
UPSTREAM_PATHS = {NATIVE: "/v1/messages", TRANSLATED: "/v1/chat/completions"}


@asynccontextmanager
async def on(
    way: str, folder: Path, *, pace: SimulatorConfig | None = None, **settings: str
) -> AsyncIterator[Fronted]:
    """A gateway before an upstream that speaks Anthropic itself, or knows nothing of it."""
    config = replace(pace or SimulatorConfig(), no_messages=way == TRANSLATED)
    async with fronted(folder, pace=config, **settings) as pair:
        yield pair
