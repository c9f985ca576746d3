"""The counters of the simulator under vLLM's metric names, in Prometheus' text format.

Written by hand because client_python spells colon names two ways once a scraper asks for
OpenMetrics; vLLM itself always answers text format 0.0.4.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from scripts.simulator.histograms import (
    INTER_TOKEN_BOUNDS,
    LATENCY_BOUNDS,
    LENGTH_BOUNDS,
    STEP_BOUNDS,
    TTFT_BOUNDS,
    Histogram,
)
from scripts.simulator.work import Work

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")


@dataclass(slots=True)
class ModelMetrics:
    """What one served model has done; counters only ever grow."""

    prompt_tokens: int = 0
    prompt_tokens_cached: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    finished: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINISHED_REASONS, 0))
    time_to_first_token: Histogram = field(default_factory=lambda: Histogram(TTFT_BOUNDS))
    inter_token_latency: Histogram = field(default_factory=lambda: Histogram(INTER_TOKEN_BOUNDS))
    e2e_latency: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))
    queue_time: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))
    prefill_time: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))
    decode_time: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS))
    time_per_output_token: Histogram = field(default_factory=lambda: Histogram(INTER_TOKEN_BOUNDS))
    prompt_lengths: Histogram = field(default_factory=lambda: Histogram(LENGTH_BOUNDS))
    computed_lengths: Histogram = field(default_factory=lambda: Histogram(LENGTH_BOUNDS))
    output_lengths: Histogram = field(default_factory=lambda: Histogram(LENGTH_BOUNDS))
    max_tokens: Histogram = field(default_factory=lambda: Histogram(LENGTH_BOUNDS))
    step_tokens: Histogram = field(default_factory=lambda: Histogram(STEP_BOUNDS))

    def observe_finished(
        self,
        work: Work,
        *,
        cached_tokens: int,
        arrived: float,
        started: float,
        prefilled: float,
        now: float,
    ) -> None:
        """One request that ran to its end, by the moments of its life; each sequence counts."""
        lengths = [len(choice.pieces) for choice in work.choices] or [0] * len(work.prompts)
        decode_seconds = now - prefilled
        for length in lengths:
            self.e2e_latency.observe(now - arrived)
            self.prefill_time.observe(prefilled - started)
            self.decode_time.observe(decode_seconds)
            # As in vLLM: no time for an answer of one token.
            self.time_per_output_token.observe(decode_seconds / (length - 1) if length > 1 else 0)
            self.output_lengths.observe(length)
            self.prompt_lengths.observe(work.prompt_tokens)
            self.computed_lengths.observe(work.prompt_tokens - cached_tokens)
            self.max_tokens.observe(work.max_tokens or length)


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What one served model is doing right now, in sequences; cache usage is 0 to 1."""

    running: int
    waiting: int
    kv_cache_usage: float


def exposition(models: Iterable[tuple[str, ModelMetrics, ModelLoad]]) -> bytes:
    """Every family once, each with one series or set of buckets per model."""
    served = [(_escaped(name), known, load) for name, known, load in models]
    rows = [(f'engine="0",model_name="{name}"', known, load) for name, known, load in served]
    out: list[str] = []

    def family(name: str, kind: str, text: str, lines: Iterable[str]) -> None:
        out.extend((f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}", *lines))

    for name, text, read in _GAUGES:
        family(name, "gauge", text, (f"vllm:{name}{{{at}}} {read(b)}" for at, _, b in rows))
    for name, text, count in _COUNTERS:
        family(name, "counter", text, (f"vllm:{name}{{{at}}} {count(a)}.0" for at, a, _ in rows))
    family("request_success_total", "counter", _SUCCESS_HELP, _success_lines(served))
    for name, kind, text, label, values in _LABELLED:
        lines = (
            f'vllm:{name}{{{at},{label}="{value}"}} {read(a, b)}.0'
            for at, a, b in rows
            for value, read in values
        )
        family(name, kind, text, lines)
    family("cache_config_info", "gauge", "Settings of the KV cache.", [_CACHE])
    for name, text, histogram in _HISTOGRAMS:
        lines = (line for at, a, _ in rows for line in histogram(a).lines(f"vllm:{name}", at))
        family(name, "histogram", text, lines)
    return ("\n".join(out) + "\n").encode()


def _success_lines(rows: Iterable[tuple[str, ModelMetrics, ModelLoad]]) -> Iterator[str]:
    for name, metrics, _ in rows:
        for reason, count in metrics.finished.items():
            at = f'engine="0",finished_reason="{reason}",model_name="{name}"'
            yield f"vllm:request_success_total{{{at}}} {count}.0"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


_SUCCESS_HELP = "Count of successfully processed requests."
# The defaults of SimulatorConfig, in vLLM's spelling: 1,000,000 tokens in blocks of 16.
_CACHE = (
    'vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",'
    'engine="0",gpu_memory_utilization="0.9",num_gpu_blocks="62500"} 1.0'
)
# What the simulator never does stays at zero.
_Read = Callable[[ModelMetrics, ModelLoad], int]
_LABELLED: tuple[tuple[str, str, str, str, tuple[tuple[str, _Read], ...]], ...] = (
    (
        "num_requests_waiting_by_reason",
        "gauge",
        "Number of waiting requests by reason.",
        "reason",
        (("capacity", lambda _, load: load.waiting), ("deferred", lambda *_: 0)),
    ),
    (
        "engine_sleep_state",
        "gauge",
        "Engine sleep state.",
        "sleep_state",
        (
            ("awake", lambda *_: 1),
            ("weights_offloaded", lambda *_: 0),
            ("discard_all", lambda *_: 0),
        ),
    ),
    (
        "prompt_tokens_by_source_total",
        "counter",
        "Number of prompt tokens by source.",
        "source",
        (
            ("local_compute", lambda known, _: known.prompt_tokens - known.prompt_tokens_cached),
            ("local_cache_hit", lambda known, _: known.prompt_tokens_cached),
            ("external_kv_transfer", lambda *_: 0),
        ),
    ),
    (
        "admission_rejections_total",
        "counter",
        "Number of requests rejected at admission.",
        "reason",
        (("max_num_queued_reqs", lambda *_: 0), ("max_num_queued_tokens", lambda *_: 0)),
    ),
)
_GAUGES: tuple[tuple[str, str, Callable[[ModelLoad], float]], ...] = (
    (
        "num_requests_running",
        "Number of requests in model execution batches.",
        lambda load: float(load.running),
    ),
    (
        "num_requests_waiting",
        "Number of requests waiting to be processed.",
        lambda load: float(load.waiting),
    ),
    (
        "kv_cache_usage_perc",
        "KV-cache usage. 1 means 100 percent usage.",
        lambda load: load.kv_cache_usage,
    ),
)
_COUNTERS: tuple[tuple[str, str, Callable[[ModelMetrics], int]], ...] = (
    (
        "prefix_cache_queries_total",
        "Prefix cache queries, in terms of number of queried tokens.",
        lambda metrics: metrics.prefix_queries,
    ),
    (
        "prefix_cache_hits_total",
        "Prefix cache hits, in terms of number of cached tokens.",
        lambda metrics: metrics.prefix_hits,
    ),
    (
        "num_preemptions_total",
        "Cumulative number of preemption from the engine.",
        lambda metrics: metrics.preemptions,
    ),
    (
        "prompt_tokens_total",
        "Number of prefill tokens processed.",
        lambda metrics: metrics.prompt_tokens,
    ),
    (
        "prompt_tokens_cached_total",
        "Number of cached prompt tokens.",
        lambda metrics: metrics.prompt_tokens_cached,
    ),
    (
        "generation_tokens_total",
        "Number of generation tokens processed.",
        lambda metrics: metrics.generation_tokens,
    ),
)
_HISTOGRAMS: tuple[tuple[str, str, Callable[[ModelMetrics], Histogram]], ...] = (
    (
        "time_to_first_token_seconds",
        "Histogram of time to first token in seconds.",
        lambda metrics: metrics.time_to_first_token,
    ),
    (
        "inter_token_latency_seconds",
        "Histogram of inter-token latency in seconds.",
        lambda metrics: metrics.inter_token_latency,
    ),
    (
        "e2e_request_latency_seconds",
        "Histogram of e2e request latency in seconds.",
        lambda metrics: metrics.e2e_latency,
    ),
    (
        "request_queue_time_seconds",
        "Histogram of time spent in WAITING phase for request.",
        lambda metrics: metrics.queue_time,
    ),
    (
        "request_prefill_time_seconds",
        "Histogram of time spent in PREFILL phase for request.",
        lambda metrics: metrics.prefill_time,
    ),
    (
        "request_decode_time_seconds",
        "Histogram of time spent in DECODE phase for request.",
        lambda metrics: metrics.decode_time,
    ),
    (
        "request_time_per_output_token_seconds",
        "Histogram of time per output token of a request.",
        lambda metrics: metrics.time_per_output_token,
    ),
    (
        "request_prompt_tokens",
        "Number of prefill tokens processed.",
        lambda metrics: metrics.prompt_lengths,
    ),
    (
        "request_prefill_kv_computed_tokens",
        "Histogram of prompt tokens computed anew.",
        lambda metrics: metrics.computed_lengths,
    ),
    (
        "request_generation_tokens",
        "Number of generation tokens processed.",
        lambda metrics: metrics.output_lengths,
    ),
    (
        "request_params_max_tokens",
        "Histogram of the max_tokens request parameter.",
        lambda metrics: metrics.max_tokens,
    ),
    (
        "iteration_tokens_total",
        "Histogram of number of tokens per engine_step.",
        lambda metrics: metrics.step_tokens,
    ),
)
