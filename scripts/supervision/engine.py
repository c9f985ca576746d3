"""Tells an engine that hangs from one that works or rests, by what vLLM's own metrics do."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from scripts.supervision.probe import fetch, sum_of

_TOKENS = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:iteration_tokens_total_count",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """`work` only grows; `cache_usage` grows with every chunk of a long prompt."""

    requests: float
    work: float
    cache_usage: float


class Engine(Protocol):
    """What is behind a healthy /health."""

    def begin(self, now: float) -> None: ...
    def stalled_seconds(self, now: float) -> float:
        """How long it has had requests and done nothing; 0 if all is well."""


class NoEngine:
    """A program that has nothing behind its /health."""

    def begin(self, now: float) -> None:
        """Nothing is remembered."""

    def stalled_seconds(self, now: float) -> float:
        return 0.0


class VllmEngine:
    """vLLM's engine. Progress is a token, an engine step, or more of the KV cache filled.

    The last one is what a long prompt shows: vLLM counts its tokens only when all of it is read,
    but takes cache blocks chunk by chunk. `sample` raises OSError or ValueError when vLLM does
    not tell; that is for the health check to judge.
    """

    def __init__(self, sample: Callable[[], Sample]) -> None:
        self._sample = sample
        self.begin(0.0)

    def begin(self, now: float) -> None:
        self._last = Sample(0, 0, 0)
        self._progress_at = now

    def stalled_seconds(self, now: float) -> float:
        try:
            sample = self._sample()
        except (OSError, ValueError):
            return 0.0
        last, self._last = self._last, sample
        moved = sample.work != last.work or sample.cache_usage > last.cache_usage
        if moved or not sample.requests:
            self._progress_at = now
        return now - self._progress_at


def vllm_sample(*, vllm: str, gateway_metrics: str, upstreams: Collection[str]) -> Sample:
    """Read vLLM's metrics, and those of the gateway in front of it.

    An engine that hangs in its first step has not yet told its server that anything runs: then
    it is the gateway that knows of requests at this upstream.
    """
    text = fetch(f"{vllm}/metrics")
    running = sum_of(text, "vllm:num_requests_running") or 0.0
    return Sample(
        requests=running or _in_flight(gateway_metrics, upstreams),
        work=sum(sum_of(text, name) or 0.0 for name in _TOKENS),
        cache_usage=sum_of(text, "vllm:kv_cache_usage_perc") or 0.0,
    )


def _in_flight(gateway_metrics: str, upstreams: Collection[str]) -> float:
    try:
        text = fetch(gateway_metrics)
    except (OSError, ValueError):
        return 0.0
    name = "gateway_upstream_in_flight"
    return sum(sum_of(text, name, upstream=upstream) or 0.0 for upstream in upstreams)
