"""A slot at one upstream, taken and given back with what was learnt."""

from types import TracebackType
from typing import Self

from gateway.breaker import Permit
from gateway.errors import (
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.routing.upstream import Upstream


class Lease:
    """A slot at one upstream and its breaker's permit, given back on leaving the block.

    Leaving by an upstream's failure counts against it, as `judge` has it. All else without a
    verdict is neutral: the client left, or nothing was learnt.
    """

    __slots__ = ("_permit", "upstream")

    def __init__(self, upstream: Upstream, permit: Permit) -> None:
        self.upstream = upstream
        self._permit = permit
        upstream.in_flight += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.upstream.in_flight -= 1
        if error is not None:
            self.judge(error)
        self._permit.release()

    def begin_answer(self) -> None:
        """A sound answer has begun: a probe has made its point and need not last a whole stream."""
        if self._permit.is_probe:
            self._permit.succeed()

    def succeed(self) -> None:
        self._permit.succeed()

    def judge(self, error: BaseException) -> None:
        """Count against the upstream what is its failure. Neutral are a 4xx, which an engine
        that is dead can say too, and a wrong set-up, which no pause mends."""
        if isinstance(error, UpstreamMisconfigured):
            return
        if isinstance(error, UpstreamFailed | UpstreamTimeout | UpstreamUnavailable):
            self.fail()

    def fail(self) -> None:
        """The upstream failed this call, be it after a good beginning."""
        if not self._permit.fail():
            self.upstream.breaker.record_failure()
