"""MemoryLedger: the tokens of every key in this process, decided without a pause."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from datetime import date
from types import TracebackType

from gateway.exchange import Allowance, Principal, SharedLimits, TokenUsage
from gateway.quota.account import Account
from gateway.quota.calendar import QuotaCalendar, QuotaDay
from gateway.quota.history import NO_HISTORY, HistoryUnavailable, UsageHistory
from gateway.quota.ledger import Metered, Reservation, Standing, TokenDemand, refusal
from gateway.quota.report import NO_MODEL, UsageReport, UsageRow, by_day, days_back

# Enough to find a day again that a jumping clock left and came back to.
_DAYS_IN_MEMORY = 7


class MemoryLedger:
    """The Ledger of one process. No await stands between looking and taking: that is the lock.

    The last few days stay in memory; a reservation keeps its own day for as long as it lasts.
    """

    def __init__(self, *, calendar: QuotaCalendar, history: UsageHistory = NO_HISTORY) -> None:
        self._calendar = calendar
        self._history = history
        self._days: dict[date, dict[str, Account]] = {}
        self._changed: set[tuple[Account, str]] = set()
        self._followed: dict[MemoryReservation, Metered] = {}
        self._enter(calendar.today())

    def reserve(
        self, principal: Principal, demand: TokenDemand, shared: SharedLimits | None = None
    ) -> AbstractAsyncContextManager[Reservation]:
        return MemoryReservation(self, principal, demand)

    def remaining(self, principal: Principal) -> int | None:
        quota = principal.daily_token_quota
        return None if quota is None else self._account(principal.key_id).remaining(quota)

    def allowance(self, principal: Principal) -> Allowance | None:
        quota = principal.daily_token_quota
        if quota is None:
            return None
        reset_seconds = self._calendar.seconds_until_reset()
        account = self._account(principal.key_id)
        remaining = quota - account.used - account.reserved
        return Allowance(quota, remaining if remaining > 0 else 0, reset_seconds)

    def standing(self, principal: Principal) -> Standing:
        quota = principal.daily_token_quota
        account = self._account(principal.key_id)
        return Standing(
            limit=quota,
            used=account.used,
            reserved=account.reserved,
            remaining=account.remaining(quota),
            resets_at=self._today.resets_at,
        )

    def count_refusal(self, principal: Principal) -> None:
        account = self._account(principal.key_id)
        account.counts_of(NO_MODEL).refusals += 1
        self._changed.add((account, NO_MODEL))

    async def report(self, principal: Principal, *, days: int) -> UsageReport:
        recorded, is_complete = await self._recorded(principal.key_id, days)
        standing = self.standing(principal)
        # Memory is ahead of the journal: where both know a row, memory is right.
        rows = {(row.day, row.model): row for row in recorded}
        rows.update(((row.day, row.model), row) for row in self._rows_of(principal.key_id))
        history = by_day(rows.values(), days_back(self._today.date, days))
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

    def load(self, rows: Iterable[UsageRow]) -> None:
        """Take up what a journal recorded, before the first request."""
        for row in sorted(rows):
            accounts = self._days.setdefault(row.day, {})
            _opened(accounts, row.day, row.key_id).load(row)
        self._enter(self._calendar.today())

    def drain(self) -> list[UsageRow]:
        """The rows that changed since the last call, as absolute counts; running streams too."""
        for reservation, meter in self._followed.items():
            if meter.usage.total_tokens > 0:
                reservation.progress(meter.usage)
        changed, self._changed = self._changed, set()
        return [account.row(model) for account, model in changed]

    def held(self) -> list[UsageRow]:
        """Every row in memory."""
        days = self._days.values()
        return [row for accounts in days for a in accounts.values() for row in a.rows()]

    def admit(self, principal: Principal, demand: TokenDemand) -> tuple[Account, int, int | None]:
        """The account, the tokens now held in it, and the output limit. Raises a Refusal."""
        account = self._account(principal.key_id)
        quota = principal.daily_token_quota
        if quota is None or demand.is_free:
            return account, 0, None
        remaining = quota - account.used - account.reserved
        if demand.least_tokens > remaining:
            standing = self.standing(principal)
            reset_seconds = self._calendar.seconds_until_reset()
            raise refusal(principal, standing, demand, seconds_until_reset=reset_seconds)
        hold, output_limit = demand.within(remaining)
        account.reserved += hold
        return account, hold, output_limit

    def mark(self, account: Account, model: str) -> None:
        """The counts of this model changed; the journal is to hear of it."""
        self._changed.add((account, model))

    def follow(self, reservation: "MemoryReservation", meter: Metered) -> None:
        """Ask the meter at every drain, until `forget`."""
        self._followed[reservation] = meter

    def forget(self, reservation: "MemoryReservation") -> None:
        self._followed.pop(reservation, None)

    async def _recorded(self, key_id: str, days: int) -> tuple[tuple[UsageRow, ...], bool]:
        if days == 1:
            return (), True  # Today is in memory: `load` took it up.
        oldest = days_back(self._calendar.today().date, days)[-1]
        try:
            return await self._history.rows(key_id, since=oldest), True
        except HistoryUnavailable:
            return (), False

    def _rows_of(self, key_id: str) -> list[UsageRow]:
        accounts = (day[key_id] for day in self._days.values() if key_id in day)
        return [row for account in accounts for row in account.rows()]

    def _account(self, key_id: str) -> Account:
        today = self._calendar.today()
        if today is not self._today:
            self._enter(today)
        account = self._accounts.get(key_id)
        return account or _opened(self._accounts, today.date, key_id)

    def _enter(self, today: QuotaDay) -> None:
        self._today = today
        self._accounts = self._days.pop(today.date, {})
        self._days[today.date] = self._accounts
        for day in tuple(self._days)[:-_DAYS_IN_MEMORY]:
            del self._days[day]


class MemoryReservation:
    """Tokens held in one account, from entering the block to leaving it."""

    __slots__ = (
        "_account",
        "_demand",
        "_held",
        "_hold",
        "_input_tokens",
        "_is_open",
        "_is_request",
        "_ledger",
        "_output_tokens",
        "_principal",
        "output_limit",
    )
    _account: Account

    def __init__(self, ledger: MemoryLedger, principal: Principal, demand: TokenDemand) -> None:
        self._ledger = ledger
        self._principal = principal
        self._demand = demand
        self._hold = self._held = 0
        self._input_tokens = self._output_tokens = 0
        self._is_open = self._is_request = False
        self.output_limit: int | None = None

    async def __aenter__(self) -> Reservation:
        admitted = self._ledger.admit(self._principal, self._demand)
        self._account, self._hold, self.output_limit = admitted
        self._held = self._hold
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def progress(self, usage: TokenUsage) -> None:
        if not self._is_open:
            return
        if usage.total_tokens == self._input_tokens + self._output_tokens and self._is_request:
            return
        self._charge(
            max(usage.input_tokens, self._input_tokens),
            max(usage.output_tokens, self._output_tokens),
        )
        # What is charged is no longer held: used + reserved stays what was admitted.
        held = max(self._hold - self._input_tokens - self._output_tokens, 0)
        self._account.reserved += held - self._held
        self._held = held

    def follow(self, meter: Metered) -> None:
        if self._is_open:
            self._ledger.follow(self, meter)

    def settle(self, usage: TokenUsage) -> None:
        if not self._is_open:
            return
        self._charge(max(usage.input_tokens, 0), max(usage.output_tokens, 0))
        self._close()

    def _charge(self, input_tokens: int, output_tokens: int) -> None:
        more_input = input_tokens - self._input_tokens
        more_output = output_tokens - self._output_tokens
        counts = self._account.counts_of(self._demand.model)
        counts.input_tokens += more_input
        counts.output_tokens += more_output
        if not self._is_request:
            self._is_request = True
            counts.requests += 1
        self._account.used += more_input + more_output
        self._input_tokens = input_tokens
        self._output_tokens = output_tokens
        self._ledger.mark(self._account, self._demand.model)

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._ledger.forget(self)
        self._account.reserved -= self._held
        self._held = 0


def _opened(accounts: dict[str, Account], day: date, key_id: str) -> Account:
    account = accounts.get(key_id)
    if account is None:
        account = accounts[key_id] = Account(day, key_id)
    return account
