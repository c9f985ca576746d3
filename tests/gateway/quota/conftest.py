"""A ledger and its journal on a real file, for the tests of this room."""

from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.exchange import Principal, TokenUsage
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.history import SqliteHistory, read_rows
from gateway.quota.journal import Journal, JournalConfig
from gateway.quota.ledger import TokenDemand
from gateway.quota.memory import MemoryLedger
from tests.fakes.clock import FakeClock

TEAM = Principal("team", "Team", daily_token_quota=1_000)


@dataclass
class Bench:
    """One gateway's quota on one file; `start` makes another on the same file."""

    path: Path
    clock: FakeClock
    reports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calendar = QuotaCalendar(zone=ZoneInfo("UTC"), clock=self.clock)
        self.ledger = MemoryLedger(
            calendar=self.calendar, history=SqliteHistory(path=self.path.absolute())
        )
        # An hour between flushes: a test flushes when it wants to.
        self.journal = self.new_journal(flush_seconds=3600)

    def new_journal(self, *, flush_seconds: float, close_seconds: float = 5.0) -> Journal:
        return Journal(
            config=JournalConfig(
                path=self.path,
                flush_seconds=flush_seconds,
                busy_seconds=0.05,
                close_seconds=close_seconds,
                retention_days=5,
            ),
            book=self.ledger,
            calendar=self.calendar,
            clock=self.clock,
            on_failure=lambda error: self.reports.append(f"failure: {error}"),
            on_recovery=lambda error: self.reports.append("recovery"),
        )

    def start(self) -> "Bench":
        return Bench(path=self.path, clock=self.clock)

    async def spend(self, tokens: int, *, model: str = "m") -> None:
        async with self.ledger.reserve(TEAM, TokenDemand(model, tokens, 0)) as reservation:
            reservation.settle(TokenUsage(input_tokens=tokens))

    def on_disk(self) -> int:
        rows = read_rows(self.path, since=self.clock.now().date().replace(year=2000))
        return sum(row.input_tokens + row.output_tokens for row in rows)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(path=tmp_path / "data" / "gateway.db", clock=FakeClock())
