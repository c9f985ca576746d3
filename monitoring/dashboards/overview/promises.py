"""The promises of 30 days: what counts against them, and how much of each budget is gone."""

from typing import Final

_CALLS: Final = 'route=~"/v1/.+",route!~"/v1/(models|usage).*"'
# A client's own mistakes, refusals and departures are neither good nor bad answers of ours.
FAILED: Final = f'{_CALLS},outcome=~"error|truncated"'
JUDGED: Final = f'{_CALLS},outcome!~"client_error|rejected|cancelled"'

ERRORS: Final = "job:gateway_requests_errors:ratio_rate"
ERROR_BUDGET: Final = 0.005
SLOW_STARTS: Final = "job:gateway_ttft_slow:ratio_rate"
SLOW_START_BUDGET: Final = 0.05
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def burn(rule: str, budget: float, window: str) -> str:
    """How many times too fast a budget burns; at 1 it lasts exactly its 30 days."""
    return f"max({rule}{window}) / {budget}"


def left(rule: str, budget: float) -> str:
    """The share of a budget not used up in 30 days, or in as many as Prometheus remembers.

    The mean of a sliding day costs one series; the counters themselves would cost all of them,
    a whole month of samples at a time.
    """
    return f"1 - max(avg_over_time({rule}1d[30d])) / {budget}"
