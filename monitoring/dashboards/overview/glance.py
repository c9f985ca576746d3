"""The first row: twelve tiles that answer whether to read on."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.overview.promises import ERROR_BUDGET, ERRORS, FAILED, JUDGED, left
from monitoring.dashboards.panels import Tile
from monitoring.dashboards.promql import or_zero, per_second, quantile, share
from monitoring.dashboards.scales import NEUTRAL, Unit, falling, limit, rising
from monitoring.dashboards.selectors import (
    GATEWAY_IS_THERE,
    gateway,
    now,
    of_call,
    of_model,
    of_traffic,
    of_upstream,
)

GLANCE: Final = Row(
    "At a glance",
    (
        Tile(
            title="How many requests come in?",
            shows="Requests per second, refused ones included, without /metrics and health checks.",
            when_bad="A sudden zero means that clients or the proxy in front cannot reach us: "
            "look at 'How many targets are down?' and at the proxy's log.",
            queries=(
                now(
                    or_zero(
                        per_second("gateway_requests_total", of_traffic()), beside=GATEWAY_IS_THERE
                    )
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            empty="No gateway",
            runbook=("TargetDown",),
        ),
        Tile(
            title="Which share of requests fails?",
            shows="Answers that ended in an error or were cut short, of all answers that are ours "
            "to judge (not: a client's own mistakes, refusals, departures).",
            when_bad="Row 'Errors and refusals' tells which upstream and which code.",
            queries=(
                now(
                    share(
                        per_second("gateway_requests_total", of_call(FAILED)),
                        per_second("gateway_requests_total", of_call(JUDGED)),
                    )
                ),
            ),
            unit=Unit.RATIO,
            thresholds=rising(0.001, 0.01),
            runbook=("GatewayErrorBudgetBurnFast", "GatewayErrorBudgetBurnSlow"),
        ),
        Tile(
            title="How late is the first token?",
            shows="95th percentile of the time from a request's head to its first content event.",
            when_bad="Compare with queue and KV cache on the vLLM dashboard: waiting is cured by "
            "capacity, slow prefill by shorter prompts or a bigger prefix cache.",
            queries=(now(quantile(0.95, "gateway_time_to_first_token_seconds", of_call())),),
            unit=Unit.SECONDS,
            thresholds=rising(1, 2.5),
            runbook=("GatewayTTFTHigh",),
        ),
        Tile(
            title="How far apart do tokens come?",
            shows="95th percentile of the time per output token of finished answers.",
            when_bad="Too many sequences share the GPUs, or a GPU is slow: see the GPUs' "
            "throttling and balance.",
            queries=(now(quantile(0.95, "gateway_time_per_output_token_seconds", of_model())),),
            unit=Unit.SECONDS,
            thresholds=rising(0.1, 0.2),
            runbook=("InterTokenLatencyHigh",),
        ),
        Tile(
            title="How long does an answer take?",
            shows="95th percentile from a request's head to the answer's end. It grows with the "
            "length of answers, so compare it with itself only.",
            when_bad="If first token and time per token are fine, clients ask for longer answers.",
            queries=(
                now(quantile(0.95, "gateway_request_duration_seconds", of_model('model!=""'))),
            ),
            unit=Unit.SECONDS,
            thresholds=NEUTRAL,
        ),
        Tile(
            title="How many tokens are generated?",
            shows="Output tokens per second charged to keys.",
            when_bad="Falling while requests run: an engine stalls or a GPU throttles.",
            queries=(
                now(
                    or_zero(
                        per_second("gateway_tokens_total", of_model('type="output"')),
                        beside=GATEWAY_IS_THERE,
                    )
                ),
            ),
            unit=Unit.TOKENS_PER_SECOND,
            empty="No gateway",
            runbook=("VllmStalled",),
        ),
        Tile(
            title="How full is the gateway?",
            shows="Calls in flight as a share of MAX_IN_FLIGHT.",
            when_bad="At 100 % new calls queue, then are refused with 503. Raise MAX_IN_FLIGHT "
            "only if vLLM has room; otherwise add an upstream.",
            queries=(
                now(
                    f"sum(gateway_calls_in_flight{gateway()}) / "
                    f"(sum(gateway_calls_in_flight_limit{gateway()}) > 0)"
                ),
            ),
            unit=Unit.RATIO,
            thresholds=rising(0.8, 0.95),
            empty="No limit",
            runbook=("GatewayShedding",),
        ),
        Tile(
            title="How many wait for a place?",
            shows="Calls in the gateway's own queue.",
            when_bad="Anything but short spikes means that all places are taken.",
            queries=(now(f"sum(gateway_queue_depth{gateway()})"),),
            unit=Unit.NUMBER,
            thresholds=rising(1, 32),
            empty="No gateway",
            runbook=("GatewayShedding",),
        ),
        Tile(
            title="How many upstreams are sick?",
            shows="Upstreams that the gateway's health prober finds unhealthy.",
            when_bad="Read the failing vLLM's log; the circuit keeps traffic off it meanwhile.",
            queries=(
                now(
                    f"count(gateway_upstream_healthy{of_upstream()} == 0) "
                    f"or 0 * count(gateway_upstream_healthy{of_upstream()})"
                ),
            ),
            unit=Unit.NUMBER,
            thresholds=limit(1),
            empty="No upstream",
            runbook=("UpstreamUnhealthy", "CircuitBreakerOpen"),
        ),
        Tile(
            title="How many targets are down?",
            shows="Targets of Prometheus (gateway, vLLM, GPU exporter) that do not answer scrapes.",
            when_bad="A target that is down has no metrics: its panels are empty, not fine.",
            queries=(
                now(
                    'count(up{job=~"gateway|vllm|gpu-exporter"} == 0) '
                    'or 0 * count(up{job=~"gateway|vllm|gpu-exporter"})'
                ),
            ),
            unit=Unit.NUMBER,
            thresholds=limit(1),
            empty="No targets",
            runbook=("TargetDown",),
        ),
        Tile(
            title="How many alerts are firing?",
            shows="Alerts of severity critical or warning that fire now.",
            when_bad="Follow the runbook section named like the alert.",
            queries=(
                now(
                    'count(ALERTS{alertstate="firing",severity=~"critical|warning"}) '
                    'or 0 * count(up{job="gateway"})'
                ),
            ),
            unit=Unit.NUMBER,
            thresholds=limit(1),
            empty="No Prometheus",
        ),
        Tile(
            title="How much error budget is left?",
            shows="Of the 0.5 % of answers that may fail in 30 days, the share not yet used up; "
            "as far back as Prometheus remembers. Below zero the objective is missed.",
            when_bad="Stop risky changes until it recovers; row 'Objectives' shows what burns it.",
            queries=(now(left(ERRORS, ERROR_BUDGET)),),
            unit=Unit.RATIO,
            thresholds=falling(0, 0.25),
            runbook=("GatewayErrorBudgetBurnSlow",),
        ),
    ),
)
