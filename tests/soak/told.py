"""What a caller can tell of one call: enough to know what its key may be charged for it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Told:
    """One call with a request id of its own.

    `usage` is what a whole answer said it used, None where no whole answer came; `seen_tokens` are
    output tokens that arrived, `most_tokens` what could be generated at the most. `prompt` names
    calls whose prompts are alike.
    """

    request_id: str
    key_id: str
    kind: str
    prompt: str
    most_tokens: int
    status: int = 0
    usage: tuple[int, int] | None = None
    seen_tokens: int = 0


@dataclass(slots=True)
class Story:
    """All that callers told, and what they found wrong at once."""

    told: list[Told] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    befell: Counter[str] = field(default_factory=Counter)

    def take(self) -> list[Told]:
        """The calls since the last time."""
        told, self.told = self.told, []
        return told
