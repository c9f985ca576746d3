"""The report's figures: what is drawn, over which axes, with which legend."""

from collections.abc import Sequence
from html import escape
from typing import Final

from scripts.loadtest.histogram import Histogram
from scripts.loadtest.plan import Endpoint
from scripts.loadtest.plots import Axis, Line, axis_to, bar_plot, line_plot
from scripts.loadtest.summary import Summary
from scripts.loadtest.timeline import Slot
from scripts.loadtest.wording import clock, duration, duration_tick, rate, tick

Slots = Sequence[tuple[float, Slot]]

_QUANTILES: Final = ((0.5, "p50", "first"), (0.95, "p95", "second"), (0.99, "p99", "third"))
_LEAST_SECONDS: Final = 1e-5


def figures(summary: Summary) -> str:
    """All of them."""
    timeline = summary.outcome.timeline
    window = max(summary.outcome.seconds, timeline.width_seconds)
    slots = list(timeline.slots())
    # What ends after the window tells of latency, but is no throughput of a steady load.
    inside = [(at, slot) for at, slot in slots if at + timeline.width_seconds / 2 <= window * 1.001]
    end = _end(slots, timeline.width_seconds)
    times = Axis("time since the window began", clock, clock, 0.0, end, is_time=True)
    within = Axis("time since the window began", clock, clock, 0.0, window, is_time=True)
    has_tokens = summary.plan.endpoint is not Endpoint.EMBEDDINGS
    shown = []
    if summary.plan.is_stream:
        first = [(at, slot.time_to_first_token) for at, slot in slots]
        shown.append(_over_time("Time to first token over time", times, first))
        pauses = [(at, slot.inter_token) for at, slot in slots]
        shown.append(_over_time("Inter-token latency over time", times, pauses, what="pauses"))
    whole = [(at, slot.end_to_end) for at, slot in slots]
    shown.append(_over_time("End-to-end latency over time", times, whole))
    shown.append(_distribution(summary))
    shown += _rates(inside, within, timeline.width_seconds, has_tokens=has_tokens)
    shown.append(_in_flight(slots, times))
    shown.append(_errors(slots, times, timeline.width_seconds))
    return f'<div class="grid-of-cards">{"".join(shown)}</div>'


def _over_time(
    title: str, x: Axis, slots: Sequence[tuple[float, Histogram]], *, what: str = "requests"
) -> str:
    lines = [
        Line(name, style, [(at, each.quantile(ratio)) for at, each in slots])
        for ratio, name, style in _QUANTILES
    ]
    y = axis_to(duration, duration_tick, _highest(lines))
    return _figure(
        title, f"Of {what} that ended at that time.", lines, line_plot(title, x, y, lines)
    )


def _distribution(summary: Summary) -> str:
    title = "How the latencies are spread"
    histograms = [("end to end", "second", summary.tally.end_to_end)]
    if summary.plan.is_stream:
        histograms.insert(0, ("time to first token", "first", summary.tally.time_to_first_token))
        histograms.append(("inter-token", "third", summary.tally.inter_token))
    lines = [Line(name, style, _risen(each)) for name, style, each in histograms if each.count]
    seconds = [max(at, _LEAST_SECONDS) for line in lines for at, _ in line.points] or [0.001, 1.0]
    low, high = min(seconds) * 0.8, max(seconds) * 1.25
    x = Axis("latency, logarithmic", duration, duration_tick, low, high, is_logarithmic=True)
    y = Axis("", _percent, _percent, 0.0, 1.0)
    text = "The share of requests (of pauses, for inter-token) that took at most so long."
    return _figure(title, text, lines, line_plot(title, x, y, lines))


def _rates(slots: Slots, x: Axis, width: float, *, has_tokens: bool) -> list[str]:
    requests = [(at, slot.ok / width) for at, slot in slots]
    found = [_one_line("Requests per second", "Answered well.", x, requests)]
    if has_tokens:
        tokens = [(at, slot.output_tokens / width) for at, slot in slots]
        text = "Counted when their answer ended."
        found.append(_one_line("Output tokens per second", text, x, tokens))
    return found


def _in_flight(slots: Slots, x: Axis) -> str:
    points = [(at, float(slot.in_flight)) for at, slot in slots]
    return _one_line(
        "Requests in flight", "Sent and not yet answered, the most at a time.", x, points
    )


def _errors(slots: Slots, x: Axis, width: float) -> str:
    title = "Errors and refusals per second"
    lines = [
        Line("errors", "bad", [(at, slot.failed / width) for at, slot in slots]),
        Line("refused", "refused", [(at, slot.refused / width) for at, slot in slots]),
    ]
    worst = max((slot.failed + slot.refused for _, slot in slots), default=0) / width
    if not worst:
        text = "Not one request failed or was refused."
        return f'<figure class="card"><h2>{title}</h2><p>{text}</p></figure>'
    plot = bar_plot(title, x, axis_to(rate, tick, worst), width, lines)
    return _figure(title, "By the time at which they ended.", lines, plot)


def _one_line(title: str, text: str, x: Axis, points: Sequence[tuple[float, float]]) -> str:
    lines = [Line(title.lower(), "first", points)]
    plot = line_plot(title, x, axis_to(rate, tick, _highest(lines)), lines)
    return f'<figure class="card"><h2>{title}</h2><p>{text}</p>{plot}</figure>'


def _figure(title: str, text: str, lines: Sequence[Line], plot: str) -> str:
    legend = "".join(
        f'<li><svg viewBox="0 0 28 10" aria-hidden="true"><path class="line {line.style}" '
        f'd="M0 5H28"/></svg>{escape(line.name)}</li>'
        for line in lines
    )
    return (
        f'<figure class="card"><h2>{title}</h2><p>{text}</p><ul class="legend">{legend}</ul>'
        f"{plot}</figure>"
    )


def _risen(histogram: Histogram) -> list[tuple[float, float | None]]:
    """The cumulative distribution, from nothing up."""
    steps = list(histogram.steps())
    return [(steps[0][0], 0.0), *steps]


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _end(slots: Slots, width: float) -> float:
    return slots[-1][0] + width / 2 if slots else width


def _highest(lines: Sequence[Line]) -> float:
    return max(
        (value for line in lines for _, value in line.points if value is not None), default=1.0
    )
