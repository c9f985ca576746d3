"""Account: one key on one day, with what is used, what is held, and the counts per model."""

from datetime import date

from gateway.quota.report import UsageRow


class Counts:
    """The live counters behind one UsageRow."""

    __slots__ = ("input_tokens", "output_tokens", "refusals", "requests")

    def __init__(self) -> None:
        self.input_tokens = 0
        self.output_tokens = 0
        self.requests = 0
        self.refusals = 0


class Account:
    """Used and reserved tokens of one key on one day. `used` is the sum over all models."""

    __slots__ = ("counts", "day", "key_id", "reserved", "used")

    def __init__(self, day: date, key_id: str) -> None:
        self.day = day
        self.key_id = key_id
        self.used = 0
        self.reserved = 0
        self.counts: dict[str, Counts] = {}

    def remaining(self, quota: int | None) -> int | None:
        """Neither used nor reserved; never negative, None without a quota."""
        return None if quota is None else max(quota - self.used - self.reserved, 0)

    def counts_of(self, model: str) -> Counts:
        counts = self.counts.get(model)
        if counts is None:
            counts = self.counts[model] = Counts()
        return counts

    def load(self, row: UsageRow) -> None:
        """Take up a recorded row; each model once, before anything is counted here."""
        counts = self.counts_of(row.model)
        counts.input_tokens = row.input_tokens
        counts.output_tokens = row.output_tokens
        counts.requests = row.requests
        counts.refusals = row.refusals
        self.used += row.input_tokens + row.output_tokens

    def row(self, model: str) -> UsageRow:
        counts = self.counts[model]
        return UsageRow(
            self.day,
            self.key_id,
            model,
            counts.input_tokens,
            counts.output_tokens,
            counts.requests,
            counts.refusals,
        )

    def rows(self) -> list[UsageRow]:
        return [self.row(model) for model in self.counts]
