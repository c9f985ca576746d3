"""The counters of the simulator under vLLM's metric names, in Prometheus' text format.

Written by hand because client_python spells colon names two ways once a scraper asks for
OpenMetrics; vLLM itself always answers text format 0.0.4.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")

# Bounds of vLLM 0.32.
TTFT_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
INTER_TOKEN_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
LATENCY_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class Histogram:
    """A classic histogram: counts per bucket, a sum, a total."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value` as having been seen `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """The cumulative buckets, count and sum as exposition lines."""
        total = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}.0'
        yield f"{name}_count{{{labels}}} {total}.0"
        yield f"{name}_sum{{{labels}}} {self.sum}"


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
)
