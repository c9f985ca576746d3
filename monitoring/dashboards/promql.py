"""Sentences of PromQL that are easy to get subtly wrong, each written once.

An idle system must give no sample, never NaN: Grafana then says "No traffic". A counter that has
not been born yet must read zero beside a target that is up, and nothing beside one that is not.
"""

from collections.abc import Iterable
from typing import Final

# At least four scrapes, whatever the zoom: Grafana takes it from the data source's interval.
WINDOW: Final = "$__rate_interval"


def matching(*matchers: str) -> str:
    """`{a,b}` of the matchers that are not empty."""
    return "{" + ",".join(matcher for matcher in matchers if matcher) + "}"


def per_second(metric: str, selector: str, *, by: Iterable[str] = ()) -> str:
    """The summed rate of a counter."""
    return f"{summed(by)} (rate({metric}{selector}[{WINDOW}]))"


def growth(metric: str, selector: str, *, by: Iterable[str] = ()) -> str:
    """What a counter gained per window, summed."""
    return f"{summed(by)} (increase({metric}{selector}[{WINDOW}]))"


def summed(by: Iterable[str] = ()) -> str:
    labels = ", ".join(by)
    return f"sum by ({labels})" if labels else "sum"


def or_zero(expr: str, *, beside: str) -> str:
    """The value, or 0 as long as `beside` has a sample: a counter nobody has needed yet."""
    return f"{expr} or 0 * {beside}"


def share(part: str, whole: str) -> str:
    """`part / whole` from 0 to 1; 0 where only the part is absent, nothing where nothing happens.

    Both must be aggregated by the same labels.
    """
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def quantile(level: float, metric: str, selector: str, *, by: Iterable[str] = ()) -> str:
    """A quantile over a classic histogram; the comparison drops the NaN of an idle one."""
    buckets = per_second(f"{metric}_bucket", selector, by=("le", *by))
    return f"histogram_quantile({level}, {buckets}) >= 0"


def mean(metric: str, selector: str, *, by: Iterable[str] = ()) -> str:
    """The mean of what a histogram saw; summed before the division: busy series weigh more."""
    total, count = (per_second(f"{metric}_{part}", selector, by=by) for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"
