"""Measure direct, nginx, peers and the gateway in turns, and print the medians."""

import argparse
import gc
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop

from tests.benchmarks import (
    footprint,
    growth,
    markdown,
    measures,
    nginx,
    report,
    shapes,
    telemetry,
    tracing,
)
from tests.benchmarks.clients import Tally
from tests.benchmarks.goals import verdicts
from tests.benchmarks.measures import Bench, Numbers
from tests.benchmarks.peers.catalogue import PEERS
from tests.benchmarks.processes import Cores, TargetFailed, pin
from tests.benchmarks.results import Results
from tests.benchmarks.targets import DIRECT, GATEWAY, NGINX, TARGETS, Target, open_targets
from tests.benchmarks.upstream import Upstream

Measure = Callable[[Bench, Target], Awaitable[Numbers]]

MEASURES: Final[Mapping[str, Measure]] = {
    "drift": footprint.drift,
    "plain": measures.plain,
    "burst": measures.burst,
    "paced": measures.paced,
    "paced1000": measures.paced_many,
    "memory": footprint.memory,
}
# Memory that was taken once and given back hides what is taken later: each target anew, and alone.
_FRESH: Final = ("drift", "memory")
# What the gateway costs against itself with something off; not part of a usual run.
COMPARISONS: Final = (tracing.NAME, telemetry.NAME)
# A name for all sizes of everything there can be many of.
GROWTH: Final = "growth"
_OPEN_FILES: Final = 16_384


class NotARun(Exception):
    """The file to read has no run in it."""


def main() -> int:
    """Exit code 0 if every answer was right, 1 if any of ours was wrong or a target failed."""
    options = _options()
    try:
        results = _read(options.read) if options.read else _measured(options)
    except NotARun as fault:
        _say(str(fault))
        return 1
    if results.rounds:
        report.show(results)
    report.show_faults(results)
    return _write(results, options) or int(results.is_ours_at_fault)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measure (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (3)")
    usual = [*MEASURES, *growth.KINDS]
    parser.add_argument(
        "--only",
        choices=[*usual, GROWTH, *COMPARISONS],
        nargs="+",
        default=usual,
        metavar="MEASURE",
        help=f"of {', '.join(usual)}; {GROWTH}: the last three; besides {', '.join(COMPARISONS)}",
    )
    parser.add_argument(
        "--targets",
        choices=TARGETS,
        nargs="+",
        metavar="TARGET",
        help=f"of {', '.join(TARGETS)} (all that are installed)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    parser.add_argument("--update-readme", action="store_true", help="write them into README.md")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="measure nothing; show what --json wrote"
    )
    options = parser.parse_args()
    if GROWTH in options.only:
        options.only = [*options.only, *growth.KINDS]
    return options


def _read(file: Path) -> Results:
    """Raises NotARun."""
    try:
        return Results.from_json(file.read_bytes())
    except (OSError, ValueError, LookupError) as fault:
        raise NotARun(f"{file} is not what --json writes: {fault!r}") from None


def _measured(options: argparse.Namespace) -> Results:
    """What there is when something of ours fails is not lost; then it says so."""
    cores = Cores.choose()
    if cores.target is None:
        _say("warning: fewer than two cores, so nothing is pinned and the sides disturb each other")
    names = _installed(options.targets)
    _raise_open_files()
    pin(cores.load)
    gc.disable()
    results = Results(facts=report.facts(cores, names))
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        try:
            uvloop.run(_run(options, names, results, folder=Path(folder), cores=cores))
        except TargetFailed as fault:
            _leave_out(results, "the rest", str(fault))
    return results


def _installed(asked: list[str] | None) -> list[str]:
    """Those that can be started."""
    found = []
    for name in asked or TARGETS:
        if name == NGINX and nginx.find_nginx() is None:
            _say("skipped: nginx is not installed (python -m tests.benchmarks.nginx installs it)")
        elif name in PEERS and PEERS[name].home.version() is None:
            _say(f"skipped: {name} is not installed (make bench-peers installs it)")
        else:
            found.append(name)
    return found


async def _run(
    options: argparse.Namespace,
    names: list[str],
    results: Results,
    *,
    folder: Path,
    cores: Cores,
) -> None:
    wanted = [name for name in MEASURES if name in options.only]
    async with Upstream() as upstream:
        bench = Bench(upstream, Tally(), options.seconds, cores)
        for name in (name for name in wanted if name in _FRESH):
            for target in (target for target in names if target != DIRECT):
                async with _opened([target], bench, folder / name, results) as targets:
                    await _take_turns(name, bench, targets, 1, results)
        if together := [name for name in wanted if name not in _FRESH]:
            async with _opened(names, bench, folder / "together", results) as targets:
                for name in together:
                    await _take_turns(name, bench, targets, options.rounds, results)
        await _compare(options, bench, folder=folder, results=results)


@asynccontextmanager
async def _opened(
    names: list[str], bench: Bench, folder: Path, results: Results
) -> AsyncIterator[list[Target]]:
    """Those of them that run; who could not be started once is not tried again."""
    folder.mkdir(exist_ok=True)
    # A peer is tried with a stream: not one of the last measure's, which may take a minute.
    bench.upstream.plan = shapes.StreamPlan(tokens=1)
    wanted = [name for name in names if name not in results.left_out]
    port, core = bench.upstream.port, bench.cores.target
    async with open_targets(wanted, upstream_port=port, folder=folder, core=core) as opened:
        for name, why in opened.left_out.items():
            _leave_out(results, name, why)
        yield opened.targets


async def _compare(
    options: argparse.Namespace, bench: Bench, *, folder: Path, results: Results
) -> None:
    """Gateways with each other: nobody else is running by now."""
    rounds, core = options.rounds, bench.cores.target
    for name, kind in growth.KINDS.items():
        if name in options.only:
            try:
                results.rounds[name] = await growth.compare(
                    kind, bench, rounds=rounds, folder=folder, core=core
                )
            except TargetFailed as fault:
                _leave_out(results, name, str(fault))
            results.blame(name, GATEWAY, bench.tally.faults)
    if tracing.NAME in options.only:
        tracing.show(await tracing.compare(bench, rounds=rounds, folder=folder, core=core))
        results.blame(tracing.NAME, GATEWAY, bench.tally.faults)
    if telemetry.NAME in options.only:
        telemetry.show(await telemetry.compare(bench, rounds=rounds, folder=folder, core=core))
        results.blame(telemetry.NAME, GATEWAY, bench.tally.faults)


async def _take_turns(
    name: str, bench: Bench, targets: list[Target], rounds: int, results: Results
) -> None:
    for number in range(rounds):
        # Each is first and last in turn: what follows a rest does better.
        start = number % max(len(targets), 1)
        for target in [*targets, *targets][start : start + len(targets)]:
            if target.name in results.left_out:
                continue
            _say(f"{name}, round {number + 1}: {target.name}")
            try:
                results.add(name, target.name, await MEASURES[name](bench, target))
                await target.rest()
            except TargetFailed as fault:
                _leave_out(results, target.name, str(fault))
            results.blame(name, target.name, bench.tally.faults)
            gc.collect()


def _leave_out(results: Results, name: str, why: str) -> None:
    """From here on; what was measured before stays."""
    results.left_out[name] = why
    _say(f"left out: {name}: {why}")


def _write(results: Results, options: argparse.Namespace) -> int:
    """To whatever files were asked for; 1 if README.md does not take it."""
    for file in (options.json, options.markdown):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if options.json is not None:
        found = {each.title: f"{each.found}: {each.state.value}" for each in verdicts(results)}
        options.json.write_bytes(results.as_json(found))
    if options.markdown is not None:
        options.markdown.write_text(markdown.rendered(results))
    if options.update_readme:
        try:
            markdown.update_readme(results)
        except markdown.NoPlace as fault:
            _say(str(fault))
            return 1
    return 0


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
