"""What the engine's scheduler is doing: batch, queue, steps, refusals."""

from typing import Final

from monitoring.dashboards.engine.glance import KV, KV_USAGE, PREFIX_HITS
from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Graph
from monitoring.dashboards.promql import or_zero, per_second, share
from monitoring.dashboards.queries import Metric
from monitoring.dashboards.scales import Unit, limit
from monitoring.dashboards.selectors import ENGINE_IS_THERE, engine, percentiles

_BY_MODEL: Final = ("model_name",)

SCHEDULER: Final = Row(
    "Scheduler",
    (
        Graph(
            title="How many run, how many wait?",
            shows="Sequences in the batch and in the queue of each vLLM.",
            when_bad="Running flat at --max-num-seqs with a growing queue: full. Running without "
            "tokens: stalled.",
            queries=(
                Metric(
                    f"sum by (instance, model_name) (vllm:num_requests_running{engine()})",
                    "{{instance}} {{model_name}} running",
                ),
                Metric(
                    f"sum by (instance, model_name) (vllm:num_requests_waiting{engine()})",
                    "{{instance}} {{model_name}} waiting",
                ),
            ),
            unit=Unit.NUMBER,
            empty="No vLLM",
            runbook=("VllmQueueGrowing", "VllmStalled"),
        ),
        Graph(
            title="Why do they wait?",
            shows="Waiting sequences by reason: capacity (no place or no KV cache), deferred (held "
            "back for a transfer, an adapter or a grammar).",
            when_bad="capacity with a full KV cache pages. deferred alone: look at what they wait "
            "for.",
            queries=(
                Metric(
                    f"sum by (reason) (vllm:num_requests_waiting_by_reason{engine()})",
                    "{{reason}}",
                ),
            ),
            unit=Unit.NUMBER,
            is_stacked=True,
            empty="Not told by this vLLM",
            runbook=("VllmQueueGrowing", "VllmKvCacheSaturated"),
        ),
        Graph(
            title="How long do they wait?",
            shows="Time in vLLM's queue. Its buckets begin at 0.3 s: below that it is a guess.",
            when_bad="Above 2 s with more than five waiting it alerts: add an upstream.",
            queries=percentiles("vllm:request_queue_time_seconds", engine()),
            unit=Unit.SECONDS,
            thresholds=limit(2),
            runbook=("VllmQueueGrowing",),
        ),
        Graph(
            title="How much work is in one engine step?",
            shows="Tokens computed per step of the engine, prompts and answers together.",
            when_bad="p99 at --max-num-batched-tokens: prompts are cut into chunks and wait. p50 "
            "near the number running: only decoding, there is room for more.",
            queries=percentiles("vllm:iteration_tokens_total", engine(), levels=(50, 99)),
            unit=Unit.NUMBER,
            runbook=("VllmQueueGrowing",),
        ),
        Graph(
            title="Does vLLM refuse requests itself?",
            shows="Requests per second that vLLM answered with 503 because of "
            "--max-num-queued-reqs or --max-num-queued-tokens. Off unless set.",
            when_bad="The gateway should refuse before vLLM does: lower MAX_IN_FLIGHT.",
            queries=(
                Metric(
                    or_zero(
                        per_second(
                            "vllm:admission_rejections_total",
                            '{instance=~"$vllm",model_name=~"$model"}',
                        ),
                        beside=ENGINE_IS_THERE,
                    ),
                    "refused",
                ),
            ),
            unit=Unit.REQUESTS_PER_SECOND,
            thresholds=limit(0.1),
            empty="No vLLM",
            runbook=("VllmRejecting",),
        ),
        Graph(
            title="How fast does it read and write?",
            shows="Prompt and generated tokens per second of each model.",
            when_bad="Both at zero while requests run: stalled, most likely between GPUs.",
            queries=(
                Metric(
                    per_second("vllm:prompt_tokens_total", engine(), by=_BY_MODEL),
                    "{{model_name}} prompt",
                ),
                Metric(
                    per_second("vllm:generation_tokens_total", engine(), by=_BY_MODEL),
                    "{{model_name}} generated",
                ),
            ),
            unit=Unit.TOKENS_PER_SECOND,
            empty="No vLLM",
            runbook=("VllmStalled",),
        ),
    ),
)

CACHE: Final = Row(
    "KV cache",
    (
        Graph(
            title="The KV cache has room",
            shows="Usage of the fullest engine of each model, 1 minus the free blocks.",
            when_bad="Above 85 % it warns. It pages only above 95 % with preemptions or sequences "
            "waiting for capacity.",
            queries=(Metric(KV_USAGE, "{{model_name}}"),),
            unit=Unit.RATIO,
            thresholds=KV,
            most=1,
            empty="No vLLM",
            runbook=("VllmKvCacheHigh", "VllmKvCacheSaturated"),
        ),
        Graph(
            title="No work is thrown away",
            shows="Preemptions per second: running sequences that had to give up their KV cache.",
            when_bad="Every one costs a whole prefill: fewer sequences at once, or more memory.",
            queries=(
                Metric(
                    per_second("vllm:num_preemptions_total", engine(), by=_BY_MODEL),
                    "{{model_name}}",
                ),
            ),
            unit=Unit.EVENTS_PER_SECOND,
            thresholds=limit(0.1),
            empty="No vLLM",
            runbook=("VllmKvCacheSaturated",),
        ),
        Graph(
            title="How much of the prompts is known already?",
            shows="Share of prompt tokens found in the prefix cache of the GPU, and in an external "
            "one if there is any.",
            when_bad="A fall makes first tokens late: prompts changed their beginning, or the "
            "cache is too small for all conversations.",
            queries=(
                Metric(PREFIX_HITS, "{{model_name}}"),
                Metric(
                    share(
                        per_second("vllm:external_prefix_cache_hits_total", engine(), by=_BY_MODEL),
                        per_second(
                            "vllm:external_prefix_cache_queries_total", engine(), by=_BY_MODEL
                        ),
                    ),
                    "{{model_name}} external",
                ),
            ),
            unit=Unit.RATIO,
            most=1,
            runbook=("GatewayTTFTHigh",),
        ),
        Graph(
            title="Where do prompt tokens come from?",
            shows="Prompt tokens per second: computed here, found in the cache, or fetched from "
            "elsewhere.",
            when_bad="Computed rising while prompts do not: the cache loses what it should keep.",
            queries=(
                Metric(
                    per_second("vllm:prompt_tokens_by_source_total", engine(), by=("source",)),
                    "{{source}}",
                ),
            ),
            unit=Unit.TOKENS_PER_SECOND,
            is_stacked=True,
            width=12,
            empty="Not told by this vLLM",
        ),
        Graph(
            title="How many prompt tokens must be computed?",
            shows="Prompt tokens of a request that were not in the cache.",
            when_bad="Near the whole length of prompts: the prefix cache does not help.",
            queries=percentiles(
                "vllm:request_prefill_kv_computed_tokens", engine(), levels=(50, 95)
            ),
            unit=Unit.NUMBER,
            width=12,
        ),
    ),
)
