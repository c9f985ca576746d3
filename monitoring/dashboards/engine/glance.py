"""vLLM in eight tiles."""

from typing import Final

from monitoring.dashboards.layout import Row
from monitoring.dashboards.panels import Tile
from monitoring.dashboards.promql import per_second, share
from monitoring.dashboards.scales import NEUTRAL, Unit, demanded, rising
from monitoring.dashboards.selectors import engine, now

# vLLM's own dashboards colour the KV cache so; 85 % for minutes is our warning.
KV: Final = rising(0.85, 0.95)
KV_USAGE: Final = 'max by (model_name) (model_name:vllm_kv_cache_usage:max{model_name=~"$model"})'
PREFIX_HITS: Final = share(
    per_second("vllm:prefix_cache_hits_total", engine(), by=("model_name",)),
    per_second("vllm:prefix_cache_queries_total", engine(), by=("model_name",)),
)

GLANCE: Final = Row(
    "At a glance",
    (
        Tile(
            title="Which share of vLLM is up?",
            shows="Share of the chosen vLLM servers that answer Prometheus.",
            when_bad="A vLLM that is down has no metrics: the panels below are empty, not fine.",
            queries=(now('avg(up{job="vllm",instance=~"$vllm"})'),),
            unit=Unit.RATIO,
            thresholds=demanded(1),
            empty="No vLLM",
            runbook=("TargetDown",),
            width=6,
        ),
        Tile(
            title="How many run?",
            shows="Sequences in the current batch.",
            when_bad="At --max-num-seqs the batch is full: new ones wait.",
            queries=(now(f"sum(vllm:num_requests_running{engine()})"),),
            unit=Unit.NUMBER,
            thresholds=NEUTRAL,
            empty="No vLLM",
            width=6,
        ),
        Tile(
            title="How many wait?",
            shows="Sequences that wait for a place in the batch or for KV cache.",
            when_bad="'Why do they wait?' tells whether memory or an outside fetch is missing.",
            queries=(now(f"sum(vllm:num_requests_waiting{engine()})"),),
            unit=Unit.NUMBER,
            thresholds=rising(5, 50),
            empty="No vLLM",
            runbook=("VllmQueueGrowing",),
            width=6,
        ),
        Tile(
            title="How full is the KV cache?",
            shows="The fullest engine. Cached blocks that may be evicted count as free.",
            when_bad="Near 100 % under load is normal; with preemptions or waiting it is not.",
            queries=(now(f"max({KV_USAGE})"),),
            unit=Unit.RATIO,
            thresholds=KV,
            empty="No vLLM",
            runbook=("VllmKvCacheHigh", "VllmKvCacheSaturated"),
            width=6,
        ),
        Tile(
            title="How much work is thrown away?",
            shows="Preemptions per second: a sequence lost its KV cache and will be computed "
            "again.",
            when_bad="Lower --max-num-seqs, or make room: shorter --max-model-len, fp8 KV cache, "
            "more GPUs.",
            queries=(now(per_second("vllm:num_preemptions_total", engine())),),
            unit=Unit.EVENTS_PER_SECOND,
            thresholds=rising(0.01, 0.1),
            empty="No vLLM",
            runbook=("VllmKvCacheSaturated",),
            width=6,
        ),
        Tile(
            title="How much do prompts repeat?",
            shows="Share of prompt tokens found in the prefix cache.",
            when_bad="Low although prompts share a beginning: something variable stands first in "
            "them, or requests of one conversation go to different upstreams.",
            queries=(now(f"avg({PREFIX_HITS})"),),
            unit=Unit.RATIO,
            thresholds=NEUTRAL,
            width=6,
        ),
        Tile(
            title="How fast are prompts read?",
            shows="Prompt tokens per second over 5 minutes.",
            when_bad="Falling while requests wait: the engine is stuck or throttled.",
            queries=(now('sum(model_name:vllm_prompt_tokens:rate5m{model_name=~"$model"})'),),
            unit=Unit.TOKENS_PER_SECOND,
            thresholds=NEUTRAL,
            empty="No vLLM",
            runbook=("VllmStalled",),
            width=6,
        ),
        Tile(
            title="How fast are answers written?",
            shows="Generated tokens per second over 5 minutes.",
            when_bad="Zero while requests run: the engine is stalled.",
            queries=(now('sum(model_name:vllm_generation_tokens:rate5m{model_name=~"$model"})'),),
            unit=Unit.TOKENS_PER_SECOND,
            thresholds=NEUTRAL,
            empty="No vLLM",
            runbook=("VllmStalled",),
            width=6,
        ),
    ),
)
