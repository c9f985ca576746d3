"""Keys and quotas, put together."""

from typing import Final

from monitoring.dashboards.dashboard import Alerts, Dashboard
from monitoring.dashboards.keys.quotas import QUOTAS, TODAY
from monitoring.dashboards.keys.usage import DOORS, NO_VALID_KEY, USAGE
from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Tile
from monitoring.dashboards.promql import or_zero, per_second
from monitoring.dashboards.scales import Unit, limit, rising
from monitoring.dashboards.selectors import GATEWAY_IS_THERE, gateway, now, of_key
from monitoring.dashboards.variables import GATEWAY, KEY, METRICS

GLANCE: Final = Row(
    "At a glance",
    (
        Tile(
            title="How many keys are in use?",
            shows="Keys that sent a request within the last 5 minutes.",
            when_bad="Fewer than usual: a client is down, or its key has expired.",
            queries=(
                now(
                    f"count(sum by (key) (increase(gateway_key_requests_total{of_key()}[5m])) > 0)"
                ),
            ),
            unit=Unit.NUMBER,
        ),
        Tile(
            title="How many tokens do they use?",
            shows="Tokens per second, input and output, of the chosen keys.",
            when_bad="Compare with the same hour of another day.",
            queries=(
                now(
                    or_zero(
                        per_second("gateway_key_tokens_total", of_key()), beside=GATEWAY_IS_THERE
                    )
                ),
            ),
            unit=Unit.TOKENS_PER_SECOND,
            empty="No gateway",
        ),
        Tile(
            title="How near is the nearest quota?",
            shows="The highest share of a daily quota that any chosen key has used.",
            when_bad="'Which key comes near its quota?' names it.",
            queries=(now('max(key:gateway_quota_used:ratio{key=~"$key"})'),),
            unit=Unit.RATIO,
            thresholds=rising(0.75, 0.9),
            empty="No quotas",
            runbook=("KeyNearQuota",),
        ),
        Tile(
            title="How many are refused?",
            shows="Requests per second of the chosen keys refused by a limit.",
            when_bad="'Who is being refused, and by what?' names key and limit.",
            queries=(
                now(
                    or_zero(
                        per_second("gateway_key_refusals_total", of_key()), beside=GATEWAY_IS_THERE
                    )
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            thresholds=rising(0.1, 1),
            empty="No gateway",
            runbook=("GatewayShedding",),
        ),
        Tile(
            title="How many have no valid key?",
            shows="Requests per second without a valid key.",
            when_bad="Row 'Doors and books'.",
            queries=(
                now(
                    or_zero(
                        per_second("gateway_errors_total", gateway(NO_VALID_KEY)),
                        beside=GATEWAY_IS_THERE,
                    )
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            thresholds=rising(0.1, 1),
            empty="No gateway",
            runbook=("AuthFailureSpike",),
        ),
        Tile(
            title="How old is unsaved usage?",
            shows="Age of the oldest usage that is not on disk yet.",
            when_bad="Above a minute: see the disk under DATABASE_PATH.",
            queries=(now(f"max(gateway_ledger_flush_age_seconds{gateway()})"),),
            unit=Unit.SECONDS,
            thresholds=limit(60),
            empty="No gateway",
            runbook=("QuotaFlushStale",),
        ),
    ),
)

KEYS: Final = Dashboard(
    uid="gateway-keys",
    title="Keys and quotas",
    about="Who uses the service, who comes near a limit, and whether the books hold.",
    variables=(METRICS, GATEWAY, KEY),
    alerts=Alerts("KeyNearQuota|QuotaFlushStale|AuthFailureSpike|GatewayShedding"),
    rows=(GLANCE, QUOTAS, TODAY, USAGE, DOORS),
    since="now-6h",
)
