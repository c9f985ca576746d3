"""Who uses most, who is refused, whose requests fail."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Bars, Graph
from monitoring.dashboards.promql import or_zero, per_second, share
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit, limit, rising
from monitoring.dashboards.selectors import GATEWAY_IS_THERE, gateway, now, of_key

# A list, not a pattern: an upstream's own complaint about a key is none of these.
NO_VALID_KEY: Final = 'code=~"missing_api_key|invalid_api_key|api_key_revoked|api_key_expired"'
_REQUESTS: Final = per_second("gateway_key_requests_total", of_key(), by=("key",))

USAGE: Final = Row(
    "Use",
    (
        Bars(
            title="Who uses most tokens?",
            shows="The ten keys with the most tokens (input and output) in the shown time.",
            when_bad="Nothing is bad about it, unless it is not the one you expect.",
            queries=(
                now(
                    "topk(10, sum by (key) "
                    f"(increase(gateway_key_tokens_total{of_key()}[$__range])))",
                    "{{key}}",
                ),
            ),
            unit=Unit.NUMBER,
        ),
        Graph(
            title="Whose tokens are being generated?",
            shows="Output tokens per second by key: who occupies the GPUs.",
            when_bad="One key with nearly all of it makes everybody wait: lower its concurrency, "
            "MAX_CONCURRENT_PER_KEY.",
            queries=(
                Metric(
                    per_second("gateway_key_tokens_total", of_key('type="output"'), by=("key",)),
                    "{{key}}",
                ),
            ),
            unit=Unit.TOKENS_PER_SECOND,
            is_stacked=True,
        ),
        Graph(
            title="Whose prompts are being read?",
            shows="Input tokens per second by key: who costs prefill time and KV cache.",
            when_bad="Much input with little output: documents are sent again and again; a shared "
            "prefix first in the prompt would be cached.",
            queries=(
                Metric(
                    per_second("gateway_key_tokens_total", of_key('type="input"'), by=("key",)),
                    "{{key}}",
                ),
            ),
            unit=Unit.TOKENS_PER_SECOND,
            is_stacked=True,
        ),
        Graph(
            title="Who sends requests?",
            shows="Requests per second by key.",
            when_bad="A jump without a deployment on the other side: a retry loop.",
            queries=(Metric(_REQUESTS, "{{key}}"),),
            unit=Unit.REQUESTS_PER_SECOND,
            is_stacked=True,
        ),
        Graph(
            title="Who is being refused, and by what?",
            shows="Refusals per second by key and limit.",
            when_bad="daily quota: KeyNearQuota's section. key_rate and concurrency: the client "
            "should honour Retry-After.",
            queries=(
                Metric(
                    per_second("gateway_key_refusals_total", of_key(), by=("key", "limit")),
                    "{{key}} {{limit}}",
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            is_stacked=True,
            empty="Nobody",
            runbook=("KeyNearQuota", "GatewayShedding"),
        ),
        Graph(
            title="Whose requests fail?",
            shows="Share of each key's requests that ended in an error, were cut short, or were "
            "the client's own mistake.",
            when_bad="One key alone: its client is wrong; the log lines with its name say how. All "
            "keys: look at the overview.",
            queries=(
                Metric(
                    share(
                        per_second(
                            "gateway_key_requests_total",
                            of_key('outcome=~"error|truncated|client_error"'),
                            by=("key",),
                        ),
                        _REQUESTS,
                    ),
                    "{{key}}",
                ),
            ),
            unit=Unit.RATIO,
            thresholds=limit(0.05),
            most=1,
            runbook=("GatewayErrorBudgetBurnSlow",),
        ),
    ),
)

DOORS: Final = Row(
    "Doors and books",
    (
        Graph(
            title="Is anyone guessing keys?",
            shows="Requests per second with a missing, wrong, revoked or expired key, and refusals "
            "per address before any key is looked at.",
            when_bad="Find the address in the log and block it at the proxy; "
            "RATE_LIMIT_PER_IP slows it meanwhile.",
            queries=(
                Metric(
                    per_second(
                        "gateway_errors_total",
                        gateway(NO_VALID_KEY),
                        by=("code",),
                    ),
                    "{{code}}",
                ),
                Metric(
                    or_zero(
                        per_second("gateway_refusals_total", gateway('limit="ip_rate"')),
                        beside=GATEWAY_IS_THERE,
                    ),
                    "refused per address",
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            thresholds=limit(1),
            empty="Nobody",
            runbook=("AuthFailureSpike",),
        ),
        Graph(
            title="Usage reaches the disk in time",
            shows="Age of the oldest usage that is not on disk yet: what a crash would lose.",
            when_bad="Full or slow disk under DATABASE_PATH. Quotas still hold while the process "
            "lives.",
            queries=(
                Metric(
                    f"max by (instance) (gateway_ledger_flush_age_seconds{gateway()})",
                    "{{instance}}",
                ),
            ),
            unit=Unit.SECONDS,
            thresholds=rising(10, 60),
            empty="No gateway",
            runbook=("QuotaFlushStale",),
        ),
        Graph(
            title="Are the books being kept?",
            shows="Failures per second to write usage or to read the keys from the database.",
            when_bad="Keys keep working as last read, changes to them do not arrive: repair the "
            "disk or the file's rights.",
            queries=(
                Metric(
                    or_zero(
                        per_second("gateway_ledger_flush_failures_total", gateway()),
                        beside=GATEWAY_IS_THERE,
                    ),
                    "usage not written",
                ),
                Metric(
                    or_zero(
                        per_second("gateway_key_store_failures_total", gateway()),
                        beside=GATEWAY_IS_THERE,
                    ),
                    "keys not read",
                ),
            ),
            unit=Unit.EVENTS_PER_SECOND,
            thresholds=limit(0.01),
            empty="No gateway",
            runbook=("QuotaFlushStale", "KeyStoreFailing"),
        ),
    ),
)
