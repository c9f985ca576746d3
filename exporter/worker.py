"""The worker process: the only one that calls the driver, so that it can be killed when it hangs.

It obeys orders on stdin and reports on stdout; see messages.py. When stdin ends, so does it, even
in the middle of a call that never returns: a driver call holds neither the GIL nor this thread.
"""

import argparse
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable
from queue import SimpleQueue
from typing import IO, Any

from exporter import messages
from exporter.source import Source, SourceUnavailable

XID_WAIT_SECONDS = 1.0
# A driver that cannot wait for events answers at once: do not ask it in a busy loop.
XID_PAUSE_SECONDS = 1.0


class Worker:
    """A source between two pipes."""

    def __init__(self, source: Source, *, orders: IO[bytes], reports: IO[bytes]) -> None:
        self._source = source
        self._orders = orders
        self._reports = reports
        self._lock = threading.Lock()
        self._to_collect: SimpleQueue[Iterable[dict[str, Any]]] = SimpleQueue()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._source.open()
            self._report(messages.OPENED)
            threading.Thread(target=self._watch_xids, daemon=True).start()
            while True:
                self._source.suffer(messages.faults_in(self._to_collect.get()))
                self._report(messages.READING, messages.reading_out(self._source.read()))
        except SourceUnavailable as error:
            self._report(messages.UNAVAILABLE, messages.unavailable_out(error))
        except Exception:  # the top of the process: a fault of ours says nothing about the GPUs
            traceback.print_exc()

    def _listen(self) -> None:
        for raw in self._orders:
            kind, body = messages.parsed(raw)
            if kind == messages.COLLECT:
                self._to_collect.put(body)
            elif kind == messages.WHERE:
                self._report(messages.ACTIVITY, self._source.activity)
        os._exit(0)

    def _watch_xids(self) -> None:
        while True:
            began = time.monotonic()
            events = self._source.wait_for_xids(seconds=XID_WAIT_SECONDS)
            for event in events:
                self._report(messages.XID, messages.xid_out(event))
            has_waited = time.monotonic() - began > XID_WAIT_SECONDS / 2
            if not events and not has_waited:
                time.sleep(XID_PAUSE_SECONDS)

    def _report(self, kind: str, body: object = None) -> None:
        with self._lock:
            try:
                self._reports.write(messages.line(kind, body))
                self._reports.flush()
            except BrokenPipeError:
                os._exit(0)


def main() -> None:
    """`python -m exporter.worker`, started by the exporter and by nobody else."""
    line = argparse.ArgumentParser()
    line.add_argument("--simulate", type=int, default=0)
    line.add_argument("--since", type=float, default=0.0)
    line.add_argument("--processes", action="store_true")
    line.add_argument("--pcie", action="store_true")
    options = line.parse_args()
    # A driver that prints must not write between our lines.
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = _source(options)
    Worker(source, orders=sys.stdin.buffer, reports=reports).run()
    # Without Python's own ending: the listening thread may sit in a read, a driver in its lock.
    os._exit(0)


def _source(options: argparse.Namespace) -> Source:
    # Each source knows vendors or tables that the other has no use for.
    if options.simulate:
        from exporter.simulated.source import SimulatedSource  # noqa: PLC0415  see above

        return SimulatedSource(count=options.simulate, since_seconds=options.since)
    from exporter.nvml.source import NvmlSource  # noqa: PLC0415  see above

    return NvmlSource(wants_processes=options.processes, wants_pcie=options.pcie)


if __name__ == "__main__":
    main()
