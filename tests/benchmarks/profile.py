"""Where the gateway's time goes: the same load, the gateway under cProfile, the top 40 by own time.

cProfile makes small Python functions look dearer than they are, and sees no other thread: it says
where to look. What a change saves, `python -m tests.benchmarks` says.
"""

import argparse
import pstats
import sys
import tempfile
from pathlib import Path
from typing import Final

import uvloop

from tests.benchmarks import measures
from tests.benchmarks.clients import Tally
from tests.benchmarks.measures import Bench
from tests.benchmarks.processes import Cores, TargetFailed, pin
from tests.benchmarks.targets import open_gateway
from tests.benchmarks.upstream import Upstream

_ROWS: Final = 40
_LOADS: Final = {"plain": measures.plain, "stream": measures.paced, "burst": measures.burst}


def main() -> int:
    """Exit code 0 if every answer was right."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.profile", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("load", choices=list(_LOADS), nargs="?", default="plain")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the load (5)")
    options = parser.parse_args()
    cores = Cores.choose()
    pin(cores.load)
    with tempfile.TemporaryDirectory(prefix="gateway-profile-") as folder:
        try:
            bench = uvloop.run(_run(options.load, options.seconds, Path(folder), cores.target))
        except TargetFailed as fault:
            sys.stderr.write(f"{fault}\n")
            return 1
        profile = pstats.Stats(str(Path(folder) / "gateway.prof"))
        profile.sort_stats(pstats.SortKey.TIME).print_stats(_ROWS)
    for words, count in bench.tally.faults.most_common():
        sys.stderr.write(f"ERROR, {count} times: {words}\n")
    return 1 if bench.tally.faults else 0


async def _run(load: str, seconds: float, folder: Path, core: int | None) -> Bench:
    under = ["-m", "cProfile", "-o", str(folder / "gateway.prof")]
    async with (
        Upstream() as upstream,
        open_gateway(upstream.port, folder, core, under=under) as target,
    ):
        bench = Bench(upstream, Tally(), seconds)
        await _LOADS[load](bench, target)
    return bench


if __name__ == "__main__":
    sys.exit(main())
