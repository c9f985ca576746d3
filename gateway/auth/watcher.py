"""KeyWatcher: keeps a running gateway's KeyRing in step with the KeyStore."""

import asyncio
from collections.abc import Callable
from types import TracebackType

from gateway.auth.keyring import KeyDefaults, KeyEntry, KeyRing
from gateway.auth.keystore import KeySnapshot
from gateway.auth.register import KeySource
from gateway.clock import Clock
from gateway.database import DatabaseUnusable


class KeyStoreReplaced(Exception):
    """Another file lies where the key store was: the keys known so far stay in force."""


class KeyWatcher:
    """Looks every `poll_seconds`, off the loop, whether a key changed, and swaps the ring.

    `ring` holds the static keys and those of the store. A store that is locked, damaged, gone
    or replaced by another leaves the ring as it is: `on_failure` is told once per trouble and
    `on_recovery` when it is over. Entering raises DatabaseUnusable.
    """

    def __init__(
        self,
        *,
        store: KeySource,
        clock: Clock,
        defaults: KeyDefaults,
        static: tuple[KeyEntry, ...] = (),
        poll_seconds: float = 0.5,
        on_failure: Callable[[Exception], None] = lambda _: None,
        on_recovery: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._defaults = defaults
        self._static = static
        self._poll_seconds = poll_seconds
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._ring = KeyRing(static, clock=clock)
        self._known = ("", "")
        self._trouble: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self.failures_total = 0

    @property
    def ring(self) -> KeyRing:
        """The keys that count now. Read it anew for each request."""
        return self._ring

    @property
    def last_error(self) -> str | None:
        """Why the last look failed; None after one that did not."""
        return None if self._trouble is None else str(self._trouble)

    async def __aenter__(self) -> "KeyWatcher":
        await asyncio.to_thread(self._store.prepare)
        self._swap(await asyncio.to_thread(self._store.snapshot, self._defaults))
        self._task = asyncio.create_task(self._run(), name="key-watcher")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def refresh(self) -> None:
        """Look now. Trouble is reported, not raised."""
        try:
            await self._look()
        except (DatabaseUnusable, KeyStoreReplaced) as error:
            self._fail(error)
        else:
            self._succeed()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.refresh()
            except Exception as error:
                self._fail(error)

    async def _look(self) -> None:
        store_id, version = await asyncio.to_thread(self._store.version)
        if store_id != self._known[0]:
            raise KeyStoreReplaced(
                "the database was deleted or replaced while the gateway runs; the keys known "
                "so far stay in force. Put the file back, or restart the gateway to use this one."
            )
        if version != self._known[1]:
            snapshot = await asyncio.to_thread(self._store.snapshot, self._defaults)
            if snapshot.store_id == store_id:
                self._swap(snapshot)

    def _swap(self, snapshot: KeySnapshot) -> None:
        # Static keys first: what the environment says cannot be taken over by the store.
        self._ring = KeyRing((*self._static, *snapshot.entries), clock=self._clock)
        self._known = (snapshot.store_id, snapshot.version)

    def _fail(self, error: Exception) -> None:
        self.failures_total += 1
        is_news = str(error) != self.last_error
        self._trouble = error
        if is_news:
            self._on_failure(error)

    def _succeed(self) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            self._on_recovery(trouble)
