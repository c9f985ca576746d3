"""Where the time of a request goes, as vLLM itself sees it."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.promql import matching, mean
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit, limit
from monitoring.dashboards.selectors import engine, percentiles

_GATEWAY_FIRST: Final = mean(
    "gateway_time_to_first_token_seconds", matching('model=~"$model"'), by=("model",)
)
_ENGINE_FIRST: Final = mean("vllm:time_to_first_token_seconds", engine(), by=("model_name",))
# vLLM calls `model_name` what the gateway calls `model`.
_DIFFERENCE: Final = (
    f"({_GATEWAY_FIRST}) - on (model) "
    f'label_replace({_ENGINE_FIRST}, "model", "$1", "model_name", "(.*)")'
)


def _phase(name: str, legend: str) -> Metric:
    return Metric(mean(f"vllm:request_{name}_time_seconds", engine()), legend)


LATENCY: Final = Row(
    "Latency",
    (
        Graph(
            title="When does the first token come?",
            shows="Time to first token inside vLLM, from arrival at its API server.",
            when_bad="Compare with 'Where does a request spend its time?': queue means capacity, "
            "prefill means long prompts.",
            queries=percentiles("vllm:time_to_first_token_seconds", engine()),
            unit=Unit.SECONDS,
            thresholds=limit(2.5),
            runbook=("GatewayTTFTHigh",),
        ),
        Graph(
            title="Do tokens flow evenly?",
            shows="Time between two outputs of the engine for a running sequence. With speculative "
            "decoding one output holds several tokens.",
            when_bad="p99 far above p50: long prefills or preemptions push in between; lower "
            "--max-num-batched-tokens to smooth.",
            queries=percentiles("vllm:inter_token_latency_seconds", engine()),
            unit=Unit.SECONDS,
            thresholds=limit(0.2),
            runbook=("InterTokenLatencyHigh",),
        ),
        Graph(
            title="How long does a token take?",
            shows="Time per output token of finished requests. Answers of a single token count as "
            "zero.",
            when_bad="Rising with the number running: the batch is too large for the promise.",
            queries=percentiles("vllm:request_time_per_output_token_seconds", engine()),
            unit=Unit.SECONDS,
            thresholds=limit(0.1),
            runbook=("InterTokenLatencyHigh",),
        ),
        Graph(
            title="Where does a request spend its time?",
            shows="Mean time of a finished request in queue, prefill and decode, one upon the "
            "other.",
            when_bad="Queue grows: capacity. Prefill grows: longer prompts or fewer cache hits. "
            "Decode grows: longer answers or a fuller batch.",
            queries=(
                _phase("queue", "queue"),
                _phase("prefill", "prefill"),
                _phase("decode", "decode"),
            ),
            unit=Unit.SECONDS,
            is_stacked=True,
            runbook=("VllmQueueGrowing", "GatewayTTFTHigh"),
        ),
        Graph(
            title="How long does a request take?",
            shows="From arrival to the last token, inside vLLM. It depends mostly on the length of "
            "answers.",
            when_bad="Only together with time per token: long answers are no fault.",
            queries=percentiles("vllm:e2e_request_latency_seconds", engine()),
            unit=Unit.SECONDS,
        ),
        Graph(
            title="What does the way to vLLM cost?",
            shows="Mean time to first token at the gateway less the same inside vLLM: network, the "
            "gateway's queue, its own work. The gateway measures streams, vLLM every request, so "
            "a mix of both shifts it a little.",
            when_bad="Tens of milliseconds: look at the gateway's queue and event loop. Negative: "
            "unstreamed requests with long prompts are in vLLM's mean.",
            queries=(Metric(_DIFFERENCE, "{{model}}"),),
            unit=Unit.SECONDS,
            thresholds=limit(0.1),
            least=None,
            runbook=("GatewayEventLoopLag", "GatewayShedding"),
        ),
    ),
)
