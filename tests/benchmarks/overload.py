"""Overload: what clients get at half, once and three times of what the upstream can do.

A simulated vLLM that runs so many calls at a time, a gateway whose MAX_IN_FLIGHT is as much, and an
open load of five keys: one wants most of everything, two their share and more, two far less. First
the upstream's capacity is measured directly; the loads are multiples of it.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.table import Table

from tests.benchmarks.measures import percentile
from tests.harness.callers import UNLIMITED
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.openloop import CHAT, Call, Caller, OpenLoop, fair_shares, jain
from tests.harness.raw import RawClient, request
from tests.harness.simulator import SimulatorProcess

KEYS: Final = {"greedy": 0.60, "wants-more": 0.15, "wants-too": 0.15, "quiet": 0.05, "shy": 0.05}
"""Each key's share of what is offered."""
LOADS: Final = (0.5, 1.0, 1.5, 3.0)
WARM_UP_SECONDS: Final = 2.0
GOODPUT_GOAL: Final = 0.9
REFUSAL_GOAL_SECONDS: Final = 0.050


@dataclass(frozen=True, slots=True)
class Row:
    """One load. Rates are calls a second; a share is what a key got of what is fair for it."""

    factor: float
    offered: float
    goodput: float
    refused: float
    gave_way: float
    other: int
    refusal_p50_seconds: float
    refusal_p99_seconds: float
    answer_p50_seconds: float
    answer_p99_seconds: float
    quiet_p99_seconds: float
    jain: float
    shares: dict[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    capacity: float
    reached_upstream: int
    answered: int
    rows: list[Row]

    @property
    def peak(self) -> float:
        return max(row.goodput for row in self.rows)


def main() -> int:
    """Exit code 0 if each call was answered or refused, and no refused one reached the upstream."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="gateway-overload-") as folder:
        result = uvloop.run(_measure(options, Path(folder)))
    _show(result)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(result), indent=2) + "\n")
    is_whole = all(row.other == 0 for row in result.rows)
    return 0 if is_whole and result.reached_upstream == result.answered else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.overload", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each load (12)")
    parser.add_argument(
        "--seats", type=int, default=16, help="calls the upstream runs at once (16)"
    )
    parser.add_argument(
        "--service", type=float, default=0.4, help="seconds that a call takes (0.4)"
    )
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="times the capacity")
    parser.add_argument("--queued", type=int, default=16, help="MAX_QUEUED (16)")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (1)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args()


async def _measure(options: argparse.Namespace, folder: Path) -> Result:
    tokens = 20
    body = chat(max_tokens=tokens, ignore_eos=True)
    pace = ("--max-num-seqs", str(options.seats), "--inter-token", str(options.service / tokens))
    keys = {name: f"sk-{name}-0123456789abcdef" for name in KEYS}
    settings = {
        "GATEWAY_API_KEYS": ",".join(f"{name}={key}" for name, key in keys.items()),
        "MAX_IN_FLIGHT": str(options.seats),
        "MAX_QUEUED": str(options.queued),
        "LOG_LEVEL": "INFO",
        **UNLIMITED,
    }
    async with (
        SimulatorProcess(*pace) as upstream,
        GatewayProcess(folder=folder, VLLM_URL=upstream.url, **settings) as gateway,
        OpenLoop(gateway.port, random=Random(options.seed)) as load,
    ):
        capacity = await _capacity(upstream.port, body, options.seats, options.service * 12)
        before = await _finished(upstream)
        rows, answered = [], 0
        for factor in options.loads:
            sys.stderr.write(f"{factor:g} times {capacity:.1f} calls a second\n")
            callers = [
                Caller(name, keys[name], factor * capacity * share) for name, share in KEYS.items()
            ]
            calls = await load.offer(callers, body, seconds=options.seconds)
            answered += sum(call.is_answered for call in calls)
            rows.append(_row(factor, calls, options.seconds))
        reached = await _finished(upstream) - before
    return Result(capacity, reached, answered, rows)


async def _capacity(port: int, body: dict[str, Any], seats: int, seconds: float) -> float:
    """Calls a second of as many callers as there are seats, each of which calls again at once."""
    payload = request("POST", CHAT, body=json.dumps(body).encode())
    loop = asyncio.get_running_loop()
    began_at = loop.time()

    async def calls() -> int:
        count = 0
        async with RawClient(port) as connection:
            while loop.time() - began_at < seconds:
                await connection.send(payload)
                assert (await connection.answer(within=60.0)).status == 200
                count += 1
        return count

    counts = await asyncio.gather(*(calls() for _ in range(seats)))
    return sum(counts) / (loop.time() - began_at)


async def _finished(upstream: SimulatorProcess) -> int:
    """How many generations the upstream was asked for; the prober asks for none."""
    state = await upstream.state()
    ended: int = sum(state["finished_total"].values()) + state["aborted_total"]
    return ended


def _row(factor: float, calls: Sequence[Call], seconds: float) -> Row:
    """What happened between the warm-up and the last call that was due."""
    window = seconds - WARM_UP_SECONDS
    due = [call for call in calls if call.due_at >= WARM_UP_SECONDS]
    ended = [call for call in calls if WARM_UP_SECONDS <= call.ended_at < seconds]
    good = [call for call in ended if call.is_answered]
    refused = [call for call in due if call.is_refused]
    wanted = {name: sum(call.caller == name for call in due) / window for name in KEYS}
    got = {name: sum(call.caller == name for call in good) / window for name in KEYS}
    fair = fair_shares(wanted, len(good) / window)
    shares = {name: got[name] / fair[name] for name in KEYS}
    quiet = [c.latency_seconds for c in due if c.is_answered and c.caller in ("quiet", "shy")]
    return Row(
        factor=factor,
        offered=len(due) / window,
        goodput=len(good) / window,
        refused=len(refused) / window,
        gave_way=sum("gave way" in call.message for call in refused) / window,
        other=sum(not (call.is_answered or call.is_refused) for call in calls),
        refusal_p50_seconds=percentile([call.latency_seconds for call in refused], 0.5),
        refusal_p99_seconds=percentile([call.latency_seconds for call in refused], 0.99),
        answer_p50_seconds=percentile([call.latency_seconds for call in good], 0.5),
        answer_p99_seconds=percentile([call.latency_seconds for call in good], 0.99),
        quiet_p99_seconds=percentile(quiet, 0.99),
        jain=jain(list(shares.values())),
        shares=shares,
    )


def _show(result: Result) -> None:
    table = Table(
        title=f"The upstream alone does {result.capacity:.1f} calls a second",
        caption="per second; latencies in ms from when a call was due; shares of what is fair",
    )
    rates = ("offered", "goodput", "refused", "gave way")
    latencies = ("refused p50", "p99", "answered p50", "p99", "quiet p99")
    for title in ("load", *rates, *latencies, "Jain", *KEYS):
        table.add_column(title, justify="right")
    for row in result.rows:
        seconds = (
            row.refusal_p50_seconds,
            row.refusal_p99_seconds,
            row.answer_p50_seconds,
            row.answer_p99_seconds,
            row.quiet_p99_seconds,
        )
        table.add_row(
            f"{row.factor:g}x",
            *(f"{rate:.1f}" for rate in (row.offered, row.goodput, row.refused, row.gave_way)),
            *(f"{1000 * each:.1f}" for each in seconds),
            f"{row.jain:.3f}",
            *(f"{row.shares[name]:.2f}" for name in KEYS),
        )
    console = Console(width=max(Console().width, 150))
    console.print(table)
    worst = result.rows[-1]
    console.print(
        f"At {worst.factor:g}x goodput is {worst.goodput / result.peak:.0%} of the peak (goal: at "
        f"least {GOODPUT_GOAL:.0%}), refusals take {1000 * worst.refusal_p99_seconds:.1f} ms at "
        f"p99 (goal: under {1000 * REFUSAL_GOAL_SECONDS:.0f}). {result.answered} calls were "
        f"answered, {result.reached_upstream} reached the upstream."
    )


if __name__ == "__main__":
    sys.exit(main())
