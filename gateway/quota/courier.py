"""Courier: takes what is counted here to Redis, at once, in the background, and exactly once."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple

from gateway.clock import Clock
from gateway.quota.journal import UsageLost
from gateway.quota.mirror import Mirror
from gateway.quota.parcel import Parcel
from gateway.quota.recollection import PROCESS_SECONDS, SERVER_TIME, CourierConfig, Recollection
from gateway.shared.config import RedisSilent
from gateway.shared.dialling import Part
from gateway.shared.line import Asked, Line, Reply
from gateway.shared.script import Script

SETTLE: Final = Script.of(
    "gateway.shared:names", "gateway.shared:windows", "gateway.quota:holds", "gateway.quota:settle"
)
_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_UNDER_WAY_MAX = 64


class MemoryLost(Exception):
    """Redis knows less than it was told; what is known here was put back."""


class NotYet(Exception):
    """Redis takes no counts at the moment."""


class Batch(NamedTuple):
    """A parcel under its number, and the question it went out with."""

    number: int
    parcel: Parcel
    text: str
    asked: Asked


class Courier:
    """Sends parcels as numbered batches, each at once, before whatever is asked after it.

    A batch whose fate is unknown is sent again under its number, and Redis counts a number once
    and none before its turn: nothing is lost and nothing counted twice, however long Redis is
    away. If Redis has forgotten what it was told, it is told all that is known here before
    anything is counted again. `on_failure` is told once per trouble and `on_recovery` when it is
    over. Leaving tries for `close_seconds` and raises UsageLost if counts are left.
    """

    def __init__(
        self,
        config: CourierConfig,
        *,
        line: Line,
        mirror: Mirror,
        recollection: Recollection,
        clock: Clock,
        on_failure: Callable[[Exception], None] = lambda _: None,
        on_recovery: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.parcel = Parcel()
        self.acknowledged = 0
        self.flush_failures_total = 0
        self._config = config
        self._line = line
        self._mirror = mirror
        self._recollection = recollection
        self._clock = clock
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._number = 0
        self._under_way: deque[Batch] = deque()
        self._must_greet = False
        self._is_catching_up = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._trouble: Exception | None = None
        self._clean_at = clock.monotonic()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self.acknowledged > 0

    @property
    def postmark(self) -> tuple[Part, ...]:
        """Who asks, what Redis has acknowledged to it, and after which batch it asks."""
        return self._config.process, self.acknowledged, self._number

    @property
    def last_error(self) -> str | None:
        """Why the last batch was not taken; None after one that was."""
        return None if self._trouble is None else str(self._trouble)

    @property
    def seconds_since_flush(self) -> float:
        """For how long there have been counts that Redis has not taken; 0 when there are none."""
        return self._clock.monotonic() - self._clean_at if self._has_counts else 0.0

    @property
    def _has_counts(self) -> bool:
        return bool(self.parcel.charges) or any(b.parcel.charges for b in self._under_way)

    async def __aenter__(self) -> "Courier":
        self._task = asyncio.create_task(self._run(), name="courier")
        self.greet_soon()
        try:
            async with asyncio.timeout(self._config.close_seconds):
                await self._idle.wait()
        except TimeoutError:
            await self._stop()
            raise self._line.unusable(self.last_error or "no answer") from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The task is let finish, not cancelled: nobody is to guess the fate of a batch.
        self._closing = True
        self._wake.set()
        await self._finish()
        if self._has_counts:
            raise UsageLost(f"Redis did not take all of the usage: {self.last_error}")
        with suppress(RedisSilent):
            await self._line.ask("DEL", f"gateway:process:{self._config.process}")

    def greet_soon(self) -> None:
        """Find out, by a batch with nothing in it, whether Redis knows this process."""
        self._must_greet = True
        self.send_soon()

    def send_soon(self) -> None:
        """The parcel has something in it."""
        self._idle.clear()
        self._wake.set()

    def send_now(self) -> None:
        """Post what there is, so that what is asked next already finds it counted.

        Not while a batch is being sent again: the order of the numbers must hold.
        """
        is_held_up = self._is_catching_up or len(self._under_way) >= _UNDER_WAY_MAX
        if is_held_up or (self.parcel.is_empty and not self._must_greet):
            return
        self._must_greet = False
        parcel = self.parcel.take()
        self._number += 1
        question = self._question(self._number, parcel.text())
        try:
            asked = self._line.post_script(SETTLE, *question)
        except RedisSilent:
            asked = Asked(0.0, [], None)
            self._is_catching_up = True
        self._under_way.append(Batch(self._number, parcel, str(question[-1]), asked))

    async def delivered(self) -> bool:
        """Wait until all of it is with Redis; False if that takes too long."""
        if not self._idle.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._line.timeout_seconds):
                    await self._idle.wait()
        return self._idle.is_set()

    async def _finish(self) -> None:
        if self._task is None:
            return
        _, unfinished = await asyncio.wait([self._task], timeout=self._config.close_seconds)
        if unfinished:
            await self._stop()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        pause_seconds = _PAUSE_SECONDS
        while True:
            self.send_now()
            if self._under_way:
                if await self._tried():
                    pause_seconds = _PAUSE_SECONDS
                    continue
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                continue
            self._idle.set()
            self._clean_at = self._clock.monotonic()
            if self._closing:
                return
            await self._wake.wait()
            self._wake.clear()

    async def _tried(self) -> bool:
        """Hear of the oldest batch, or send it again; whatever happens is a failure to be told
        and tried again, not an end."""
        try:
            await self._hear(self._under_way[0])
        except Exception as error:
            self._is_catching_up = True
            self._fail(error)
            return False
        self._under_way.popleft()
        if not self._under_way:
            self._succeed()
        return True

    async def _hear(self, batch: Batch) -> None:
        if not self._is_catching_up:
            (reply,) = await self._line.heard(batch.asked)
        else:
            reply = await self._sent_again(batch)
        match reply:
            case [b"ok", rows, standings]:
                self._take_in(batch.parcel, rows=rows, standings=standings)
            case [b"done"]:
                self._take_in(batch.parcel, rows=None, standings=())
            case [b"lost"]:
                await self._recollection.put_back(acknowledged=self.acknowledged)
                raise MemoryLost("Redis had forgotten what it was told; it was told again")
            case _:
                raise NotYet("Redis takes up what other gateways know")
        self.acknowledged = batch.number

    async def _sent_again(self, batch: Batch) -> Reply:
        self._line.ignore(batch.asked)
        if not self._line.is_up and not self._closing:
            await self._line.until_up()
        while True:
            reply = await self._line.run(SETTLE, *self._question(batch.number, batch.text))
            if reply[0] != b"restoring":
                return reply
            await asyncio.sleep(reply[1] / 1000)

    def _question(self, number: int, text: str) -> tuple[Part, ...]:
        return (
            self._config.process,
            number,
            self.acknowledged,
            SERVER_TIME,
            self._config.lease_milliseconds,
            self._config.day_seconds,
            PROCESS_SECONDS,
            text,
        )

    def _take_in(self, batch: Parcel, *, rows: Reply | None, standings: Reply) -> None:
        """Redis has the batch: what it holds is no longer news of ours."""
        for number, ((day, key_id, model), counts) in enumerate(batch.charges.items()):
            total = None if rows is None else tuple(rows[number])
            self._mirror.view(day, key_id).acknowledge(model, counts, total)
        for (day, key_id), tokens in batch.held_changes().items():
            view = self._mirror.view(day, key_id)
            view.more_held -= tokens
            if rows is None:
                view.seen_held += tokens
        for day, key_id, used, held in standings:
            self._mirror.see(day.decode(), key_id.decode(), used=used, held=held)

    def _fail(self, error: Exception) -> None:
        self.flush_failures_total += 1
        is_news = str(error) != self.last_error
        self._trouble = error
        if is_news:
            self._on_failure(error)

    def _succeed(self) -> None:
        self._clean_at = self._clock.monotonic()
        self._is_catching_up = False
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            self._on_recovery(trouble)
