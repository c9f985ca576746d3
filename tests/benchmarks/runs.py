"""Runs that nobody ran: results with figures of a test's choice."""

from tests.benchmarks.growth import KINDS
from tests.benchmarks.results import LINES, Results
from tests.benchmarks.targets import DIRECT, GATEWAY, NGINX

PEER = "vllm-router"


def whole_run() -> Results:
    """Everything measured once; every figure of nginx's is 2, of all others 1."""
    results = Results(facts={"date": "2026-11-29T10:00:00+00:00", PEER: "0.1.17", "nginx": "1.22"})
    for line in LINES:
        for target in (DIRECT, NGINX, PEER, GATEWAY):
            found = results.rounds.setdefault(line.measure, {}).setdefault(target, [{}])
            found[0][line.number] = 2.0 if target == NGINX else 1.0
    for name, kind in KINDS.items():
        for size in kind.sizes:
            numbers = {"requests_per_second": 9.0, "cpu_us_per_request": 1.0, "rss_bytes": 1e6}
            results.add(name, f"{size:,}", numbers)
    return results
