"""RedisLedger: the tokens of every key for any number of gateways, decided in one question."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple

from gateway.errors import SharedStateUnavailable
from gateway.exchange import Allowance, Principal, SharedLimits
from gateway.quota.calendar import QuotaCalendar, QuotaDay
from gateway.quota.courier import Courier
from gateway.quota.ledger import Metered, Reservation, Standing, TokenDemand, refusal
from gateway.quota.mirror import Counts4, Mirror, View
from gateway.quota.parcel import Held, Hold, Window
from gateway.quota.question import question_of
from gateway.quota.recollection import SERVER_TIME
from gateway.quota.redis_history import RedisHistory
from gateway.quota.redis_reservation import RedisReservation
from gateway.quota.report import NO_MODEL, UsageReport, UsageRow, by_day, days_back
from gateway.shared.config import OnFailure, RedisConfig, RedisLate, RedisSilent
from gateway.shared.line import Line, Reply
from gateway.shared.script import Script

RESERVE: Final = Script.of(
    "gateway.shared:names", "gateway.shared:windows", "gateway.quota:holds", "gateway.quota:reserve"
)
LOOK: Final = Script.of("gateway.shared:names", "gateway.quota:holds", "gateway.quota:look")
RETRY_SECONDS = 1.0
_ONE_REFUSAL = (0, 0, 0, 1)


class Admission(NamedTuple):
    """A call let in: the day it is booked on, what it holds, its output limit, and whether Redis
    holds it, so that all gateways see it."""

    day: str
    hold: int
    output_limit: int | None
    is_shared: bool


class RedisLedger:
    """The Ledger of many processes: Redis decides, and a mirror answers what must not wait.

    Days turn by the calendar of each gateway, leases and rate windows by the clock of Redis.
    What this process charges is in its mirror at once and with Redis a moment later; what the
    others charge is seen with the next answer to a call of that key, and once a second.

    While Redis is silent, a call that a limit concerns is let in or refused as the configuration
    says; let in, it is measured against what is known here. What is charged meanwhile is sent
    when Redis is back.
    """

    def __init__(
        self,
        config: RedisConfig,
        *,
        process: str,
        line: Line,
        courier: Courier,
        mirror: Mirror,
        holds: dict[str, Held],
        calendar: QuotaCalendar,
    ) -> None:
        self._config = config
        self._process = process
        self._line = line
        self._courier = courier
        self._mirror = mirror
        self._holds = holds
        self._calendar = calendar
        self._history = RedisHistory(line)
        self._followed: dict[RedisReservation, Metered] = {}
        self._number = 0
        self._enter(calendar.today())

    def reserve(
        self, principal: Principal, demand: TokenDemand, shared: SharedLimits | None = None
    ) -> AbstractAsyncContextManager[Reservation]:
        self._number += 1
        name = f"{self._process}-{self._number:x}"
        return RedisReservation(self, name, principal, demand, shared)

    def remaining(self, principal: Principal) -> int | None:
        return self.standing(principal).remaining

    def allowance(self, principal: Principal) -> Allowance | None:
        quota, _, _, left, _ = self.standing(principal)
        seconds = self._calendar.seconds_until_reset()
        return None if quota is None or left is None else Allowance(quota, left, seconds)

    def standing(self, principal: Principal) -> Standing:
        view = self._mirror.find(self.today(), principal.key_id)
        used, reserved = (0, 0) if view is None else (view.used, view.reserved)
        return self._standing(principal, used=used, reserved=reserved)

    def count_refusal(self, principal: Principal) -> None:
        self.charge(self.today(), principal.key_id, NO_MODEL, _ONE_REFUSAL)

    async def report(self, principal: Principal, *, days: int) -> UsageReport:
        rows, is_complete = await self._recorded(principal.key_id, days)
        standing = self.standing(principal)
        history = by_day(rows, days_back(self._today.date, days))
        return UsageReport(
            key_id=principal.key_id,
            name=principal.name,
            time_zone=self._calendar.time_zone,
            resets_at=standing.resets_at,
            quota=standing.limit,
            reserved=standing.reserved,
            remaining=standing.remaining,
            today=history[0],
            history=history,
            is_complete=is_complete,
        )

    async def admit(
        self,
        reservation: str,
        principal: Principal,
        demand: TokenDemand,
        shared: SharedLimits | None,
    ) -> Admission:
        """Ask Redis, once, for all that limits this call.

        Raises a Refusal, or SharedStateUnavailable where Redis is silent and must not be.
        """
        day, key_id = self.today(), principal.key_id
        has_quota = principal.daily_token_quota is not None and not demand.is_free
        if not has_quota and (shared is None or not shared.asks):
            return Admission(day, 0, None, is_shared=False)
        is_settled = False
        # Whatever else ends or begins in this tick of the loop goes along in one batch.
        await asyncio.sleep(0)
        self._courier.send_now()
        try:
            reply = await self._line.run(
                RESERVE,
                *self._courier.postmark,
                SERVER_TIME,
                round(self._config.lease_seconds * 1000),
                reservation,
                *question_of(principal, demand, shared, day),
            )
            is_settled = True
        except RedisLate:
            return self._alone(principal, demand, shared)
        except RedisSilent:
            is_settled = True  # Nobody was asked.
            return self._alone(principal, demand, shared)
        finally:
            if not is_settled:
                # Late, or nobody waits: Redis forgets it, and refuses it should it come after this.
                self._courier.parcel.release(reservation, Hold(key_id, day, 0, 0))
                self._courier.send_soon()
        return self._understood(reply, principal, demand, shared, day)

    def _understood(
        self,
        reply: Reply,
        principal: Principal,
        demand: TokenDemand,
        shared: SharedLimits | None,
        day: str,
    ) -> Admission:
        key_id = principal.key_id
        match reply:
            case [b"ok", used, held, hold, debts]:
                self._mirror.see(day, key_id, used=used, held=held)
                if shared is not None:
                    shared.counted(debts)
                has_quota = principal.daily_token_quota is not None and not demand.is_free
                limit = demand.within(hold)[1] if has_quota else None
                return Admission(day, hold, limit, is_shared=True)
            case [b"quota", used, held]:
                self._mirror.see(day, key_id, used=used, held=held)
                standing = self._standing(principal, used=used, reserved=held)
                raise self._refusal(principal, standing, demand)
            case [b"window", debts] if shared is not None:
                raise shared.window_refusal(debts)
            case [b"concurrency"] if shared is not None:
                raise shared.concurrency_refusal()
        # It has forgotten what it was told, takes up what others know, or was asked too late.
        self._courier.greet_soon()
        return self._alone(principal, demand, shared)

    def _alone(
        self, principal: Principal, demand: TokenDemand, shared: SharedLimits | None
    ) -> Admission:
        """Without Redis: by the configuration, and by what is known here."""
        quota, day = principal.daily_token_quota, self.today()
        if shared is not None:
            shared.skipped()
            if shared.asks and self._config.on_rate_failure is OnFailure.CLOSED:
                raise unavailable("rate limits")
        if quota is None or demand.is_free:
            return Admission(day, 0, None, is_shared=False)
        if self._config.on_quota_failure is OnFailure.CLOSED:
            raise unavailable("token quota")
        view = self.view(day, principal.key_id)
        remaining = quota - view.used - view.reserved
        if demand.least_tokens > remaining:
            raise self._refusal(principal, self.standing(principal), demand)
        hold, output_limit = demand.within(remaining)
        view.held_here += hold
        return Admission(day, hold, output_limit, is_shared=False)

    # What reservations and the pulse do.

    def today(self) -> str:
        today = self._calendar.today()
        if today is not self._today:
            self._enter(today)
        return self._day

    def view(self, day: str, key_id: str) -> View:
        return self._mirror.view(day, key_id)

    def charge(self, day: str, key_id: str, model: str, counts: Counts4) -> None:
        self._mirror.view(day, key_id).charge(model, counts)
        self._courier.parcel.charge((day, key_id, model), counts)
        self._courier.send_soon()

    def hold(self, reservation: str, key_id: str, day: str, *, told: int, tokens: int) -> None:
        """A shared reservation holds this much from now on."""
        self._mirror.view(day, key_id).more_held += tokens - told
        self._holds[reservation] = (key_id, day, tokens)
        if tokens != told:
            self._courier.parcel.keep(reservation, Hold(key_id, day, told, tokens))
            self._courier.send_soon()

    def release(self, reservation: str, key_id: str, day: str, *, told: int) -> None:
        self._mirror.view(day, key_id).more_held -= told
        self._holds.pop(reservation, None)
        self._courier.parcel.release(reservation, Hold(key_id, day, told, 0))
        self._courier.send_soon()

    def count_later(self, windows: tuple[Window, ...]) -> None:
        """Calls that were refused before anybody was asked count in their windows too."""
        if windows and self._line.is_up:
            self._courier.parcel.hit(windows)
            self._courier.send_soon()

    def give_back(self, windows: tuple[Window, ...]) -> None:
        """Another limit refused a call that was counted."""
        if windows and self._line.is_up:
            self._courier.parcel.refund(windows)
            self._courier.send_soon()

    def follow(self, reservation: "RedisReservation", meter: Metered) -> None:
        """Ask the meter at every pulse, until `forget`."""
        self._followed[reservation] = meter

    def forget(self, reservation: "RedisReservation") -> None:
        self._followed.pop(reservation, None)

    def note_progress(self) -> None:
        """Charge what running streams have used so far."""
        for reservation, meter in self._followed.items():
            usage = meter.usage
            if usage.total_tokens > 0:
                reservation.progress(usage)

    async def _recorded(self, key_id: str, days: int) -> tuple[tuple[UsageRow, ...], bool]:
        dates = days_back(self._calendar.today().date, days)
        try:
            if await self._courier.delivered():
                await self._look(key_id)
                return await self._history.rows(key_id, days=dates), True
        except RedisSilent:
            pass
        return tuple(self._mirror.known_rows(key_id)), False

    async def _look(self, key_id: str) -> None:
        day, acknowledged = self.today(), self._courier.acknowledged
        reply = await self._line.run(LOOK, self._process, acknowledged, SERVER_TIME, day, key_id)
        if reply[0] == b"ok":
            self._mirror.see(day, key_id, used=reply[1], held=reply[2])

    def _standing(self, principal: Principal, *, used: int, reserved: int) -> Standing:
        quota = principal.daily_token_quota
        remaining = None if quota is None else max(quota - used - reserved, 0)
        return Standing(quota, used, reserved, remaining, self._calendar.today().resets_at)

    def _refusal(self, principal: Principal, standing: Standing, demand: TokenDemand) -> Exception:
        seconds = self._calendar.seconds_until_reset()
        return refusal(principal, standing, demand, seconds_until_reset=seconds)

    def _enter(self, today: QuotaDay) -> None:
        self._today = today
        self._day = today.date.isoformat()


def unavailable(limit: str) -> SharedStateUnavailable:
    """What a caller is told of it; the operator hears of it from the line."""
    return SharedStateUnavailable(
        f"The {limit} cannot be checked now: the store that all gateways share does "
        "not answer. Try again in a moment.",
        retry_after_seconds=RETRY_SECONDS,
    )
