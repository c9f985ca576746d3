"""Runs the gateway with a finer look at its event loop: every lag and its moment, to a file.

Beside each lag stands how much of it was the loop's own work; the rest is the machine's, which had
others to serve. What is in the gateway looks ten times a second and keeps no single value.

    python -m tests.benchmarks.lagging FILE -m gateway serve
"""

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Final

from gateway.telemetry import looplag

INTERVAL_SECONDS: Final = 0.002


class _Notes(looplag.LoopLag):
    """The gateway's own part, and beside its counts each observation as it was."""

    def __init__(self, seen: object, *, clock: object) -> None:
        super().__init__(self, clock=clock)  # type: ignore[arg-type]  # the two things it asks for
        self._worked_seconds = 0.0

    def observe(self, lag_seconds: float) -> None:
        worked_seconds = time.thread_time()
        own_seconds = min(lag_seconds, worked_seconds - self._worked_seconds)
        self._worked_seconds = worked_seconds
        NOTES.append((time.monotonic(), lag_seconds, own_seconds))


NOTES: Final[list[tuple[float, float, float]]] = []


def main() -> None:
    """Write what was noted when the gateway has ended."""
    out = Path(sys.argv[1])
    sys.argv = sys.argv[3:]
    looplag.INTERVAL_SECONDS = INTERVAL_SECONDS  # type: ignore[misc]  # final to everybody else
    looplag.LoopLag = _Notes  # type: ignore[misc]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        out.write_text(json.dumps(NOTES))


if __name__ == "__main__":
    main()
