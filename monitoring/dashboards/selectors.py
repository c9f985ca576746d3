"""Which series the choices at the top of a dashboard leave, and ways to ask for several at once."""

from collections.abc import Iterable
from typing import Final

from monitoring.dashboards.promql import matching, quantile
from monitoring.dashboards.queries import Metric, Shape

_GATEWAY: Final = 'instance=~"$gateway"'
_MODEL: Final = 'model=~"$model"'
_UPSTREAM: Final = 'upstream=~"$upstream"'
# What operators and Prometheus ask of the gateway itself is no traffic.
_NOT_OPERATIONS: Final = 'route!~"/(metrics|health|ready|readyz|version)"'
_KEY: Final = 'key=~"$key"'
_ENGINE: Final = 'instance=~"$vllm",model_name=~"$model"'
_HOST: Final = 'instance=~"$host"'
_GPU: Final = 'gpu=~"$gpu"'


def gateway(*more: str) -> str:
    return matching(_GATEWAY, *more)


def of_model(*more: str) -> str:
    return matching(_GATEWAY, _MODEL, *more)


def of_upstream(*more: str) -> str:
    return matching(_GATEWAY, _UPSTREAM, *more)


def of_call(*more: str) -> str:
    """Series that know both model and upstream."""
    return matching(_GATEWAY, _MODEL, _UPSTREAM, *more)


def of_traffic() -> str:
    """All that clients ask, whatever became of it."""
    return of_call(_NOT_OPERATIONS)


def of_key(*more: str) -> str:
    return matching(_GATEWAY, _KEY, *more)


def engine(*more: str) -> str:
    return matching(_ENGINE, *more)


def host(*more: str) -> str:
    return matching(_HOST, *more)


def gpu(*more: str) -> str:
    return matching(_HOST, _GPU, *more)


# One sample as long as a chosen gateway answers scrapes: what unborn counters are zero beside.
GATEWAY_IS_THERE: Final = f"sum(gateway_build_info{gateway()})"
ENGINE_IS_THERE: Final = f"sum(vllm:num_requests_running{engine()})"


def now(expr: str, legend: str = "") -> Metric:
    """Asked for this moment only: a tile must not show the last value of a dead series."""
    return Metric(expr, legend, is_instant=True)


def cells(expr: str) -> Metric:
    """The values of one column of a table, for this moment."""
    return Metric(expr, shape=Shape.TABLE, is_instant=True)


def percentiles(
    metric: str, selector: str, *, levels: Iterable[int] = (50, 95, 99), has_exemplars: bool = False
) -> tuple[Metric, ...]:
    """One line per level, all series together."""
    return tuple(
        Metric(quantile(level / 100, metric, selector), f"p{level}", has_exemplars=has_exemplars)
        for level in levels
    )
