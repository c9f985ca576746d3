"""`make loadtest`: put load on a gateway, watch it, and say what came out."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Final

from dotenv import dotenv_values
from rich.console import Console

from scripts.loadtest.credential import credential
from scripts.loadtest.crew import Crew, CrewFailed, sensible_workers
from scripts.loadtest.document import document
from scripts.loadtest.health import Health
from scripts.loadtest.options import Options, options
from scripts.loadtest.plan import Plan
from scripts.loadtest.progress import progress
from scripts.loadtest.report import report
from scripts.loadtest.summary import Outcome, Summary
from scripts.loadtest.tally import Tally
from scripts.loadtest.target import (
    Target,
    TargetUnusable,
    require_permission,
    served_model,
    target,
)
from scripts.loadtest.terminal import show
from scripts.loadtest.timeline import Timeline

_ENV_FILE: Final = Path(__file__).parents[2] / "config" / ".env"
# Time for the workers to be there before the first request is due.
_START_SECONDS: Final = 1.0


def main() -> int:
    """0 fine, 1 more failures than allowed, 2 nothing was measured."""
    asked = options(sys.argv[1:], os.environ)
    console = Console()
    errors = Console(stderr=True)
    try:
        server = target(asked.url or _default_url(os.environ))
        require_permission(server, is_allowed=asked.yes_remote)
        key = credential(os.environ, _ENV_FILE, is_local=server.is_local)
        model = served_model(
            server, key, asked.endpoint, asked.model, timeout_seconds=asked.timeout
        )
        plan = _plan(asked, server, key, model=model)
        outcome = asyncio.run(_measure(plan, server, console))
    except (TargetUnusable, CrewFailed, ValueError) as fault:
        errors.print(f"loadtest: {fault}", style="bold red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt:
        return 2  # Before anything was sent.
    summary = Summary(outcome, max_error_ratio=asked.max_error_ratio)
    show(summary, console)
    for name, content in ((asked.json, document), (asked.html, report)):
        if name:
            Path(name).write_bytes(content(summary))
            console.print(f"written: {name}", markup=False, highlight=False)
    return 0 if summary.is_fine else 1


async def _measure(plan: Plan, server: Target, console: Console) -> Outcome:
    """Run the workers to their end, or to Ctrl-C; raises CrewFailed."""
    plan = replace(plan, start_at=monotonic() + _START_SECONDS)
    tally = Tally()
    timeline = Timeline(begin_at=plan.begin_at)
    health = Health(begin_at=plan.begin_at, end_at=plan.end_at)
    began = datetime.now(UTC) + timedelta(seconds=plan.begin_at - monotonic())
    stopped_at: list[float] = []
    async with Crew(plan.shares(workers=plan.workers, start_at=plan.start_at)) as crew:

        def stop() -> None:
            # Whoever presses twice does not want to wait.
            (crew.kill if stopped_at else crew.stop)()
            stopped_at.append(monotonic())

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        with progress(plan, console) as shown:
            async for frame in crew.frames():
                tally.merge(frame.tally)
                timeline.add(frame)
                health.add(frame)
                shown.show(frame, tally)
    ended_at = min([plan.end_at, *stopped_at])
    return Outcome(
        plan=plan,
        started_at=began.isoformat(timespec="seconds"),
        url=server.url,
        seconds=max(0.0, ended_at - plan.begin_at),
        is_interrupted=ended_at < plan.end_at,
        tally=tally,
        timeline=timeline,
        health=health,
    )


def _default_url(environ: Mapping[str, str]) -> str:
    """Where `make gateway` listens."""
    settings = dotenv_values(_ENV_FILE) if _ENV_FILE.is_file() else {}
    port = environ.get("GATEWAY_PORT") or settings.get("GATEWAY_PORT") or "8080"
    return f"http://127.0.0.1:{port}"


def _plan(asked: Options, server: Target, api_key: str, *, model: str) -> Plan:
    # A worker without a user would have nothing to do.
    most = asked.max_outstanding if asked.rate else asked.concurrency
    return Plan(
        host=server.host,
        port=server.port,
        is_tls=server.is_tls,
        authority=server.authority,
        prefix=server.prefix,
        api_key=api_key,
        model=model,
        endpoint=asked.endpoint,
        is_stream=asked.stream,
        concurrency=asked.concurrency,
        rate=asked.rate,
        arrivals=asked.arrivals,
        max_outstanding=asked.max_outstanding,
        prompt_tokens=asked.prompt_tokens,
        output_tokens=asked.output_tokens,
        prompt_file=str(Path(asked.prompts).absolute()) if asked.prompts else "",
        ignores_eos=asked.ignore_eos,
        extra_body=asked.body,
        think_seconds=asked.think_time,
        failure_pause_seconds=asked.failure_pause,
        duration_seconds=asked.duration,
        warm_up_seconds=asked.warm_up,
        ramp_seconds=asked.ramp,
        drain_seconds=asked.drain,
        timeout_seconds=asked.timeout,
        connect_timeout_seconds=asked.connect_timeout,
        seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
        slo=asked.slo,
        workers=min(sensible_workers(asked.workers), most),
    )


if __name__ == "__main__":
    sys.exit(main())
