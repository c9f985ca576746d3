"""The result as one HTML page with plots: no script, nothing from elsewhere, light and dark."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Final

from scripts.loadtest.figures import figures
from scripts.loadtest.histogram import ERROR_BOUND
from scripts.loadtest.plan import Endpoint
from scripts.loadtest.summary import Summary
from scripts.loadtest.terminal import load_of, verdict
from scripts.loadtest.wording import duration, rate

_SHORT: Final = {"time_to_first_token": "First token", "end_to_end": "End to end"}
_LEFT: Final = ' class="words"'
_STYLE: Final = Path(__file__).with_name("report.css")
_COLUMNS: Final = ("mean", "p50", "p90", "p95", "p99", "max")
# Even a browser that would fetch something is told not to.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def report(summary: Summary) -> bytes:
    """The page."""
    title = escape(load_of(summary))
    body = "".join(
        (
            f'<header><h1>Load test</h1><p>{title}</p><p class="quiet">Measured from '
            f"{escape(summary.outcome.started_at.replace('T', ' '))}</p>{_verdict(summary)}"
            "</header><main>",
            _tiles(summary),
            _latencies(summary),
            figures(summary),
            _failures(summary),
            _facts(summary),
            f"</main><footer>{_footnotes()}</footer>",
        )
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Load test: {title}</title><style>{_STYLE.read_text()}</style></head>"
        f"<body>{body}</body></html>\n"
    )
    return page.encode()


def _verdict(summary: Summary) -> str:
    style = "fine" if summary.is_fine else "not-fine"
    warnings = "".join(
        f'<p class="warning"><strong>Before you believe the numbers:</strong> {escape(each)}</p>'
        for each in summary.warnings()
    )
    return f'<p class="verdict {style}">{escape(verdict(summary))}</p>{warnings}'


def _tiles(summary: Summary) -> str:
    tally = summary.tally
    tiles = [("Requests/s", rate(summary.requests_per_second), f"{tally.ok:,} answered")]
    if summary.plan.endpoint is not Endpoint.EMBEDDINGS:
        sent = f"{rate(summary.input_tokens_per_second)} in prompts"
        tiles.append(("Output tokens/s", rate(summary.output_tokens_per_second), sent))
    for latency in summary.latencies:
        if latency.name in _SHORT:
            tail = f"p99 {duration(latency.percentiles.p99)}"
            tiles.append((f"{_SHORT[latency.name]}, p50", duration(latency.percentiles.p50), tail))
    if summary.plan.slo.is_set:
        limits = summary.plan.slo.words()
        tiles.append(("Goodput", f"{summary.goodput_ratio:.1%}", limits))
    lost = f"{tally.failed:,} failed, {tally.refused:,} refused"
    if tally.not_sent:
        lost += f", {tally.not_sent:,} not sent"
    tiles.append(("Errors and refusals", f"{summary.error_ratio:.2%}", lost))
    shown = (
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}'
        "</small></dd></div>"
        for name, value, more in tiles
    )
    return f'<dl class="tiles">{"".join(shown)}</dl>'


def _latencies(summary: Summary) -> str:
    rows = []
    for latency in summary.latencies:
        cells = (
            f"<td>{duration(getattr(latency.percentiles, column))}</td>" for column in _COLUMNS
        )
        rows.append(
            f'<tr><th scope="row">{latency.title}<small>{latency.meaning}</small></th>'
            f"{''.join(cells)}<td>{latency.percentiles.count:,}</td></tr>"
        )
    return _table("Latency", ("", *_COLUMNS, "measured"), rows)


def _failures(summary: Summary) -> str:
    if not summary.failures:
        return ""
    rows = [
        f'<tr><th scope="row">{escape(label)}</th><td>{failure.count:,}</td>'
        f'<td class="words">{escape(failure.message)}</td></tr>'
        for label, failure in summary.failures
    ]
    return _table("What went wrong", ("", "times", "the first one said"), rows)


def _table(title: str, columns: Iterable[str], rows: Iterable[str]) -> str:
    heads = "".join(
        f'<th scope="col"{_LEFT if " " in column else ""}>{column}</th>' if column else "<td></td>"
        for column in columns
    )
    return (
        f'<section class="card"><h2>{title}</h2><div class="scroll" tabindex="0" '
        f'role="region" aria-label="{title}"><table><thead><tr>{heads}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _facts(summary: Summary) -> str:
    shown = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in _measured_how(summary).items()
    )
    return (
        '<section class="card"><h2>How it was measured</h2>'
        f'<dl class="facts">{"".join(shown)}</dl></section>'
    )


def _measured_how(summary: Summary) -> dict[str, str]:
    plan, health = summary.plan, summary.outcome.health
    facts = {"Model": plan.model, "Endpoint": plan.endpoint.value}
    if plan.is_open_loop:
        facts["Load"] = f"open loop, {plan.rate:g} requests/s, {plan.arrivals} arrivals"
        facts["Outstanding at most"] = f"{plan.max_outstanding:,}"
    else:
        facts["Load"] = f"closed loop, {plan.concurrency:,} users"
        facts["Seconds a user thinks"] = plan.think_seconds
    facts["Prompts"] = plan.prompt_file or f"about {plan.prompt_tokens} tokens"
    if plan.endpoint is not Endpoint.EMBEDDINGS:
        facts["Answers"] = f"{plan.output_tokens} tokens{', streamed' if plan.is_stream else ''}"
    if plan.extra_body:
        facts["Added to each request"] = plan.extra_body
    return facts | {
        "Window": f"{summary.outcome.seconds:.1f} s",
        "Before it": f"ramp {plan.ramp_seconds:g} s, warm-up {plan.warm_up_seconds:g} s",
        "Time-out": f"{plan.timeout_seconds:g} s",
        "Seed": str(plan.seed),
        "Load generator": f"{plan.workers} worker(s), {health.cpu_ratio:.0%} of a core at most",
        "Its loop's lag, p99": duration(health.loop_lag.quantile(0.99)),
        "Its requests left late by, p99": duration(summary.tally.send_lag.quantile(0.99)),
    }


def _footnotes() -> str:
    return (
        "Latencies are those of requests due within the window, counted from when they were due; "
        "throughput is what ended within it. Inter-token is the pause between two arrivals: "
        f"tokens that come together are one arrival. Percentiles are exact within "
        f"{ERROR_BOUND:.2%}."
    )
