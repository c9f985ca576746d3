"""What is seen while it runs: a table on a terminal, a line now and then elsewhere."""

from collections import deque
from time import monotonic
from typing import Final, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from scripts.loadtest.plan import Plan
from scripts.loadtest.tally import Frame, Tally
from scripts.loadtest.wording import clock, duration, rate

_RECENT_SECONDS: Final = 5.0
_LINE_SECONDS: Final = 5.0
_REFRESH_SECONDS: Final = 0.25


class Recent:
    """The last few seconds, all workers together."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._in_flight: dict[int, int] = {}
        self._first_at = 0.0

    def add(self, frame: Frame) -> None:
        self._first_at = self._first_at or frame.at
        self._in_flight[frame.worker] = frame.in_flight
        self._frames.append(frame)
        while self._frames[0].at < frame.at - _RECENT_SECONDS:
            self._frames.popleft()

    @property
    def in_flight(self) -> int:
        return sum(self._in_flight.values())

    def tally(self) -> tuple[Tally, float]:
        """What was seen, and for how many seconds."""
        tally = Tally()
        for frame in self._frames:
            tally.merge(frame.tally)
        newest = self._frames[-1].at if self._frames else 0.0
        return tally, min(_RECENT_SECONDS, max(newest - self._first_at, 0.25))


class Progress(Protocol):
    """Shows frames as they come, between `with` and its end."""

    def show(self, frame: Frame, so_far: Tally) -> None:
        """One more report; `so_far` is the sample of the whole window."""

    def __enter__(self) -> "Progress": ...

    def __exit__(self, *_exception: object) -> None: ...


def progress(plan: Plan, console: Console) -> Progress:
    """The table if people watch, else the lines."""
    return TableProgress(plan, console) if console.is_terminal else LineProgress(plan, console)


class TableProgress:
    """One table, drawn anew a few times a second."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._recent = Recent()
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn_at = 0.0

    def __enter__(self) -> "TableProgress":
        self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._live.stop()

    def show(self, frame: Frame, so_far: Tally) -> None:
        self._recent.add(frame)
        if monotonic() - self._drawn_at >= _REFRESH_SECONDS:
            self._drawn_at = monotonic()
            self._live.update(self._table(frame.at, so_far), refresh=True)

    def _table(self, now: float, so_far: Tally) -> Table:
        recent, seconds = self._recent.tally()
        table = Table(title=phase(self._plan, now), title_justify="left")
        table.add_column("")
        table.add_column("last 5 s", justify="right")
        table.add_column("so far", justify="right")
        measured = min(now, self._plan.end_at) - self._plan.begin_at
        finished = rate(so_far.finished / measured) if measured > 0 else "-"
        tokens = rate(so_far.output_tokens / measured) if measured > 0 else "-"
        table.add_row("requests/s", rate(recent.live_ok / seconds), finished)
        table.add_row("in flight", f"{self._recent.in_flight:,}", "")
        for title, name, ratio in _ROWS:
            if self._plan.is_stream or name == "end_to_end":
                now_and_then = (getattr(each, name).quantile(ratio) for each in (recent, so_far))
                table.add_row(title, *(duration(each) for each in now_and_then))
        table.add_row("output tokens/s", rate(recent.live_tokens / seconds), tokens)
        table.add_row("errors", f"{recent.failed:,}", f"{so_far.failed:,}")
        table.add_row("refused", f"{recent.refused:,}", f"{so_far.refused:,}")
        if so_far.not_sent:
            table.add_row(
                "NOT SENT", f"{recent.not_sent:,}", f"{so_far.not_sent:,}", style="bold red"
            )
        return table


class LineProgress:
    """A line every few seconds, for logs."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._recent = Recent()
        self._next_at = plan.start_at + _LINE_SECONDS

    def __enter__(self) -> "LineProgress":
        return self

    def __exit__(self, *_exception: object) -> None:
        """Nothing to clear away."""

    def show(self, frame: Frame, so_far: Tally) -> None:
        self._recent.add(frame)
        if frame.at < self._next_at:
            return
        self._next_at += _LINE_SECONDS
        self._console.print(self._line(frame.at), soft_wrap=True, markup=False, highlight=False)

    def _line(self, now: float) -> str:
        recent, seconds = self._recent.tally()
        parts = [
            phase(self._plan, now),
            f"requests/s {rate(recent.live_ok / seconds)}",
            f"in flight {self._recent.in_flight:,}",
        ]
        parts += [
            f"{title} {duration(getattr(recent, name).quantile(ratio))}"
            for title, name, ratio in _ROWS
            if self._plan.is_stream or name == "end_to_end"
        ]
        parts.append(f"output tokens/s {rate(recent.live_tokens / seconds)}")
        parts.append(f"errors {recent.failed:,}, refused {recent.refused:,}")
        if recent.not_sent:
            parts.append(f"NOT SENT {recent.not_sent:,}")
        return "  ".join(parts)


def phase(plan: Plan, now: float) -> str:
    """Where the run is."""
    if now < plan.begin_at:
        return f"warming up {clock(now - plan.start_at)}/{clock(plan.begin_at - plan.start_at)}"
    if now < plan.end_at:
        return f"measuring {clock(now - plan.begin_at)}/{clock(plan.duration_seconds)}"
    return "waiting for the last answers"


_ROWS: Final = (
    ("TTFT p50", "time_to_first_token", 0.5),
    ("TTFT p95", "time_to_first_token", 0.95),
    ("inter-token p50", "inter_token", 0.5),
    ("inter-token p95", "inter_token", 0.95),
    ("end to end p50", "end_to_end", 0.5),
    ("end to end p95", "end_to_end", 0.95),
)
