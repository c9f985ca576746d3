"""The make-believe engine: seats, a waiting queue, a clock that yields tokens.

Everything here is decided synchronously on one event loop. A job is waiting, running or
gone; it leaves by finishing or by being aborted, and either way its seats are free at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.metrics import ModelLoad, ModelMetrics
from scripts.simulator.prefix_cache import PrefixCache
from scripts.simulator.work import Work

# Steps taken at one go when tokens cost no time; then others get their turn.
_BURST_STEPS = 256
# The share of the time to the first token that a fully cached prompt saves.
_CACHE_GAIN = 0.8


class Sink(Protocol):
    """Where a job's tokens go."""

    @property
    def paused(self) -> bool:
        """True while it can take no more; `Engine.resume` says when it can."""

    def advance(self, start: int, stop: int) -> None:
        """Engine steps `start` up to `stop` are done."""

    def finish(self, cached_tokens: int) -> None:
        """All steps are done."""


class Job:
    """One request in the engine."""

    __slots__ = (
        "arrived", "cached_tokens", "due", "prefilled", "sink", "started", "step", "timer", "work",
    )  # fmt: skip

    def __init__(self, work: Work, sink: Sink) -> None:
        self.work = work
        self.sink = sink
        self.arrived = 0.0
        self.started = 0.0
        self.prefilled = 0.0
        self.step = 0
        self.due = 0.0
        self.cached_tokens = 0
        self.timer: asyncio.Handle | None = None


class Engine:
    """Runs jobs at the configured pace and counts every token it makes."""

    def __init__(
        self, *, config: SimulatorConfig, loop: asyncio.AbstractEventLoop, random: Random
    ) -> None:
        self._config = config
        self._loop = loop
        self._random = random
        self._prefixes = PrefixCache(capacity_blocks=config.prefix_cache_blocks)
        self._running: dict[Job, None] = {}
        self._waiting: deque[Job] = deque()
        self._seats_taken = 0
        self._frozen = False
        self._stalled = False
        self._parked: dict[Job, Callable[[Job], None]] = {}
        self._admitting = False
        self.aborted = 0
        names = config.all_models
        self.metrics = {name: ModelMetrics() for name in names}

    @property
    def running(self) -> int:
        return self._seats_taken

    @property
    def waiting(self) -> int:
        return sum(job.work.seats for job in self._waiting)

    @property
    def kv_cache_usage(self) -> float:
        """Share of the KV cache held by running jobs, 1.0 while frozen."""
        if self._frozen:
            return 1.0
        held = sum(job.work.prompt_tokens + job.work.tokens_by(job.step) for job in self._running)
        return min(1.0, held / self._config.kv_cache_tokens)

    def load_of(self, model: str) -> ModelLoad:
        """What one model has in hand; the cache is shared by all."""
        return ModelLoad(
            running=sum(job.work.seats for job in self._running if job.work.model == model),
            waiting=sum(job.work.seats for job in self._waiting if job.work.model == model),
            kv_cache_usage=self.kv_cache_usage,
        )

    def configure(self, config: SimulatorConfig) -> None:
        """Take a new pace and new limits; jobs under way follow from their next token."""
        self._config = config
        self._admit()

    def freeze(self, *, frozen: bool) -> None:
        """While frozen nothing is admitted, as when the KV cache is full."""
        self._frozen = frozen
        self._admit()

    def stall(self, *, stalled: bool) -> None:
        """While stalled no token is made and nothing is admitted; the rest of the server is well.

        So hangs an engine whose GPUs wait for each other. Requests go on where they stood.
        """
        self._stalled = stalled
        if stalled:
            return
        parked, self._parked = self._parked, {}
        for job, go_on in parked.items():
            job.due = self._loop.time()
            job.timer = self._loop.call_soon(go_on, job)
        self._admit()

    def submit(self, job: Job) -> None:
        """Start the job, or let it wait for seats; with no delays it is done on return."""
        job.arrived = self._loop.time()
        self._waiting.append(job)
        self._admit()

    def resume(self, job: Job) -> None:
        """The sink can take more."""
        if job in self._running and job.timer is None and job not in self._parked:
            self._advance(job)

    def abort(self, job: Job) -> None:
        """The client is gone: not one token more. Does nothing to a finished job."""
        if job in self._running:
            self._leave(job)
        elif job in self._waiting:
            self._waiting.remove(job)
        else:
            return
        # vLLM keeps no finished-request statistics of an abort either.
        self.aborted += 1
        self._admit()

    def _has_seats(self, job: Job) -> bool:
        if self._frozen or self._stalled:
            return False
        # A request wider than the whole batch runs alone.
        fits = self._seats_taken + job.work.seats <= self._config.max_num_seqs
        return fits or not self._running

    def _admit(self) -> None:
        # A job without delays finishes inside _start and asks again: one loop serves all.
        if self._admitting:
            return
        self._admitting = True
        while self._waiting and self._has_seats(self._waiting[0]):
            self._start(self._waiting.popleft())
        self._admitting = False

    def _start(self, job: Job) -> None:
        self._running[job] = None
        self._seats_taken += job.work.seats
        metrics = self.metrics[job.work.model]
        for prompt in job.work.prompts:
            hits = self._prefixes.visit(prompt.block_keys, prompt.tokens)
            job.cached_tokens += hits
            metrics.prefix_queries += prompt.tokens
            metrics.prefix_hits += hits
        now = job.started = self._loop.time()
        metrics.queue_time.observe(now - job.arrived)
        wait = self._time_to_first_token(job)
        if wait <= 0:
            self._prefilled(job)
            return
        job.due = now + wait
        job.timer = self._loop.call_at(job.due, self._prefilled, job)

    def _time_to_first_token(self, job: Job) -> float:
        cached_ratio = job.cached_tokens / (job.work.prompt_tokens or 1)
        return self._jittered(self._config.ttft_seconds * (1 - _CACHE_GAIN * cached_ratio))

    def _prefilled(self, job: Job) -> None:
        job.timer = None
        if self._stalled:
            self._parked[job] = self._prefilled
            return
        now = job.prefilled = self._loop.time()
        job.due = job.due or now
        metrics = self.metrics[job.work.model]
        metrics.prompt_tokens += job.work.prompt_tokens
        metrics.prompt_tokens_cached += job.cached_tokens
        metrics.time_to_first_token.observe(now - job.arrived)
        metrics.step_tokens.observe(job.work.prompt_tokens - job.cached_tokens)
        self._advance(job)

    def _advance(self, job: Job) -> None:
        job.timer = None
        if self._stalled:
            self._parked[job] = self._advance
            return
        if job.sink.paused:
            return
        gap = self._jittered(self._config.inter_token_seconds)
        self._generate(job, job.step + (1 if gap > 0 else _BURST_STEPS), gap)
        if job not in self._running:
            return
        if job.step == job.work.steps:
            self._finish(job)
        elif gap > 0:
            # Due times follow each other, not the clock: a late tick is made up for.
            job.due += gap
            job.timer = self._loop.call_at(job.due, self._advance, job)
        elif not job.sink.paused:
            job.timer = self._loop.call_soon(self._advance, job)

    def _generate(self, job: Job, stop: int, gap: float) -> None:
        stop = min(stop, job.work.steps)
        if stop == job.step:
            return
        metrics = self.metrics[job.work.model]
        made = job.work.tokens_by(stop) - job.work.tokens_by(job.step)
        metrics.generation_tokens += made
        if intervals := stop - max(job.step, 1):
            metrics.inter_token_latency.observe(gap, intervals)
            # Jobs step on timers of their own: all that run stand for one step of a real engine.
            metrics.step_tokens.observe(self._seats_taken, intervals)
        start, job.step = job.step, stop
        job.sink.advance(start, stop)

    def _finish(self, job: Job) -> None:
        self._leave(job)
        metrics = self.metrics[job.work.model]
        now = self._loop.time()
        for reason in job.work.finish_reasons:
            metrics.finished[reason] += 1
        metrics.observe_finished(
            job.work,
            cached_tokens=job.cached_tokens,
            arrived=job.arrived,
            started=job.started,
            prefilled=job.prefilled,
            now=now,
        )
        job.sink.finish(job.cached_tokens)
        self._admit()

    def _leave(self, job: Job) -> None:
        del self._running[job]
        self._parked.pop(job, None)
        self._seats_taken -= job.work.seats
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None

    def _jittered(self, seconds: float) -> float:
        spread = self._config.jitter_ratio
        if not spread or not seconds:
            return seconds
        return seconds * (1 + spread * (2 * self._random.random() - 1))
