"""The command line as a person runs it: a process of its own, with settings as variables."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key of the store and its one secret."""

    key_id: str
    secret: str


async def run_gateway(
    *arguments: str, settings: Mapping[str, str], within_seconds: float = 20.0
) -> Finished:
    """`python -m gateway ...` with exactly these settings."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *arguments,
        env={"PATH": os.environ["PATH"], **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within_seconds):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Finished(process.returncode or 0, out.decode(), err.decode())


class KeyCommands:
    """`gateway keys ...` on the database of a gateway."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = settings

    async def run(self, *arguments: str) -> str:
        """The standard output. Raises AssertionError when the command fails."""
        ended = await run_gateway("keys", *arguments, settings=self._settings)
        assert ended.code == 0, ended.err
        return ended.out

    async def create(self, name: str, *arguments: str) -> MadeKey:
        made = json.loads(await self.run("create", "--name", name, "--json", *arguments))
        return MadeKey(made["key_id"], made["secret"])
