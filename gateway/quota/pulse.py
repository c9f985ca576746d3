"""Pulse: what a gateway does again and again for its running calls and its view of the others."""

import asyncio
from datetime import date
from types import TracebackType
from typing import Final

from gateway.quota.calendar import QuotaCalendar
from gateway.quota.courier import Courier
from gateway.quota.mirror import Mirror
from gateway.quota.parcel import Held, Hold
from gateway.quota.recollection import SERVER_TIME
from gateway.quota.redis_ledger import RedisLedger
from gateway.shared.config import RedisSilent
from gateway.shared.line import Line
from gateway.shared.script import Script

SURVEY: Final = Script.of("gateway.shared:names", "gateway.quota:holds", "gateway.quota:survey")
SURVEY_SECONDS = 1.0
# With very many keys the survey is rarer: it takes Redis a millisecond for each thousand.
_KEYS_A_SECOND = 2_000
_RENEWALS_A_LEASE = 3


class Pulse:
    """Charges the progress of streams every `flush_seconds`, renews the leases of running calls
    three times a lease, and looks at all keys of the day once a second.

    Entering greets Redis, takes up the day it has reached, and looks once. What fails is tried
    again with the next beat; the courier tells of it.
    """

    def __init__(
        self,
        *,
        process: str,
        line: Line,
        courier: Courier,
        mirror: Mirror,
        holds: dict[str, Held],
        ledger: RedisLedger,
        calendar: QuotaCalendar,
        flush_seconds: float,
        lease_seconds: float,
    ) -> None:
        self._process = process
        self._line = line
        self._courier = courier
        self._mirror = mirror
        self._holds = holds
        self._ledger = ledger
        self._calendar = calendar
        self._flush_seconds = flush_seconds
        self._renew_seconds = lease_seconds / _RENEWALS_A_LEASE
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def __aenter__(self) -> "Pulse":
        await self._resume()
        await self.survey()
        self._tasks = (
            asyncio.create_task(self._note_progress(), name="quota-progress"),
            asyncio.create_task(self._renew(), name="quota-leases"),
            asyncio.create_task(self._look_around(), name="quota-survey"),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._ledger.note_progress()

    async def _resume(self) -> None:
        for day in sorted(await self._line.ask("SMEMBERS", "gateway:days")):
            self._calendar.resume(date.fromisoformat(day.decode()))

    async def survey(self) -> int:
        """See where every key of today stands; how many there are. Raises RedisSilent."""
        day, cursor, keys = self._ledger.today(), b"0", 0
        while True:
            reply = await self._line.run(
                SURVEY, self._process, self._courier.acknowledged, SERVER_TIME, day, cursor
            )
            if reply[0] != b"ok":
                self._courier.greet_soon()
                return keys
            _, cursor, standings = reply
            for key_id, used, held in standings:
                self._mirror.see(day, key_id.decode(), used=used, held=held)
            keys += len(standings)
            if cursor == b"0":
                return keys

    async def _note_progress(self) -> None:
        while True:
            await asyncio.sleep(self._flush_seconds)
            self._ledger.note_progress()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            if self._line.is_up:
                self._renew_all()

    def _renew_all(self) -> None:
        for name, (key_id, day, tokens) in self._holds.items():
            self._courier.parcel.keep(name, Hold(key_id, day, tokens, tokens))
        if self._holds:
            self._courier.send_soon()

    async def _look_around(self) -> None:
        pause_seconds = SURVEY_SECONDS
        while True:
            await asyncio.sleep(pause_seconds)
            try:
                keys = await self.survey()
            except RedisSilent:
                continue
            pause_seconds = max(SURVEY_SECONDS, keys / _KEYS_A_SECOND)
