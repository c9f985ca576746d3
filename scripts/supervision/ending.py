"""How a process is ended: asked first, killed when it does not go, and nobody of its own stays."""

import os
import signal
import time
from collections.abc import Callable, Collection
from threading import Event

from scripts.supervision.kernel import Identity, family
from scripts.supervision.record import Record

KILL_SECONDS = 5.0
LEFTOVER_SECONDS = 3.0
REMIND_SECONDS = 30.0
_POLL_SECONDS = 0.05


def end(
    record: Record, *, patience_seconds: float, say: Callable[[str], None], hurry: Event
) -> None:
    """SIGTERM, after `patience_seconds` SIGKILL; returns when it is gone, and all its children.

    What leads a session is signalled as a group, so that vLLM's engine and workers end with it.
    `hurry` is a second signal of the operator: the process is told again and has KILL_SECONDS.
    """
    kin = family(record.pid) if record.is_alive else frozenset()
    _ask(record)
    if not _ends_within(record, patience_seconds, hurry):
        if hurry.is_set():
            _ask(record)
        if not (hurry.is_set() and _ends_within(record, KILL_SECONDS, Event())):
            say(f"{record.name} (pid {record.pid}) did not end: killing it")
            kin |= family(record.pid)
            record.identity.send(signal.SIGKILL)
            _until_gone(record, say)
    end_leftovers(record, kin, say)
    record.remove()


def end_leftovers(record: Record, kin: Collection[Identity], say: Callable[[str], None]) -> None:
    """End what a process left behind: vLLM's workers would keep the GPU's memory.

    `kin` is its family as it was seen alive; those still in its session are found here.
    """
    left = {process for process in (*kin, *_in_session_of(record)) if process.is_alive}
    for process in left:
        process.send(signal.SIGTERM)
    _wait(lambda: not any(process.is_alive for process in left), LEFTOVER_SECONDS)
    stubborn = [process for process in left if process.is_alive]
    if stubborn:
        pids = ", ".join(str(process.pid) for process in stubborn)
        say(f"{record.name} left processes behind: killing {pids}")
    for process in stubborn:
        process.send(signal.SIGKILL)
    _wait(lambda: not any(process.is_alive for process in stubborn), KILL_SECONDS)


def _in_session_of(record: Record) -> Collection[Identity]:
    """Whom a supervised process left in its session; never the family of who has its pid now."""
    if not record.supervised or not record.is_of_this_boot or record.is_pid_of_another:
        return ()
    return family(record.pid)


def _ask(record: Record) -> None:
    if not record.is_alive:
        return
    if not record.leads_session:
        record.identity.send(signal.SIGTERM)
        return
    try:
        os.killpg(record.pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def _ends_within(record: Record, seconds: float, hurry: Event) -> bool:
    _wait(lambda: not record.is_alive or hurry.is_set(), seconds)
    return not record.is_alive


def _until_gone(record: Record, say: Callable[[str], None]) -> None:
    """A process in a driver's call cannot be killed; a second one beside it would not help."""
    while not _wait(lambda: not record.is_alive, REMIND_SECONDS):
        say(f"{record.name} (pid {record.pid}) cannot be killed: it waits in the kernel")


def _wait(claim: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
