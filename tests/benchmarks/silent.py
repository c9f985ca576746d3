"""Runs the gateway with nobody watching: no metric counted, no span, no line for a request.

No setting does that, since nobody should run a gateway blind; it is what telemetry is weighed
against. Keys, limits, quota and breaker work as always.

    python -m tests.benchmarks.silent -m gateway serve
"""

import runpy
import sys
from contextlib import AbstractContextManager, nullcontext

from gateway.exchange import Exchange
from gateway.relay import NobodyWatches
from gateway.telemetry import looplag, recorder, streams


def main() -> None:
    """Take the watchers away, then become the gateway."""
    sys.argv = sys.argv[2:]
    recorder.Recorder.record = _unrecorded  # type: ignore[method-assign,assignment]
    streams.StreamTallies.follow = NobodyWatches.follow  # type: ignore[method-assign,assignment]
    looplag.LoopLag = _NoLook  # type: ignore[misc,assignment]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _unrecorded(_: recorder.Recorder, exchange: Exchange) -> AbstractContextManager[None]:
    return _NOTHING


class _NoLook(nullcontext[None]):
    """In the place of LoopLag: looks at nothing."""

    def __init__(self, seen: object, *, clock: object) -> None:
        super().__init__()


_NOTHING = nullcontext()


if __name__ == "__main__":
    main()
