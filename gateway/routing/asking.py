"""One call to an upstream, from sending to its end, and what became of it."""

import asyncio
from types import TracebackType
from typing import Self

from gateway.clock import Clock
from gateway.errors import AnswerTooLarge, GatewayError, UpstreamTimeout
from gateway.exchange import Exchange


class Asking:
    """A block that notes on the exchange how long the upstream took, how it failed, and whether
    its answer was cut before its end.

    Use as `with Asking(...) as asking:`, and tell `hear_end` when the upstream has said all:
    what follows is not its time any more, and nothing that could be cut off.
    """

    __slots__ = ("_asked_at", "_clock", "_exchange", "_output_limit", "_path", "_upstream", "_url")

    def __init__(
        self,
        exchange: Exchange,
        upstream: str,
        *,
        url: str,
        path: str,
        output_limit: int | None = None,
        clock: Clock,
    ) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._url = url
        self._path = path
        self._output_limit = output_limit
        self._clock = clock

    def __enter__(self) -> Self:
        exchange = self._exchange
        self._asked_at = self._clock.monotonic()
        exchange.heard_at = None
        exchange.trace.begin_call(
            exchange,
            upstream=self._upstream,
            url=self._url,
            path=self._path,
            output_limit=self._output_limit,
            at=self._asked_at,
        )
        return self

    def hear_end(self) -> None:
        exchange = self._exchange
        if exchange.heard_at is None:
            exchange.heard_at = self._clock.monotonic()
            exchange.upstream_seconds += exchange.heard_at - self._asked_at

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        exchange = self._exchange
        if error is not None:
            self._note(error)
        if exchange.heard_at is None:
            ended_at = self._clock.monotonic()
            exchange.upstream_seconds += ended_at - self._asked_at
            exchange.trace.end_call(error, at=ended_at)
        else:
            # Who leaves when the upstream has said all has cut nothing off.
            fault = None if isinstance(error, asyncio.CancelledError) else error
            exchange.trace.end_call(fault, at=exchange.heard_at)

    def _note(self, error: BaseException) -> None:
        exchange = self._exchange
        if isinstance(error, GatewayError) and error.fault is not None:
            exchange.faults = (*exchange.faults, (self._upstream, error.fault))
        is_cut = isinstance(error, asyncio.CancelledError | UpstreamTimeout | AnswerTooLarge)
        if is_cut and exchange.heard_at is None:
            exchange.aborts = (*exchange.aborts, self._upstream)
