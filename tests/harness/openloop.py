"""An open-loop load: callers send when a call is due, be earlier ones answered or not."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.harness.raw import RawClient, request

CHAT = "/v1/chat/completions"
ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Caller:
    """A key, and how many calls a second it makes on average (Poisson)."""

    name: str
    key: str
    rate: float


@dataclass(frozen=True, slots=True)
class Call:
    """One call as its caller saw it. Times are seconds since the load began.

    `status` is 0 where the connection ended without an answer; `message` is that of an error.
    """

    caller: str
    due_at: float
    ended_at: float
    status: int
    message: str = ""
    retry_after: str | None = None

    @property
    def is_answered(self) -> bool:
        return self.status == 200

    @property
    def is_refused(self) -> bool:
        return self.status in (429, 503)

    @property
    def latency_seconds(self) -> float:
        """From when it was due, so that a late sender does not flatter the figure."""
        return self.ended_at - self.due_at


class OpenLoop:
    """Calls to one port over connections that are kept and used again.

    async with OpenLoop(gateway.port, random=Random(7)) as load:
        calls = await load.offer([Caller("a", key, rate=20.0)], body, seconds=5.0)
    """

    def __init__(
        self, port: int, *, random: Random, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._port = port
        self._random = random
        self._clock = clock
        self._idle: list[RawClient] = []

    async def __aenter__(self) -> "OpenLoop":
        self._connections = AsyncExitStack()
        await self._connections.__aenter__()
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self._connections.aclose()

    async def offer(
        self, callers: Sequence[Caller], body: dict[str, Any], *, seconds: float
    ) -> list[Call]:
        """Every call that was due in this time, once all have ended."""
        began_at = self._clock()
        payload = json.dumps(body).encode()
        async with asyncio.TaskGroup() as calls:
            sending = [
                calls.create_task(self._send(caller, payload, calls, began_at, seconds))
                for caller in callers
            ]
        tasks = [task for sent in sending for task in sent.result()]
        return sorted((task.result() for task in tasks), key=lambda call: call.due_at)

    async def _send(
        self,
        caller: Caller,
        payload: bytes,
        calls: asyncio.TaskGroup,
        began_at: float,
        seconds: float,
    ) -> list[asyncio.Task[Call]]:
        tasks = []
        due_at = self._random.expovariate(caller.rate)
        while due_at < seconds:
            await asyncio.sleep(began_at + due_at - self._clock())
            tasks.append(calls.create_task(self._call(caller, payload, began_at, due_at)))
            due_at += self._random.expovariate(caller.rate)
        return tasks

    async def _call(self, caller: Caller, payload: bytes, began_at: float, due_at: float) -> Call:
        connection = await self._connected()
        await connection.send(request("POST", CHAT, key=caller.key, body=payload))
        try:
            answer = await connection.answer(within=ANSWER_SECONDS)
        except (EOFError, ConnectionError):
            return Call(caller.name, due_at, self._clock() - began_at, 0)
        ended_at = self._clock() - began_at
        if answer.header("connection") != "close":
            self._idle.append(connection)
        if answer.status == 200:
            return Call(caller.name, due_at, ended_at, 200)
        return Call(
            caller.name,
            due_at,
            ended_at,
            answer.status,
            answer.error["message"],
            answer.header("retry-after"),
        )

    async def _connected(self) -> RawClient:
        if self._idle:
            return self._idle.pop()
        return await self._connections.enter_async_context(RawClient(self._port))


def fair_shares(wanted: dict[str, float], total: float) -> dict[str, float]:
    """Max-min fairness: who wants less than an even share gets it, the rest is shared evenly."""
    shares: dict[str, float] = {}
    left = total
    for number, name in enumerate(sorted(wanted, key=wanted.__getitem__)):
        shares[name] = min(wanted[name], left / (len(wanted) - number))
        left -= shares[name]
    return shares


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 where all are equal, 1/n where one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
