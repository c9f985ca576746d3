"""How long, or how many: a distribution written as one word, such as `normal:200,50`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

SHAPES: Final = "N, fixed:N, uniform:A-B, normal:MEAN,SD or lognormal:MEDIAN,SIGMA"

Draw = Callable[[Random], float]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Numbers drawn from one shape, never negative."""

    text: str
    draw: Draw

    def whole(self, random: Random, *, least: int) -> int:
        """A drawn number of things, `least` at the least."""
        return max(least, round(self.draw(random)))


def distribution(text: str) -> Distribution:
    """Read one; raises ValueError with the known shapes."""
    shape, colon, rest = text.strip().partition(":")
    if not colon:
        shape, rest = "fixed", shape
    known = _SHAPES.get(shape)
    if known is None:
        raise ValueError(f"'{text}' is no distribution: write {SHAPES}")
    separator, count, make = known
    numbers = [_number(part, text) for part in rest.split(separator)] if separator else []
    if not separator:
        numbers = [_number(rest, text)]
    if len(numbers) != count:
        raise ValueError(f"'{text}' needs {count} numbers: write {SHAPES}")
    return Distribution(text.strip(), make(numbers))


def _number(text: str, whole: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"'{text}' in '{whole}' is no number from 0 up: write {SHAPES}")
    return number


def _fixed(numbers: Sequence[float]) -> Draw:
    (number,) = numbers
    return lambda _random: number


def _uniform(numbers: Sequence[float]) -> Draw:
    low, high = numbers
    if low > high:
        raise ValueError(f"uniform:{low:g}-{high:g} begins above its end")
    return lambda random: random.uniform(low, high)


def _normal(numbers: Sequence[float]) -> Draw:
    mean, deviation = numbers
    return lambda random: max(0.0, random.gauss(mean, deviation))


def _lognormal(numbers: Sequence[float]) -> Draw:
    median, sigma = numbers
    if median <= 0:
        raise ValueError("the median of a lognormal distribution is above 0")
    mu = math.log(median)
    return lambda random: random.lognormvariate(mu, sigma)


_SHAPES: Final[dict[str, tuple[str, int, Callable[[Sequence[float]], Draw]]]] = {
    "fixed": ("", 1, _fixed),
    "uniform": ("-", 2, _uniform),
    "normal": (",", 2, _normal),
    "lognormal": (",", 2, _lognormal),
}
