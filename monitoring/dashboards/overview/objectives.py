"""The service's promises: how fast their budgets burn, and who gets what was promised."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.overview.promises import (
    ERROR_BUDGET,
    ERRORS,
    SLOW_START_BUDGET,
    SLOW_STARTS,
    WINDOWS,
    burn,
    left,
)
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.promql import growth, share
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit, demanded, rising
from monitoring.dashboards.selectors import of_model

# 14.4 times too fast: the budget is gone in two days, which pages.
_BURN: Final = rising(1, 14.4)


def _burns(rule: str, budget: float) -> tuple[Metric, ...]:
    return tuple(Metric(burn(rule, budget, window), window) for window in WINDOWS)


OBJECTIVES: Final = Row(
    "Objectives (30 days)",
    (
        Graph(
            title="99.5 % of answers succeed",
            shows="How many times too fast the error budget burns, by window. 1 just lasts 30 "
            "days; 14.4 over 5m and 1h together pages.",
            when_bad="Short windows alone: it just began. Long windows alone: it is over. Both: "
            "act now, row 'Errors and refusals' tells where.",
            queries=_burns(ERRORS, ERROR_BUDGET),
            unit=Unit.FACTOR,
            thresholds=_BURN,
            runbook=("GatewayErrorBudgetBurnFast", "GatewayErrorBudgetBurnSlow"),
        ),
        Graph(
            title="95 % of first tokens come within 2.5 s",
            shows="How many times too fast the budget of slow first tokens burns, by window.",
            when_bad="Look at queue and KV cache of vLLM for the same time.",
            queries=_burns(SLOW_STARTS, SLOW_START_BUDGET),
            unit=Unit.FACTOR,
            thresholds=_BURN,
            runbook=("GatewayTTFTBudgetBurn",),
        ),
        Graph(
            title="There is budget left",
            shows="The share of each 30-day budget that is not used up, as far back as Prometheus "
            "remembers. Below zero the objective is missed.",
            when_bad="No risky change until it has recovered.",
            queries=(
                Metric(left(ERRORS, ERROR_BUDGET), "errors"),
                Metric(left(SLOW_STARTS, SLOW_START_BUDGET), "slow first tokens"),
            ),
            unit=Unit.RATIO,
            thresholds=demanded(0),
            least=None,
            most=1,
            runbook=("GatewayErrorBudgetBurnSlow",),
        ),
        Graph(
            title="What do people really get? (goodput)",
            shows="Share of answers that met every limit at once (SLO_TTFT_SECONDS and "
            "SLO_TIME_PER_OUTPUT_TOKEN_SECONDS), by model.",
            when_bad="Lower than each objective alone: different requests miss different limits. "
            "More load will not give more good answers.",
            queries=(
                Metric(
                    share(
                        growth("gateway_goodput_requests_total", of_model(), by=("model",)),
                        growth("gateway_slo_requests_total", of_model(), by=("model",)),
                    ),
                    "{{model}}",
                ),
            ),
            unit=Unit.RATIO,
            thresholds=demanded(0.95),
            most=1,
            width=12,
            runbook=("GatewayTTFTBudgetBurn", "InterTokenLatencyHigh"),
        ),
        Graph(
            title="How late is the first token of each model?",
            shows="95th percentile of the time to first token over 5 minutes: the very number that "
            "the alert looks at.",
            when_bad="Above 5 s for ten minutes it warns.",
            queries=(
                Metric(
                    "max by (model) "
                    '(job_model:gateway_time_to_first_token_seconds:p95_5m{model=~"$model"}) >= 0',
                    "{{model}}",
                ),
            ),
            unit=Unit.SECONDS,
            thresholds=rising(2.5, 5),
            width=12,
            runbook=("GatewayTTFTHigh",),
        ),
    ),
)
