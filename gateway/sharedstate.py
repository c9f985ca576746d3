"""SharedState: keys, tokens and rate windows in a Redis that any number of gateways share.

Imported where there is a REDIS_URL only: Redis' library brings others with it.
"""

import asyncio
import secrets
from contextlib import AsyncExitStack
from functools import partial

from gateway.auth.keyring import KeyEntry
from gateway.auth.redis_keystore import RedisKeyStore
from gateway.auth.watcher import KeyWatcher
from gateway.clock import Clock
from gateway.edge.asgi import ASGIApp
from gateway.edge.sharing import AddressAsked, LimitsCarried
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.courier import SETTLE, Courier
from gateway.quota.ledger import Ledger
from gateway.quota.mirror import Mirror
from gateway.quota.parcel import Held
from gateway.quota.pulse import SURVEY, Pulse
from gateway.quota.recollection import RESTORE, CourierConfig, Recollection
from gateway.quota.redis_ledger import LOOK, RESERVE, RedisLedger
from gateway.readings import Flushes, show_redis
from gateway.settings import Settings
from gateway.shared.config import OnFailure, RedisConfig
from gateway.shared.inspection import inspect
from gateway.shared.line import Line
from gateway.shared.tables import Tables
from gateway.sharedlimits import HIT, SharedRateLimiter
from gateway.telemetry.logs import Log
from gateway.telemetry.metrics import Metrics
from gateway.trouble import Trouble

_PROCESS_BYTES = 6


class SharedState:
    """Any number of processes: Redis decides, and nothing is on this machine's disk."""

    def __init__(
        self,
        settings: Settings,
        redis: RedisConfig,
        *,
        static: tuple[KeyEntry, ...],
        metrics: Metrics,
        log: Log,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._redis = redis
        process = secrets.token_hex(_PROCESS_BYTES)
        tell = partial(Trouble, log, path=redis.place)
        self._log = log
        self._line = Line(
            redis,
            clock=clock,
            observe=show_redis(metrics, lambda: self._line),
            on_down=self._say_silent,
            on_up=self._say_answers,
            scripts=(RESERVE, LOOK, SETTLE, RESTORE, SURVEY, HIT),
        )
        mirror, holds = Mirror(), dict[str, Held]()
        calendar = QuotaCalendar(zone=settings.quota_zone, clock=clock)
        usage = tell(
            "usage does not reach redis; it is kept in memory", "usage reaches redis again"
        )
        self.flushes: Flushes
        config = CourierConfig(
            process,
            lease_seconds=redis.lease_seconds,
            retention_days=settings.journal.retention_days,
        )
        self.flushes = self._courier = Courier(
            config,
            line=self._line,
            mirror=mirror,
            recollection=Recollection(config, line=self._line, mirror=mirror, holds=holds),
            clock=clock,
            on_failure=usage.failure,
            on_recovery=usage.recovery,
        )
        self.ledger: Ledger
        self.ledger = self._ledger = RedisLedger(
            redis,
            process=process,
            line=self._line,
            courier=self._courier,
            mirror=mirror,
            holds=holds,
            calendar=calendar,
        )
        self._pulse = Pulse(
            process=process,
            line=self._line,
            courier=self._courier,
            mirror=mirror,
            holds=holds,
            ledger=self._ledger,
            calendar=calendar,
            flush_seconds=settings.journal.flush_seconds,
            lease_seconds=redis.lease_seconds,
        )
        self._limiter = SharedRateLimiter(self._line)
        self._tables = Tables(redis)
        keys = tell(
            "the keys in redis cannot be read; known keys stay valid",
            "the keys in redis can be read again",
        )
        self.keys = KeyWatcher(
            store=RedisKeyStore(self._tables, clock=clock),
            clock=clock,
            defaults=settings.key_defaults,
            static=static,
            on_failure=keys.failure,
            on_recovery=keys.recovery,
        )

    async def open(self, opened: AsyncExitStack) -> None:
        opened.callback(self._tables.close)
        await opened.enter_async_context(self._line)
        found = await asyncio.to_thread(inspect, self._tables, place=self._redis.place)
        self._log.info("redis", url=self._redis.place, version=found.version)
        for warning in found.warnings:
            self._log.warning("redis", what=warning)
        await opened.enter_async_context(self._courier)
        await opened.enter_async_context(self._pulse)
        await opened.enter_async_context(self.keys)

    def trouble(self) -> str | None:
        if not self._courier.is_open:
            return "redis: not greeted yet"
        is_needed = self._redis.on_quota_failure is OnFailure.CLOSED
        return self._silence() if is_needed else None

    def weakness(self) -> str | None:
        return self._silence()

    def asks_address(self, app: ASGIApp) -> ASGIApp:
        return self._asked(app, only_strangers=False)

    def asks_strangers(self, app: ASGIApp) -> ASGIApp:
        return self._asked(app, only_strangers=True)

    def carries_limits(self, app: ASGIApp) -> ASGIApp:
        return LimitsCarried(
            app,
            address_limits=self._settings.address_limits,
            count_later=self._ledger.count_later,
            give_back=self._ledger.give_back,
        )

    def _asked(self, app: ASGIApp, *, only_strangers: bool) -> ASGIApp:
        return AddressAsked(
            app,
            limiter=self._limiter,
            limits=self._settings.address_limits,
            on_failure=self._redis.on_rate_failure,
            only_strangers=only_strangers,
        )

    def _silence(self) -> str | None:
        if self._line.is_up:
            return None
        return f"redis: {self._line.trouble} (REDIS_URL={self._redis.place})"

    def _say_silent(self, reason: str) -> None:
        self._log.error(
            "redis is silent",
            url=self._redis.place,
            reason=reason,
            quotas=self._redis.on_quota_failure.value,
            rates=self._redis.on_rate_failure.value,
        )

    def _say_answers(self, reason: str) -> None:
        self._log.warning("redis answers", url=self._redis.place, after=reason)
