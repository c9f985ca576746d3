"""How long people wait, and how much of it is the gateway's doing."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph, Heatmap
from monitoring.dashboards.promql import growth, quantile
from monitoring.dashboards.queries import Metric, Shape
from monitoring.dashboards.scales import Unit, limit
from monitoring.dashboards.selectors import gateway, of_call, of_model, percentiles

LATENCY: Final = Row(
    "Latency",
    (
        Graph(
            title="First tokens come within 2.5 s",
            shows="Time from a request's head to its first content event. Each dot is a traced "
            "request: click it to see where its time went.",
            when_bad="Follow a dot above the line into its trace. Waiting before vLLM: add "
            "capacity. Waiting inside vLLM: its dashboard, row 'Scheduler'.",
            queries=percentiles(
                "gateway_time_to_first_token_seconds", of_call(), has_exemplars=True
            ),
            unit=Unit.SECONDS,
            thresholds=limit(2.5),
            runbook=("GatewayTTFTHigh", "GatewayTTFTBudgetBurn"),
        ),
        Heatmap(
            title="Where do first tokens land?",
            shows="How many first tokens fell into each bucket of time. Two bands mean two kinds "
            "of request, which a percentile would blur.",
            when_bad="A second band far above the first: cold prefixes, long prompts or one slow "
            "upstream; choose upstreams one by one at the top.",
            queries=(
                Metric(
                    growth("gateway_time_to_first_token_seconds_bucket", of_call(), by=("le",)),
                    "{{le}}",
                    shape=Shape.HEATMAP,
                ),
            ),
            unit=Unit.SECONDS,
            runbook=("GatewayTTFTHigh",),
        ),
        Graph(
            title="Which upstream is late with first tokens?",
            shows="95th percentile of the time to first token for each upstream and model.",
            when_bad="One upstream late, others not: look at its GPUs and its queue, or drain it.",
            queries=(
                Metric(
                    quantile(
                        0.95,
                        "gateway_time_to_first_token_seconds",
                        of_call(),
                        by=("model", "upstream"),
                    ),
                    "{{model}} {{upstream}}",
                ),
            ),
            unit=Unit.SECONDS,
            thresholds=limit(2.5),
            runbook=("GatewayTTFTHigh",),
        ),
        Graph(
            title="Tokens follow each other within 100 ms",
            shows="Time per output token of finished answers: generation time by number of tokens.",
            when_bad="Everybody reads slowly: fewer sequences at a time (--max-num-seqs), more "
            "GPUs, or a GPU that throttles.",
            queries=percentiles("gateway_time_per_output_token_seconds", of_model()),
            unit=Unit.SECONDS,
            thresholds=limit(0.1),
            runbook=("InterTokenLatencyHigh",),
        ),
        Graph(
            title="Does a stream ever pause?",
            shows="Time between two reads of a stream that carried events. With speculative "
            "decoding or --stream-interval an event holds several tokens.",
            when_bad="p99 far above p50: preemptions or long prefills interrupt running answers; "
            "see the vLLM dashboard.",
            queries=percentiles("gateway_inter_event_seconds", of_model()),
            unit=Unit.SECONDS,
            thresholds=limit(0.2),
            runbook=("InterTokenLatencyHigh",),
        ),
        Graph(
            title="How long does a whole answer take?",
            shows="95th percentile from a request's head to the answer's end, streamed and not. It "
            "depends mostly on the length of answers.",
            when_bad="Near FIRST_BYTE_TIMEOUT_SECONDS or ANSWER_TIMEOUT_SECONDS answers will be "
            "cut: ask clients to stream.",
            queries=(
                Metric(
                    quantile(
                        0.95,
                        "gateway_request_duration_seconds",
                        of_model('model!=""'),
                        by=("stream",),
                    ),
                    "stream={{stream}}",
                    has_exemplars=True,
                ),
            ),
            unit=Unit.SECONDS,
        ),
        Graph(
            title="The gateway adds less than 25 ms",
            shows="Time that was neither the queue, nor the client's upload, nor vLLM's: what the "
            "gateway itself costs.",
            when_bad="Look at event-loop lag and CPU below: one process uses one core; run more "
            "gateways behind a proxy.",
            queries=percentiles("gateway_overhead_seconds", gateway()),
            unit=Unit.SECONDS,
            thresholds=limit(0.025),
            width=12,
            runbook=("GatewayEventLoopLag",),
        ),
        Graph(
            title="Which route is slow in the gateway itself?",
            shows="99th percentile of the gateway's own time for each route.",
            when_bad="One route alone: very large bodies, or a disk that stalls the books.",
            queries=(
                Metric(
                    quantile(0.99, "gateway_overhead_seconds", gateway(), by=("route",)),
                    "{{route}}",
                ),
            ),
            unit=Unit.SECONDS,
            thresholds=limit(0.025),
            width=12,
            runbook=("GatewayEventLoopLag",),
        ),
    ),
)
