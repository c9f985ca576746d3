"""Where panels stand: rows of a grid 24 wide, filled from left to right, never overlapping."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from monitoring.dashboards.panels import Panel
from monitoring.dashboards.values import Json

GRID_WIDTH: Final = 24
_HEADING_HEIGHT: Final = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels below it, in reading order."""

    title: str
    panels: Sequence[Panel]


@dataclass(slots=True)
class _Pen:
    """Where the next panel goes; `line_end` is the lowest edge of the line being filled."""

    x: int = 0
    y: int = 0
    line_end: int = 0

    def place(self, width: int, height: int) -> tuple[int, int]:
        if self.x + width > GRID_WIDTH:
            self.new_line()
        at = (self.x, self.y)
        self.x += width
        self.line_end = max(self.line_end, self.y + height)
        return at

    def new_line(self) -> None:
        self.x, self.y = 0, self.line_end


def arranged(rows: Sequence[Row]) -> Iterator[Json]:
    """All headings and panels with their numbers and places; the same rows give the same places."""
    pen, number = _Pen(), 0
    for row in rows:
        number += 1
        pen.new_line()
        _, y = pen.place(GRID_WIDTH, _HEADING_HEIGHT)
        yield _heading(row.title, number, y)
        for panel in row.panels:
            number += 1
            yield panel.json(number, *pen.place(panel.width, panel.height))


def _heading(title: str, number: int, y: int) -> Json:
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": _HEADING_HEIGHT, "w": GRID_WIDTH, "x": 0, "y": y},
        "panels": [],
    }
