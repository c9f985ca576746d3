"""Plots as SVG that stands inside a page: lines over a linear or logarithmic axis, and bars."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 640
_HEIGHT: Final = 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 26, 14, 46
_STEPS: Final = (1, 2, 2.5, 5, 10)
_CLOCK_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)

Words = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Line:
    """One line; None is a gap. `style` is a class of the page's style sheet."""

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction: what it shows, from where to where; `tick` is the shorter of its words."""

    title: str
    words: Words
    tick: Words
    low: float
    high: float
    is_logarithmic: bool = False
    is_time: bool = False

    def place(self, value: float) -> float:
        """From 0 at the low end to 1 at the high one."""
        if self.is_logarithmic:
            span = math.log(self.high / self.low)
            return math.log(max(value, self.low) / self.low) / span if span else 0.5
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def ticks(self) -> list[float]:
        return _decades(self) if self.is_logarithmic else _steps(self)


def axis_to(words: Words, tick: Words, highest: float) -> Axis:
    """From nothing up to a round number that leaves room above the highest value."""
    high = max(highest * 1.08, 1e-9)
    step = _step(high / 4)
    return Axis("", words, tick, 0.0, math.ceil(high / step) * step)


def line_plot(label: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Lines with their grid; hovering tells the values at a place."""
    drawn = "".join(
        f'<path class="line {line.style}" d="{part}"/>'
        for line in lines
        for part in _paths(line, x, y)
    )
    return _frame(label, x, y, drawn + _targets(x, y, lines))


def bar_plot(label: str, x: Axis, y: Axis, width: float, lines: Sequence[Line]) -> str:
    """Bars `width` wide in terms of x, the lines' values stacked on each other."""
    bars = []
    tops: dict[float, float] = {}
    for line in lines:
        for at, value in line.points:
            bottom = tops.get(at, 0.0)
            tops[at] = top = bottom + (value or 0.0)
            left, right = _x(x, at - width * 0.45), _x(x, at + width * 0.45)
            if value:
                bars.append(
                    f'<rect class="bar {line.style}" x="{left:.1f}" y="{_y(y, top):.1f}" '
                    f'width="{max(right - left, 1):.1f}" '
                    f'height="{_y(y, bottom) - _y(y, top):.1f}"/>'
                )
    return _frame(label, x, y, "".join(bars) + _targets(x, y, lines))


def _frame(label: str, x: Axis, y: Axis, inner: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in y.ticks():
        at = _y(y, tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">'
            f"{escape(y.tick(tick))}</text>"
        )
    for tick in x.ticks():
        at = _x(x, tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {bottom}v5"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 19}" text-anchor="middle">'
            f"{escape(x.tick(tick))}</text>"
        )
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x.title)}</text>"
    )
    return "".join(parts) + inner + "</svg>"


def _paths(line: Line, x: Axis, y: Axis) -> list[str]:
    """One path for each stretch without a gap; a lonely point becomes a short dash."""
    stretches: list[list[str]] = [[]]
    for at, value in line.points:
        if value is None:
            stretches.append([])
        else:
            stretches[-1].append(f"{_x(x, at):.1f} {_y(y, value):.1f}")
    return [
        f"M{points[0]}h2" if len(points) == 1 else "M" + "L".join(points)
        for points in stretches
        if points
    ]


def _targets(x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Invisible columns, each of which names the values under it."""
    if not lines or x.is_logarithmic:
        return ""
    places = [at for at, _ in lines[0].points]
    wide = (places[1] - places[0]) if len(places) > 1 else x.high - x.low
    columns = []
    for index, at in enumerate(places):
        values = [f"{line.name} {_told(line.points[index][1], y)}" for line in lines]
        left, right = _x(x, max(at - wide / 2, x.low)), _x(x, min(at + wide / 2, x.high))
        columns.append(
            f'<rect class="target" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>{escape(x.words(at))}: '
            f"{escape(', '.join(values))}</title></rect>"
        )
    return "".join(columns)


def _told(value: float | None, y: Axis) -> str:
    return "-" if value is None else y.words(value)


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _step(about: float) -> float:
    """The round number that is next above."""
    power = float(10 ** math.floor(math.log10(about)))
    return next(step * power for step in _STEPS if step * power >= about * 0.999)


def _steps(axis: Axis) -> list[float]:
    about = (axis.high - axis.low) / 6
    is_clock = axis.is_time and about <= _CLOCK_STEPS[-1]
    step = next(s for s in _CLOCK_STEPS if s >= about) if is_clock else _step(about)
    first, last = math.ceil(axis.low / step - 1e-6), math.floor(axis.high / step + 1e-6)
    return [number * step for number in range(first, last + 1)]


def _decades(axis: Axis) -> list[float]:
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    for marks in ((1, 2, 5), (1, 3), (1,)):
        found = [mark * 10.0**power for power in powers for mark in marks]
        ticks = [tick for tick in found if axis.low * 0.999 <= tick <= axis.high * 1.001]
        if len(ticks) <= 9:
            break
    return ticks
