"""What tracing costs: the same gateway without, with 10 % and with 100 % of its traces recorded."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.benchmarks import measures
from tests.benchmarks.measures import Bench, Numbers
from tests.benchmarks.targets import Target, open_gateway

NAME: Final = "tracing"
OFF: Final = "off"
SHARES: Final = {OFF: "", "10 %": "0.1", "100 %": "1"}
# What a sampled share of a tenth may cost of the throughput.
GOAL: Final = 0.05

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TAKEN: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

Rounds = dict[str, list[Numbers]]


async def compare(bench: Bench, *, rounds: int, folder: Path, core: int | None) -> Rounds:
    """The measure `plain` of all three in turns. Raises TargetFailed."""
    found: Rounds = {share: [] for share in SHARES}
    async with collector() as port, AsyncExitStack() as opened:
        targets: dict[str, Target] = {}
        for share, ratio in SHARES.items():
            home = folder / f"traced-{ratio or OFF}"
            home.mkdir()
            targets[share] = await opened.enter_async_context(
                open_gateway(bench.upstream.port, home, core, settings=settings(ratio, port))
            )
        for number in range(rounds):
            # Each is first, second and last in turn: what follows a rest does better.
            start = number % len(SHARES)
            for share in [*SHARES, *SHARES][start : start + len(SHARES)]:
                sys.stderr.write(f"{NAME}, round {number + 1}: {share}\n")
                found[share].append(await measures.plain(bench, targets[share]))
    return found


def show(rounds: Rounds) -> None:
    """Print the medians and what they are of the gateway without tracing."""
    table = Table(title="The gateway with traces over OTLP/HTTP, against none (medians of rounds)")
    for title in ("traces recorded", "requests/s", "of off", "CPU per request, us", "of off"):
        table.add_column(title, justify="right")
    for share in SHARES:
        row = [share]
        for number, form in (("requests_per_second", ",.0f"), ("cpu_us_per_request", ".1f")):
            values = [numbers[number] for numbers in rounds[share]]
            bases = [numbers[number] for numbers in rounds[OFF]]
            # Of the same round: a machine's other work comes and goes.
            ratios = [value / base for value, base in zip(values, bases, strict=True)]
            row += [format(median(values), form), f"{median(ratios):.3f}"]
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"The goal: at 10 % no more than {GOAL:.0%} of the throughput.", style="dim")


def settings(ratio: str, port: int) -> Mapping[str, str]:
    """What makes a gateway send that share of its traces to the port; none for no ratio."""
    if not ratio:
        return {}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }


@asynccontextmanager
async def collector() -> AsyncIterator[int]:
    """The port of one that takes everything and looks at nothing: its work is not the gateway's."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(_TAKEN)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
