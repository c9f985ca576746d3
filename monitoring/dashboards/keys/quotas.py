"""Each key's day: tokens used, reserved and left."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Bars, Graph
from monitoring.dashboards.promql import per_second, share
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit, rising
from monitoring.dashboards.selectors import cells, now, of_key
from monitoring.dashboards.tables import Column, Table

_NEAR: Final = rising(0.75, 0.9)
_USED: Final = 'max by (key) (key:gateway_quota_used:ratio{key=~"$key"})'


def _tokens(kind: str) -> str:
    return per_second("gateway_key_tokens_total", of_key(f'type="{kind}"'), by=("key",))


def _state(gauge: str) -> str:
    return f"sum by (key) (gateway_quota_{gauge}_tokens{of_key()})"


QUOTAS: Final = Row(
    "Every key",
    (
        Table(
            title="What does each key do right now?",
            shows="One line per key: its rate of requests and tokens, its day so far, refusals and "
            "the share of its requests that failed. Names, never keys; beyond METRICS_KEYS_MAX "
            "they are summed as 'other'.",
            when_bad="Sort by a column: the key on top is the one to talk to. `gateway keys show "
            "NAME` tells its limits.",
            queries=(
                cells(per_second("gateway_key_requests_total", of_key(), by=("key",))),
                cells(_tokens("input")),
                cells(_tokens("output")),
                cells(_state("used")),
                cells(_state("limit")),
                cells(_USED),
                cells(per_second("gateway_key_refusals_total", of_key(), by=("key",))),
                cells(
                    share(
                        per_second(
                            "gateway_key_requests_total",
                            of_key('outcome=~"error|truncated"'),
                            by=("key",),
                        ),
                        per_second("gateway_key_requests_total", of_key(), by=("key",)),
                    )
                ),
            ),
            columns=(
                Column("key", "Key"),
                Column("Value #A", "Requests", Unit.REQUESTS_PER_SECOND),
                Column("Value #B", "Input", Unit.TOKENS_PER_SECOND),
                Column("Value #C", "Output", Unit.TOKENS_PER_SECOND),
                Column("Value #D", "Used today", Unit.NUMBER),
                Column("Value #E", "Quota", Unit.NUMBER),
                Column("Value #F", "Of quota", Unit.RATIO, _NEAR),
                Column("Value #G", "Refused", Unit.REQUESTS_PER_SECOND),
                Column("Value #H", "Failed", Unit.RATIO, rising(0.001, 0.01)),
            ),
            empty="No key has asked yet",
            runbook=("KeyNearQuota", "GatewayShedding"),
            height=10,
        ),
    ),
)

TODAY: Final = Row(
    "Quotas today",
    (
        Bars(
            title="Which key comes near its quota?",
            shows="Tokens used today as a share of the daily quota; keys without a quota are not "
            "shown.",
            when_bad="At 100 % the key is refused until midnight of QUOTA_TIMEZONE. Tell its "
            "owner, or give a key with a larger one: `gateway keys create --daily-tokens N`.",
            queries=(now(f"sort_desc({_USED})", "{{key}}"),),
            unit=Unit.RATIO,
            thresholds=_NEAR,
            most=1,
            empty="No quotas",
            runbook=("KeyNearQuota",),
        ),
        Graph(
            title="When will a quota be used up?",
            shows="The same share over time: extend the line to 100 % by eye.",
            when_bad="A step instead of a slope: one huge batch, or a leaked key.",
            queries=(Metric(_USED, "{{key}}"),),
            unit=Unit.RATIO,
            thresholds=_NEAR,
            empty="No quotas",
            runbook=("KeyNearQuota",),
        ),
        Graph(
            title="How much is reserved for running answers?",
            shows="Tokens set aside for requests that run now; what they do not use comes back.",
            when_bad="High while little is generated: clients ask for a huge max_tokens and are "
            "refused for it before their quota is spent.",
            queries=(Metric(_state("reserved"), "{{key}}"),),
            unit=Unit.NUMBER,
            empty="No quotas",
            runbook=("KeyNearQuota",),
        ),
    ),
)
