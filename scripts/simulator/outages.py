"""Faults that take the place of an answer altogether."""

from collections.abc import Callable

from scripts.simulator.errors import ApiError, engine_dead
from scripts.simulator.faults import Fault, FaultKind
from scripts.simulator.reply import Reply, nothing

_GARBAGE = b"<html><body><h1>It works!</h1></body></html>"
_DEFAULT_RETRY_AFTER_SECONDS = 1

Outage = Callable[[Reply, Fault], None]


class Outages:
    """Refuses, hangs, resets or dies; counts the requests it keeps hanging."""

    def __init__(self, *, die: Callable[[], None]) -> None:
        self.hanging = 0
        self._die = die
        self._by_kind: dict[FaultKind, Outage] = {
            FaultKind.ERROR_500: self._error_500,
            FaultKind.ERROR_503: self._error_503,
            FaultKind.ERROR_429: self._error_429,
            FaultKind.GARBAGE: self._garbage,
            FaultKind.HANG: self._hang,
            FaultKind.RESET: self._reset,
            FaultKind.DIE: self._die_now,
        }

    def befalls(self, reply: Reply, fault: Fault) -> bool:
        """True if this fault is all the answer there will be."""
        outage = self._by_kind.get(fault.kind)
        if outage is None:
            return False
        outage(reply, fault)
        return True

    def _error_500(self, reply: Reply, _fault: Fault) -> None:
        error = engine_dead()
        reply.send(error.status, error.body())

    def _error_503(self, reply: Reply, _fault: Fault) -> None:
        error = ApiError(503, "The model is overloaded.", "ServiceUnavailableError")
        reply.send(error.status, error.body())

    def _error_429(self, reply: Reply, fault: Fault) -> None:
        error = ApiError(429, "Too Many Requests", "Too Many Requests")
        seconds = int(fault.seconds) or _DEFAULT_RETRY_AFTER_SECONDS
        reply.send(error.status, error.body(), headers=b"retry-after: %d\r\n" % seconds)

    def _garbage(self, reply: Reply, _fault: Fault) -> None:
        reply.send(200, _GARBAGE, b"text/html; charset=utf-8")

    def _hang(self, reply: Reply, _fault: Fault) -> None:
        self.hanging += 1
        reply.on_disconnect = self._hang_over

    def _hang_over(self) -> None:
        self.hanging -= 1

    def _reset(self, reply: Reply, _fault: Fault) -> None:
        reply.on_disconnect = nothing
        reply.channel.reset(0)

    def _die_now(self, _reply: Reply, _fault: Fault) -> None:
        self._die()
