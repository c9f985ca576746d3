"""Measure direct, nginx and the gateway in turns, and print the medians."""

import argparse
import gc
import resource
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import uvloop

from tests.benchmarks import measures, nginx, report, telemetry, tracing
from tests.benchmarks.clients import Tally
from tests.benchmarks.measures import Bench, Numbers
from tests.benchmarks.processes import Cores, TargetFailed, pin
from tests.benchmarks.targets import DIRECT, NGINX, TARGETS, Target, open_targets
from tests.benchmarks.upstream import Upstream

Measure = Callable[[Bench, Target], Awaitable[Numbers]]

MEASURES: Final[Mapping[str, Measure]] = {
    "plain": measures.plain,
    "burst": measures.burst,
    "paced": measures.paced,
    "memory": measures.memory,
}
# What the gateway costs against itself with something off; not part of a usual run.
COMPARISONS: Final = (tracing.NAME, telemetry.NAME)
_OPEN_FILES: Final = 16_384


def main() -> int:
    """Exit code 0 if every answer was right, 1 if any was wrong or a target failed."""
    options = _options()
    cores = Cores.choose()
    if cores.target is None:
        _say("warning: fewer than two cores, so nothing is pinned and the sides disturb each other")
    names = _targets(options.targets)
    _raise_open_files()
    pin(cores.load)
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        try:
            results = uvloop.run(_run(options, names, folder=Path(folder), core=cores.target))
        except TargetFailed as fault:
            _say(str(fault))
            return 1
    facts = report.facts(cores)
    if results.rounds:
        report.show(results, names=names, facts=facts)
    report.show_faults(results)
    if options.json is not None:
        options.json.write_bytes(results.as_json(facts))
    return 1 if results.faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measure (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (3)")
    parser.add_argument(
        "--only", choices=[*MEASURES, *COMPARISONS], nargs="+", default=list(MEASURES)
    )
    parser.add_argument("--targets", choices=TARGETS, nargs="+", default=list(TARGETS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    return parser.parse_args()


def _targets(asked: list[str]) -> list[str]:
    if NGINX in asked and nginx.find_nginx() is None:
        _say("skipped: nginx is not installed (python -m tests.benchmarks.nginx installs it)")
        return [name for name in asked if name != NGINX]
    return asked


async def _run(
    options: argparse.Namespace, names: list[str], *, folder: Path, core: int | None
) -> report.Results:
    results = report.Results()
    async with (
        Upstream() as upstream,
        open_targets(names, upstream_port=upstream.port, folder=folder, core=core) as targets,
    ):
        bench = Bench(upstream, Tally(faults=results.faults), options.seconds)
        for name in MEASURES:
            if name in options.only:
                await _take_turns(name, bench, targets, options.rounds, results)
        if tracing.NAME in options.only:
            tracing.show(
                await tracing.compare(bench, rounds=options.rounds, folder=folder, core=core)
            )
        if telemetry.NAME in options.only:
            telemetry.show(
                await telemetry.compare(bench, rounds=options.rounds, folder=folder, core=core)
            )
    return results


async def _take_turns(
    name: str, bench: Bench, targets: list[Target], rounds: int, results: report.Results
) -> None:
    # Memory that was given back is not measured twice: only the first opening tells.
    is_memory = name == "memory"
    for number in range(1 if is_memory else rounds):
        for target in targets:
            if is_memory and target.name == DIRECT:
                continue
            _say(f"{name}, round {number + 1}: {target.name}")
            results.add(name, target.name, await MEASURES[name](bench, target))
            gc.collect()


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
