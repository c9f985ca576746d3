"""Books: where the commands find keys and usage, as a gateway with these settings does."""

from datetime import date
from pathlib import Path
from typing import Protocol

from gateway.auth.keystore import KeyStore
from gateway.auth.register import KeyRegister
from gateway.clock import Clock
from gateway.quota.history import read_rows
from gateway.quota.report import UsageRow, days_back
from gateway.settings import Settings


class Books(Protocol):
    """Keys and usage; `place` names where they are. Raises DatabaseUnusable."""

    @property
    def place(self) -> str: ...
    @property
    def keys(self) -> KeyRegister: ...
    def rows(self, today: date, *, days: int) -> tuple[UsageRow, ...]:
        """Of all keys, `days` days back counting today."""
        ...


class FileBooks:
    """DATABASE_PATH."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self.place = str(path.absolute())
        self.keys: KeyRegister = KeyStore(path=path, clock=clock)

    def rows(self, today: date, *, days: int) -> tuple[UsageRow, ...]:
        return read_rows(self._path, since=days_back(today, days)[-1], key_id=None)


def books_of(settings: Settings, *, clock: Clock) -> Books:
    if settings.redis is not None:
        from gateway.commands.redis_books import RedisBooks

        return RedisBooks(settings.redis, clock=clock)
    return FileBooks(settings.journal.path, clock=clock)
