"""What clients ask for, how it ends, and how the engine is set up."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph, Heatmap, Timeline
from monitoring.dashboards.promql import growth, per_second, share
from monitoring.dashboards.queries import Metric, Shape
from monitoring.dashboards.scales import Colour, Unit, Word
from monitoring.dashboards.selectors import cells, engine, percentiles
from monitoring.dashboards.tables import Column, Table

_FINISHED: Final = "vllm:request_success_total"
_SERVER: Final = '{job="vllm",instance=~"$vllm"}'

WORKLOAD: Final = Row(
    "Workload",
    (
        Graph(
            title="How long are prompts?",
            shows="Prompt tokens of finished requests.",
            when_bad="Longer than usual explains late first tokens and a full KV cache.",
            queries=percentiles("vllm:request_prompt_tokens", engine()),
            unit=Unit.NUMBER,
        ),
        Graph(
            title="How long are answers?",
            shows="Generated tokens of finished requests.",
            when_bad="Longer answers hold their place longer: the same traffic needs more room.",
            queries=percentiles("vllm:request_generation_tokens", engine()),
            unit=Unit.NUMBER,
        ),
        Heatmap(
            title="Which lengths are common?",
            shows="How many finished requests fell into each bucket of generated tokens.",
            when_bad="A hot line at one length: a max_tokens that cuts answers off.",
            queries=(
                Metric(
                    growth("vllm:request_generation_tokens_bucket", engine(), by=("le",)),
                    "{{le}}",
                    shape=Shape.HEATMAP,
                ),
            ),
            unit=Unit.NUMBER,
        ),
        Graph(
            title="How do answers end?",
            shows="Share of finished requests by reason: stop, length (cut by max_tokens), abort, "
            "error, repetition. Aborts by the API server are not counted here: see 'Do clients "
            "leave early?' on the overview.",
            when_bad="error above 1 %: the engine fails, read its log. length: clients ask for too "
            "little.",
            queries=(
                Metric(
                    f"{per_second(_FINISHED, engine(), by=('finished_reason',))} / "
                    f"on () group_left () ({per_second(_FINISHED, engine())} > 0)",
                    "{{finished_reason}}",
                ),
            ),
            unit=Unit.RATIO,
            is_stacked=True,
            most=1,
            runbook=("VllmEngineErrors",),
        ),
        Graph(
            title="How much do clients allow?",
            shows="max_tokens as asked for. The quota reserves it before the answer is known.",
            when_bad="Far above the length of answers: keys look fuller than they are.",
            queries=percentiles("vllm:request_params_max_tokens", engine(), levels=(50, 95)),
            unit=Unit.NUMBER,
            runbook=("KeyNearQuota",),
        ),
        Graph(
            title="Does vLLM answer with errors?",
            shows="HTTP answers per second by class of status, at vLLM's own door. Errors after a "
            "stream has begun are not among them.",
            when_bad="5xx: the engine is in trouble. 4xx: requests that the gateway lets through "
            "and vLLM does not like.",
            queries=(
                Metric(per_second("http_requests_total", _SERVER, by=("status",)), "{{status}}"),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            is_stacked=True,
            runbook=("VllmEngineErrors",),
        ),
        Graph(
            title="Do draft tokens pay?",
            shows="Share of drafted tokens that the model accepted, with speculative decoding.",
            when_bad="Below a third it costs more than it gives: draft fewer tokens or none.",
            queries=(
                Metric(
                    share(
                        per_second(
                            "vllm:spec_decode_num_accepted_tokens_total",
                            engine(),
                            by=("model_name",),
                        ),
                        per_second(
                            "vllm:spec_decode_num_draft_tokens_total", engine(), by=("model_name",)
                        ),
                    ),
                    "{{model_name}}",
                ),
            ),
            unit=Unit.RATIO,
            most=1,
            empty="No speculative decoding",
            runbook=("InterTokenLatencyHigh",),
        ),
        Timeline(
            title="Is the engine awake?",
            shows="The sleep state of each engine: awake, weights offloaded, everything discarded.",
            when_bad="Asleep while requests come: nobody wakes it, POST /wake_up on its own port.",
            queries=(
                Metric(
                    f"max by (instance, engine, sleep_state) (vllm:engine_sleep_state{engine()})",
                    "{{instance}} {{engine}} {{sleep_state}}",
                ),
            ),
            unit=Unit.NUMBER,
            words=(Word(0, "no", Colour.QUIET), Word(1, "yes", Colour.PLAIN)),
            empty="Not told by this vLLM",
            runbook=("VllmStalled",),
        ),
        Table(
            title="How is the cache set up?",
            shows="The engine's cache settings as vLLM reports them.",
            when_bad="Few GPU blocks: the model leaves little memory; --gpu-memory-utilization, "
            "--max-model-len and the KV cache's type decide.",
            queries=(
                cells(
                    "max by (instance, engine, num_gpu_blocks, block_size, cache_dtype, "
                    "gpu_memory_utilization, enable_prefix_caching) "
                    '(vllm:cache_config_info{instance=~"$vllm"})'
                ),
            ),
            columns=(
                Column("instance", "vLLM"),
                Column("engine", "Engine"),
                Column("num_gpu_blocks", "GPU blocks"),
                Column("block_size", "Tokens per block"),
                Column("cache_dtype", "Type"),
                Column("gpu_memory_utilization", "Memory share"),
                Column("enable_prefix_caching", "Prefix cache"),
            ),
            unit=Unit.TEXT,
            empty="Not told by this vLLM",
            runbook=("VllmKvCacheHigh",),
            width=8,
        ),
    ),
)
