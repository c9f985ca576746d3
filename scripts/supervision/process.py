"""A running program: started by this watchdog, or by an earlier one and taken over."""

import asyncio
import os
import signal
import subprocess
import sys

from scripts.supervision.kernel import catches, start_time
from scripts.supervision.programs import SCRIPTS, Program
from scripts.supervision.record import Record, living

# It records its own pid and then becomes the program: were the watchdog killed in between,
# the next one would still find it.
_RECORDED = (sys.executable, str(SCRIPTS / "processes.py"), "run", "--supervised")


class RunningProcess:
    """Watched by a handle of the kernel, so that its end is noticed at once, adopted or not."""

    def __init__(self, record: Record, child: "subprocess.Popen[bytes] | None" = None) -> None:
        """Raises ProcessLookupError if it has ended already and is no child of ours."""
        self.record = record
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[int | None] = self._loop.create_future()
        self._handle = os.pidfd_open(record.pid)
        if child is None and not record.is_alive:
            os.close(self._handle)
            raise ProcessLookupError(record.pid)
        self._loop.add_reader(self._handle, self._ended)

    async def ended(self) -> int | None:
        """The exit code, negative for a signal; None if only its parent could know."""
        return await asyncio.shield(self._over)

    def send(self, number: signal.Signals) -> bool:
        """Whether it was sent: a program that has no handler for it (yet) is spared."""
        is_heard = catches(self.record.pid, number)
        if is_heard:
            self.record.identity.send(number)
        return is_heard

    def let_go(self) -> None:
        """Watch it no more; it lives on."""
        if not self._over.done():
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._over.cancel()

    def _ended(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        self._over.set_result(self._child.wait() if self._child else None)


def start(program: Program) -> RunningProcess:
    """In a session of its own, its output appended to a file: it needs nobody to live.

    Raises OSError.
    """
    program.output.parent.mkdir(parents=True, exist_ok=True)
    with program.output.open("ab") as output:
        child = subprocess.Popen(
            (*_RECORDED, program.name, str(program.port), "--", *program.command),
            stdin=subprocess.DEVNULL,
            # What writes a log of its own says the same on stdout, for a terminal.
            stdout=subprocess.DEVNULL if program.own_log else output,
            stderr=output,
            env=program.environment,
            start_new_session=True,
        )
    record = Record(program.name, child.pid, start_time(child.pid), program.port, supervised=True)
    if program.name not in living():
        # It does so itself in a moment; a `make stop` in that moment must find it too.
        record.write()
    return RunningProcess(record, child)


def adopt(program: Program, record: Record | None) -> RunningProcess | None:
    """The program as an earlier watchdog left it, if it lives."""
    if record is None or record.port != program.port:
        return None
    try:
        return RunningProcess(record)
    except ProcessLookupError:
        return None
