"""kill -9 and SIGTERM at random moments under load: the books against what was generated."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import httpx2

from scripts.simulator.config import SimulatorConfig
from tests.harness.anthropic import message
from tests.harness.callers import fronted, settled
from tests.harness.gateway import GatewayProcess, chat

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
KILLS, ORDERLY_ENDS = 3, 2
CALLERS = 8
# One flush interval (0.1 s) and the commit of a busy machine.
LOSS_SECONDS = 0.4
_COUNTS = re.compile(rb'"(?:input|output|prompt|completion)_tokens": ?(\d+)')


class Load:
    """Callers of both dialects, streamed and not, who ask without a pause while the gateway is
    there. Each answer that was read to its end is noted with its moment and its tokens."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self._client = gateway.client
        self._answers: list[tuple[float, int]] = []

    def answered_by(self, moment: float) -> int:
        """Tokens of all answers read until then."""
        return sum(tokens for at, tokens in self._answers if at <= moment)

    async def has_begun(self) -> None:
        while not self._answers:
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Leaving lets every caller come to the end of its call, be it an error."""
        async with asyncio.timeout(30), asyncio.TaskGroup() as callers:
            for number in range(CALLERS):
                callers.create_task(self._ask(number))
            yield

    async def _ask(self, number: int) -> None:
        path, body = _call(number)
        while True:
            try:
                answer = await self._client.post(path, json=body)
            except httpx2.TransportError:
                return
            if answer.status_code != 200:
                return
            # The last two are the answer's whole input and output, in either dialect.
            tokens = sum(map(int, _COUNTS.findall(answer.content)[-2:]))
            self._answers.append((monotonic(), tokens))


def _call(number: int) -> tuple[str, dict[str, Any]]:
    is_stream = number % 2 == 1
    tokens = 5 + 5 * (number % 5)
    if number % 4 > 1:
        return MESSAGES, message("count this", max_tokens=tokens, stream=is_stream)
    body = chat("count this", max_tokens=tokens, stream=is_stream)
    return CHAT, body | ({"stream_options": {"include_usage": True}} if is_stream else {})


async def test_ends_at_random_moments_under_load_lose_one_flush_at_most_and_invent_nothing(
    tmp_path: Path,
) -> None:
    """Orderly ends lose nothing at all; the sum of what kills have lost stays what it was."""
    seed = int.from_bytes(os.urandom(4))
    random = Random(seed)
    pace = SimulatorConfig(inter_token_seconds=0.004, prompt_tokens_details=True)
    async with fronted(tmp_path, pace=pace, DAILY_TOKEN_QUOTA="off") as pair:
        gateway = pair.gateway
        lost = 0
        ends = [signal.SIGKILL] * KILLS + [signal.SIGTERM] * ORDERLY_ENDS
        random.shuffle(ends)
        for number, end in enumerate(ends):
            story = f"seed {seed}, round {number}: {end.name}"
            before = (await settled(gateway))["total_tokens"]
            load = Load(gateway)
            async with load.running():
                await load.has_begun()
                await asyncio.sleep(random.uniform(0.0, 0.7))
                ended_at = monotonic()
                gateway.signal(end)
                code = await gateway.ended()
            await gateway.start()
            booked = (await settled(gateway))["total_tokens"]
            missing = pair.generated_tokens - booked

            if end is signal.SIGTERM:
                assert code == 0, story
                assert booked >= before + load.answered_by(monotonic()), story
                assert missing == lost, story
            else:
                assert booked >= before + load.answered_by(ended_at - LOSS_SECONDS), story
                assert missing >= lost, story
            lost = missing
