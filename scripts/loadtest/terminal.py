"""The summary as it is printed."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scripts.loadtest.histogram import ERROR_BOUND
from scripts.loadtest.summary import Summary
from scripts.loadtest.wording import duration, rate

_COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")


def show(summary: Summary, console: Console) -> None:
    """Print everything; the warnings last, where the eye ends."""
    console.print(f"\n[bold]{escape(load_of(summary))}[/]", highlight=False)
    console.print(_counts(summary))
    console.print(_latencies(summary))
    if summary.failures:
        console.print(_failures(summary))
    console.print(_own(summary), style="dim", highlight=False)
    for warning in summary.warnings():
        console.print(f"WARNING: {warning}", style="bold yellow", markup=False, highlight=False)
    if not summary.is_fine:
        console.print(verdict(summary), style="bold red", markup=False, highlight=False)


def load_of(summary: Summary) -> str:
    """What the load was, in one line."""
    plan = summary.plan
    kind = f"{plan.concurrency} users"
    if plan.is_open_loop:
        kind = f"{rate(plan.rate)} requests/s ({plan.arrivals})"
    how = "streamed" if plan.is_stream else "whole answers"
    cut = ", interrupted" if summary.outcome.is_interrupted else ""
    return (
        f"{plan.endpoint}, {how}, {plan.model}: {kind} on {summary.outcome.url} "
        f"for {summary.outcome.seconds:.1f} s{cut}"
    )


def verdict(summary: Summary) -> str:
    """Fine or not, in one line."""
    if not summary.tally.ok:
        return "Not one request begun in the window was answered well."
    share, limit = f"{summary.error_ratio:.2%}", f"{summary.max_error_ratio:.2%}"
    word = "within" if summary.is_fine else "above"
    return f"{share} failed or were refused: {word} the {limit} of --max-error-ratio."


def goodput(summary: Summary) -> str:
    """The requests that met every limit."""
    words = f"{rate(summary.goodput_per_second)}/s, {summary.goodput_ratio:.1%} of all"
    return f"{words} ({summary.plan.slo.words()})"


def _counts(summary: Summary) -> Table:
    tally = summary.tally
    table = Table(show_header=False, box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("requests/s", rate(summary.requests_per_second))
    if summary.plan.endpoint != "embeddings":
        table.add_row("output tokens/s", rate(summary.output_tokens_per_second))
    table.add_row("input tokens/s", rate(summary.input_tokens_per_second))
    if summary.plan.slo.is_set:
        table.add_row("goodput", goodput(summary))
    table.add_row("answered well", f"{tally.ok:,}")
    table.add_row("errors", f"{tally.failed:,}")
    table.add_row("refused (429, 503)", f"{tally.refused:,}")
    if tally.unfinished:
        table.add_row("cut at the end", f"{tally.unfinished:,}")
    if tally.not_sent:
        table.add_row("[bold red]NOT SENT[/]", f"{tally.not_sent:,}")
    return table


def _latencies(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("latency", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for latency in summary.latencies:
        cells = (duration(getattr(latency.percentiles, column)) for column in _COLUMNS)
        table.add_row(latency.title, *cells)
    return table


def _failures(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("what went wrong")
    table.add_column("times", justify="right")
    table.add_column("the first one said", overflow="fold")
    for label, failure in summary.failures:
        table.add_row(escape(label), f"{failure.count:,}", escape(failure.message))
    return table


def _own(summary: Summary) -> str:
    health = summary.outcome.health
    lag = duration(health.loop_lag.quantile(0.99))
    return (
        f"The load generator itself: {summary.plan.workers} worker(s), {health.cpu_ratio:.0%} of a "
        f"core, loop lag p99 {lag}. Percentiles are exact within {ERROR_BOUND:.2%}. "
        f"SEED={summary.plan.seed}"
    )
