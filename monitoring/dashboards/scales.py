"""What a number means and when it is bad: units, thresholds, words for states."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from monitoring.dashboards.values import Json


class Unit(Enum):
    """Grafana's names of the units that we use."""

    REQUESTS_PER_SECOND = "reqps"
    TOKENS_PER_SECOND = "si:tok/s"
    TOKENS_PER_JOULE = "suffix:tok/J"
    EVENTS_PER_SECOND = "cps"
    RATIO = "percentunit"
    SECONDS = "s"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    WATTS = "watt"
    CELSIUS = "celsius"
    HERTZ = "hertz"
    KILOWATT_HOURS = "kwatth"
    NUMBER = "short"
    FACTOR = "suffix:x"
    TEXT = "string"
    # Milliseconds since the epoch, shown as "5 minutes ago".
    MOMENT = "dateTimeFromNow"


class Colour(Enum):
    """Colours with a meaning, the same on every dashboard."""

    GOOD = "green"
    WARNING = "orange"
    BAD = "red"
    PLAIN = "blue"
    QUIET = "super-light-blue"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The colour of the lowest values, then of everything from each bound on."""

    lowest: Colour = Colour.GOOD
    bounds: tuple[tuple[float, Colour], ...] = ()

    def json(self) -> Json:
        first: Json = {"color": self.lowest.value, "value": None}
        rest: list[Json] = [{"color": colour.value, "value": at} for at, colour in self.bounds]
        return {"mode": "absolute", "steps": [first, *rest]}


NEUTRAL: Final = Thresholds(Colour.PLAIN)


def rising(warning: float, bad: float | None = None) -> Thresholds:
    """The higher the worse."""
    steps = ((warning, Colour.WARNING), (bad, Colour.BAD))
    return Thresholds(bounds=tuple((at, colour) for at, colour in steps if at is not None))


def limit(bad: float) -> Thresholds:
    """Fine below, bad from there on."""
    return Thresholds(bounds=((bad, Colour.BAD),))


def falling(bad: float, warning: float) -> Thresholds:
    """The lower the worse: bad below the first bound, a warning up to the second."""
    return Thresholds(Colour.BAD, ((bad, Colour.WARNING), (warning, Colour.GOOD)))


def demanded(least: float) -> Thresholds:
    """Bad below, fine from there on."""
    return Thresholds(Colour.BAD, ((least, Colour.GOOD),))


@dataclass(frozen=True, slots=True)
class Word:
    """The word and colour shown in place of one value."""

    value: int
    text: str
    colour: Colour

    def json(self, index: int) -> Json:
        shown: Json = {"text": self.text, "color": self.colour.value, "index": index}
        return {"type": "value", "options": {str(self.value): shown}}


UP_OR_DOWN: Final = (Word(0, "down", Colour.BAD), Word(1, "up", Colour.GOOD))
YES_IS_BAD: Final = (Word(0, "no", Colour.GOOD), Word(1, "yes", Colour.BAD))
