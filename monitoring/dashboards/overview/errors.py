"""What goes wrong, who is refused, and how the upstreams fare."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph, Timeline
from monitoring.dashboards.promql import or_zero, per_second
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import UP_OR_DOWN, Colour, Unit, Word
from monitoring.dashboards.selectors import (
    GATEWAY_IS_THERE,
    gateway,
    of_call,
    of_model,
    of_upstream,
)

CIRCUIT: Final = (
    Word(0, "closed", Colour.GOOD),
    Word(1, "half open", Colour.WARNING),
    Word(2, "open", Colour.BAD),
)

ERRORS: Final = Row(
    "Errors and refusals",
    (
        Graph(
            title="Is anyone being refused?",
            shows="Requests per second refused by a limit: rate per address or key, concurrency, "
            "daily quota, capacity.",
            when_bad="capacity: the service is too small. quota and rate: one key asks for more "
            "than it may; 'Keys and quotas' names it.",
            queries=(
                Metric(per_second("gateway_refusals_total", gateway(), by=("limit",)), "{{limit}}"),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            is_stacked=True,
            empty="Nobody",
            runbook=("GatewayShedding", "KeyNearQuota"),
        ),
        Graph(
            title="What goes wrong?",
            shows="Answers per second that are not a model's, by error code.",
            when_bad="upstream_* and bad_gateway: vLLM. invalid_api_key in numbers: somebody "
            "guesses. internal_error: ours; the log has the traceback.",
            queries=(
                Metric(per_second("gateway_errors_total", gateway(), by=("code",)), "{{code}}"),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            is_stacked=True,
            empty="Nothing",
            runbook=("GatewayErrorBudgetBurnFast", "AuthFailureSpike"),
        ),
        Graph(
            title="Which upstream fails, and how?",
            shows="Failed attempts per second by upstream and kind, those that a failover saved "
            "included.",
            when_bad="connect: vLLM is down. timeout: it hangs or is overloaded. status_5xx, "
            "error_event: its log tells. misconfigured: our key or model does not suit it.",
            queries=(
                Metric(
                    # Every kind is born at zero: only those that happen get a line.
                    per_second(
                        "gateway_upstream_errors_total", of_upstream(), by=("upstream", "kind")
                    )
                    + " > 0",
                    "{{upstream}} {{kind}}",
                ),
            ),
            unit=Unit.EVENTS_PER_SECOND,
            is_stacked=True,
            empty="None",
            runbook=("CircuitBreakerOpen", "VllmEngineErrors"),
        ),
        Timeline(
            title="Is a circuit open?",
            shows="The circuit breaker of each upstream over time. Open: no call is sent there.",
            when_bad="Open: that vLLM failed several times in a row. Changing often: it half "
            "works; take it out (drain) until it is repaired.",
            queries=(
                Metric(f"max by (upstream) (gateway_circuit_state{of_upstream()})", "{{upstream}}"),
            ),
            unit=Unit.NUMBER,
            words=CIRCUIT,
            empty="No upstream",
            runbook=("CircuitBreakerOpen", "CircuitBreakerFlapping"),
        ),
        Timeline(
            title="Which upstreams are healthy?",
            shows="What the health prober of the gateway sees of each upstream.",
            when_bad="Down while vLLM's process runs: it still loads, or its engine died; its log "
            "tells.",
            queries=(
                Metric(
                    f"min by (upstream) (gateway_upstream_healthy{of_upstream()})", "{{upstream}}"
                ),
            ),
            unit=Unit.NUMBER,
            words=UP_OR_DOWN,
            empty="No upstream",
            runbook=("UpstreamUnhealthy", "CircuitBreakerOpen"),
        ),
        Graph(
            title="Do failovers save requests?",
            shows="Calls per second moved on to another upstream before the client saw a byte, and "
            "changes of circuits' states.",
            when_bad="Clients see nothing of these, yet a constant rate means a sick upstream.",
            queries=(
                Metric(
                    or_zero(
                        per_second("gateway_failovers_total", of_model()), beside=GATEWAY_IS_THERE
                    ),
                    "failovers",
                ),
                Metric(
                    per_second("gateway_circuit_transitions_total", of_upstream(), by=("to",)),
                    "circuit to {{to}}",
                ),
            ),
            unit=Unit.EVENTS_PER_SECOND,
            empty="None",
            runbook=("CircuitBreakerFlapping",),
        ),
        Graph(
            title="Do clients leave early?",
            shows="Requests per second whose client left, answers cut short, and generations "
            "aborted at vLLM for it. vLLM itself counts no such departure.",
            when_bad="Rising with late first tokens: people give up. Truncated alone: vLLM dies in "
            "the middle of answers.",
            queries=(
                Metric(
                    or_zero(
                        per_second("gateway_requests_total", of_call('outcome="cancelled"')),
                        beside=GATEWAY_IS_THERE,
                    ),
                    "cancelled by the client",
                ),
                Metric(
                    or_zero(
                        per_second("gateway_requests_total", of_call('outcome="truncated"')),
                        beside=GATEWAY_IS_THERE,
                    ),
                    "truncated by vLLM",
                ),
                Metric(
                    or_zero(
                        per_second("gateway_upstream_aborts_total", of_upstream()),
                        beside=GATEWAY_IS_THERE,
                    ),
                    "aborted at vLLM",
                ),
            ),
            unit=Unit.EVENTS_PER_SECOND,
            empty="No gateway",
            width=12,
            runbook=("GatewayTTFTHigh",),
        ),
        Graph(
            title="Does anyone send what is no HTTP?",
            shows="Requests per second refused before any route because they are malformed, too "
            "large or too slow, by status.",
            when_bad="Scanners, or a client with a broken proxy. The proxy in front should keep "
            "them out.",
            queries=(
                Metric(
                    per_second("gateway_protocol_refusals_total", gateway(), by=("status",)),
                    "{{status}}",
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            empty="Nobody",
            width=12,
            runbook=("AuthFailureSpike",),
        ),
    ),
)
