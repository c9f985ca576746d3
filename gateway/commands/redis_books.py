"""RedisBooks: keys and usage in the Redis that gateways share, for the commands."""

from datetime import date

from gateway.auth.redis_keystore import RedisKeyStore
from gateway.auth.register import KeyRegister
from gateway.clock import Clock
from gateway.quota.redis_history import read_shared_rows
from gateway.quota.report import UsageRow, days_back
from gateway.shared.config import RedisConfig
from gateway.shared.tables import Tables


class RedisBooks:
    """REDIS_URL."""

    def __init__(self, config: RedisConfig, *, clock: Clock) -> None:
        self._tables = Tables(config)
        self.place = config.place
        self.keys: KeyRegister = RedisKeyStore(self._tables, clock=clock)

    def rows(self, today: date, *, days: int) -> tuple[UsageRow, ...]:
        return read_shared_rows(self._tables, days=days_back(today, days))
