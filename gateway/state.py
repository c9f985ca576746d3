"""Where keys, tokens and rate windows live: in this process and its file, or in a shared Redis."""

from contextlib import AsyncExitStack
from functools import partial
from typing import Protocol

from gateway.auth.keyring import KeyEntry, static_entries
from gateway.auth.keystore import KeyStore
from gateway.auth.watcher import KeyWatcher
from gateway.clock import Clock
from gateway.edge.asgi import ASGIApp
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.history import SqliteHistory
from gateway.quota.journal import Journal
from gateway.quota.ledger import Ledger
from gateway.quota.memory import MemoryLedger
from gateway.readings import Flushes
from gateway.settings import Settings
from gateway.telemetry.logs import Log
from gateway.telemetry.metrics import Metrics
from gateway.trouble import Trouble


class State(Protocol):
    """The parts that hold what outlives a request, and the layers that ask them."""

    ledger: Ledger
    keys: KeyWatcher
    flushes: Flushes

    async def open(self, opened: AsyncExitStack) -> None:
        """Raises DatabaseUnusable."""
        ...

    def trouble(self) -> str | None:
        """Why no call can be taken."""
        ...

    def weakness(self) -> str | None:
        """What does not work as it should, while calls are taken all the same."""
        ...

    def asks_address(self, app: ASGIApp) -> ASGIApp: ...
    def asks_strangers(self, app: ASGIApp) -> ASGIApp: ...
    def carries_limits(self, app: ASGIApp) -> ASGIApp: ...


def state_of(settings: Settings, *, metrics: Metrics, log: Log, clock: Clock) -> State:
    """By REDIS_URL. Raises auth.keyring.KeyConflict."""
    secret_of = ((name, secret.reveal()) for name, secret in settings.static_keys)
    static = static_entries(secret_of, defaults=settings.key_defaults)
    if settings.redis is None:
        return OwnState(settings, static=static, log=log, clock=clock)
    from gateway.sharedstate import SharedState

    return SharedState(
        settings, settings.redis, static=static, metrics=metrics, log=log, clock=clock
    )


class OwnState:
    """One process: everything in memory, keys and usage on disk too."""

    def __init__(
        self, settings: Settings, *, static: tuple[KeyEntry, ...], log: Log, clock: Clock
    ) -> None:
        path = settings.journal.path
        calendar = QuotaCalendar(zone=settings.quota_zone, clock=clock)
        tell = partial(Trouble, log, path=str(path))
        usage = tell(
            "usage does not reach the disk; it is kept in memory", "usage reaches the disk again"
        )
        self._history = SqliteHistory(path=path)
        self.ledger: Ledger
        self.ledger = ledger = MemoryLedger(calendar=calendar, history=self._history)
        self.flushes: Flushes
        self.flushes = self._journal = Journal(
            config=settings.journal,
            book=ledger,
            calendar=calendar,
            clock=clock,
            on_failure=usage.failure,
            on_recovery=usage.recovery,
        )
        keys = tell(
            "the key store cannot be read; known keys stay valid", "the key store can be read again"
        )
        self.keys = KeyWatcher(
            store=KeyStore(path=path, clock=clock),
            clock=clock,
            defaults=settings.key_defaults,
            static=static,
            on_failure=keys.failure,
            on_recovery=keys.recovery,
        )

    async def open(self, opened: AsyncExitStack) -> None:
        opened.callback(self._history.close)
        await opened.enter_async_context(self._journal)
        await opened.enter_async_context(self.keys)

    def trouble(self) -> str | None:
        return None if self._journal.is_open else "ledger: not open yet"

    def weakness(self) -> str | None:
        return None

    def asks_address(self, app: ASGIApp) -> ASGIApp:
        return app

    def asks_strangers(self, app: ASGIApp) -> ASGIApp:
        return app

    def carries_limits(self, app: ASGIApp) -> ASGIApp:
        return app
