"""What a caller is told of its limits."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from gateway.edge.limits import LimitHeaders
from gateway.exchange import Exchange, Principal
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.memory import MemoryLedger
from gateway.wire.anthropic import AnthropicDialect
from gateway.wire.openai import OpenAIConfig
from tests.fakes.clock import FakeClock


class RunningClock(FakeClock):
    """Time passes between any two looks at it, as it does on a machine."""

    def timestamp(self) -> float:
        self.advance(0.000_002)
        return super().timestamp()


def test_a_quota_is_back_at_midnight_and_not_a_second_later() -> None:
    clock = RunningClock(now=datetime(2026, 3, 14, 12, 34, 56, 789_012, tzinfo=UTC))
    ledger = MemoryLedger(calendar=QuotaCalendar(zone=ZoneInfo("UTC"), clock=clock))
    exchange = Exchange(request_id="r", method="POST", started_at=0.0, client_address="::1")
    exchange.principal = Principal("team", "Team", daily_token_quota=100)

    limit_headers = LimitHeaders(ledger=ledger, clock=clock)
    told = dict(limit_headers(exchange, AnthropicDialect(OpenAIConfig())))

    assert told[b"anthropic-ratelimit-tokens-reset"] == b"2026-03-15T00:00:00Z"
