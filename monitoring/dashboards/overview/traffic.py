"""Who asks for what, and how it ends."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.promql import per_second
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit
from monitoring.dashboards.selectors import of_model, of_traffic, of_upstream

TRAFFIC: Final = Row(
    "Traffic",
    (
        Graph(
            title="Who asks for what?",
            shows="Requests per second by route and model, without /metrics and health checks. A "
            "model that no upstream serves is left blank: clients cannot invent series.",
            when_bad="One route or model that outgrows all others: find its key on the dashboard "
            "'Keys and quotas'.",
            queries=(
                Metric(
                    per_second("gateway_requests_total", of_traffic(), by=("route", "model")),
                    "{{route}} {{model}}",
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            is_stacked=True,
        ),
        Graph(
            title="How do requests end?",
            shows="Requests per second by outcome: ok, client_error (their fault), rejected (a "
            "limit), error (ours or vLLM's), cancelled (the client left), truncated (cut short).",
            when_bad="error and truncated count against the objective; rejected is explained by "
            "'Is anyone being refused?'.",
            queries=(
                Metric(
                    per_second("gateway_requests_total", of_traffic(), by=("outcome",)),
                    "{{outcome}}",
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            is_stacked=True,
            runbook=("GatewayErrorBudgetBurnFast", "GatewayShedding"),
        ),
        Graph(
            title="Which status do clients see?",
            shows="Requests per second by class of HTTP status. A stream that breaks after its "
            "first byte is still a 2xx: its outcome tells.",
            when_bad="5xx: row 'Errors and refusals'. 4xx alone: a client sends what it should "
            "not; the log names its key.",
            queries=(
                Metric(
                    per_second("gateway_requests_total", of_traffic(), by=("status",)), "{{status}}"
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            is_stacked=True,
        ),
        Graph(
            title="How many tokens go in and out?",
            shows="Tokens per second charged to keys, prompts (input) and answers (output).",
            when_bad="Input far above its habit makes first tokens late; output falling under load "
            "means that the engine slows down.",
            queries=(
                Metric(
                    per_second("gateway_tokens_total", of_model(), by=("model", "type")),
                    "{{model}} {{type}}",
                ),
            ),
            unit=Unit.TOKENS_PER_SECOND,
            runbook=("VllmStalled",),
        ),
        Graph(
            title="Does every upstream carry its share?",
            shows="Calls in flight at each upstream.",
            when_bad="One line at zero: that upstream is unhealthy, draining or its circuit is "
            "open. One line far above: its answers are slow.",
            queries=(
                Metric(
                    f"sum by (upstream) (gateway_upstream_in_flight{of_upstream()})", "{{upstream}}"
                ),
            ),
            unit=Unit.NUMBER,
            empty="No upstream",
            runbook=("CircuitBreakerOpen",),
        ),
        Graph(
            title="How many streams are open?",
            shows="Streamed answers being written right now, and all requests being answered.",
            when_bad="Streams that only grow: clients that read slowly or never leave; "
            "WRITE_TIMEOUT_SECONDS ends those.",
            queries=(
                Metric('sum(gateway_streams_open{instance=~"$gateway"})', "streams"),
                Metric('sum(gateway_requests_in_flight{instance=~"$gateway"})', "requests"),
            ),
            unit=Unit.NUMBER,
            empty="No gateway",
        ),
    ),
)
