"""A RedisLedger with all its parts, as one gateway process has them."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from zoneinfo import ZoneInfo

from gateway.clock import Clock, SystemClock
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.courier import SETTLE, Courier
from gateway.quota.mirror import Mirror
from gateway.quota.parcel import Held
from gateway.quota.pulse import SURVEY, Pulse
from gateway.quota.recollection import RESTORE, CourierConfig, Recollection
from gateway.quota.redis_ledger import LOOK, RESERVE, RedisLedger
from gateway.shared.config import OnFailure, RedisConfig
from gateway.shared.line import Line


class SharedLedger(RedisLedger):
    """A ledger that shows its parts."""

    line: Line
    courier: Courier
    pulse: Pulse


@asynccontextmanager
async def shared_ledger(
    url: str,
    clock: Clock,
    *,
    timeout_seconds: float = 5.0,
    lease_seconds: float = 15.0,
    flush_seconds: float = 3600.0,
    close_seconds: float = 5.0,
    on_quota_failure: OnFailure = OnFailure.CLOSED,
    on_rate_failure: OnFailure = OnFailure.OPEN,
    on_failure: Callable[[Exception], None] = lambda _: None,
    on_recovery: Callable[[Exception], None] = lambda _: None,
) -> AsyncIterator[SharedLedger]:
    """One gateway's ledger over the Redis at `url`. Progress is charged when a test says so."""
    config = RedisConfig(
        url,
        timeout_seconds=timeout_seconds,
        lease_seconds=lease_seconds,
        on_quota_failure=on_quota_failure,
        on_rate_failure=on_rate_failure,
    )
    process = secrets.token_hex(4)
    line = Line(config, clock=SystemClock(), scripts=(RESERVE, LOOK, SETTLE, RESTORE, SURVEY))
    mirror = Mirror()
    holds: dict[str, Held] = {}
    calendar = QuotaCalendar(zone=ZoneInfo("UTC"), clock=clock)
    own = CourierConfig(process, lease_seconds=lease_seconds, close_seconds=close_seconds)
    courier = Courier(
        own,
        line=line,
        mirror=mirror,
        recollection=Recollection(own, line=line, mirror=mirror, holds=holds),
        clock=SystemClock(),
        on_failure=on_failure,
        on_recovery=on_recovery,
    )
    ledger = SharedLedger(
        config,
        process=process,
        line=line,
        courier=courier,
        mirror=mirror,
        holds=holds,
        calendar=calendar,
    )
    pulse = Pulse(
        process=process,
        line=line,
        courier=courier,
        mirror=mirror,
        holds=holds,
        ledger=ledger,
        calendar=calendar,
        flush_seconds=flush_seconds,
        lease_seconds=lease_seconds,
    )
    ledger.line, ledger.courier, ledger.pulse = line, courier, pulse
    async with line, courier, pulse:
        yield ledger
