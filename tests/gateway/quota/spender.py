"""A process that spends one token at a time and says what is settled and what is flushed.

python -m tests.gateway.quota.spender DATABASE [--full]
"""

import asyncio
import resource
import signal
import sys
import time
from pathlib import Path
from zoneinfo import ZoneInfo

from gateway.clock import SystemClock
from gateway.exchange import Principal, TokenUsage
from gateway.quota.calendar import QuotaCalendar
from gateway.quota.journal import Journal, JournalConfig
from gateway.quota.ledger import TokenDemand
from gateway.quota.memory import MemoryLedger

KEY = Principal("spender", "Spender")
ONE_TOKEN = TokenUsage(output_tokens=1)


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201


async def spend(ledger: MemoryLedger) -> None:
    async with ledger.reserve(KEY, TokenDemand("m", 0, 1)) as reservation:
        reservation.settle(ONE_TOKEN)


async def spend_until_terminated(journal: Journal, ledger: MemoryLedger) -> None:
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    while not terminated.is_set():
        await spend(ledger)
        say("settled", ledger.standing(KEY).used, time.monotonic())
        await asyncio.sleep(0.001)
    say("total", ledger.standing(KEY).used)


async def spend_on_a_full_disk(journal: Journal, ledger: MemoryLedger) -> None:
    await spend(ledger)
    say("before", await journal.flush())
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, most))
    await spend(ledger)
    say("full", await journal.flush())
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    say("after", await journal.flush())
    say("failures", journal.flush_failures_total)


async def main(path: Path, *, is_full: bool) -> None:
    clock = SystemClock()
    calendar = QuotaCalendar(zone=ZoneInfo("UTC"), clock=clock)
    ledger = MemoryLedger(calendar=calendar)
    config = JournalConfig(path=path, flush_seconds=60 if is_full else 0.1)
    story = spend_on_a_full_disk if is_full else spend_until_terminated
    journal = Journal(config=config, book=ledger, calendar=calendar, clock=clock)
    async with journal:
        await story(journal, ledger)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), is_full="--full" in sys.argv))
