"""Team: what a worker knows of the workers it is one of."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Team:
    """`number` of `count`, from 1; started again so often; `folder` is the team's own."""

    number: int
    count: int
    restarts: int
    folder: Path
