"""What one request makes the engine do, settled before it begins."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class UsageReports(Enum):
    """How a stream reports its usage."""

    NONE = "none"
    FINAL = "final"
    CONTINUOUS = "continuous"


class Dialect(Enum):
    """Which family of shapes the answer takes."""

    CHAT = "chat"
    COMPLETION = "completion"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    SCORE = "score"
    TRANSCRIPTION = "transcription"
    TRANSLATION = "translation"


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is prefilled: its text, its tokens and the keys of its full blocks."""

    text: str
    tokens: int
    block_keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One sequence to generate: a string for each token, the last of them maybe empty."""

    prompt: Prompt
    pieces: Sequence[str]
    finish_reason: str
    stop_reason: str | None = None
    tool_name: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Work:
    """One request as the engine sees it; `answer` is a template filled in on finishing.

    Its fields are `id` and `created`, and for the details of the prompt tokens `details`.
    What follows from the rest is worked out once: `prompt_tokens`, `output_tokens`, `steps`
    (until the longest choice is finished) and `seats` (sequences it occupies in the batch).
    """

    dialect: Dialect
    model: str
    prompts: tuple[Prompt, ...]
    choices: tuple[Choice, ...] = ()
    stream: bool = False
    usage_reports: UsageReports = UsageReports.NONE
    max_tokens: int = 0
    named_tool: bool = False
    answer: bytes = b""
    prompt_tokens: int = field(init=False)
    output_tokens: int = field(init=False)
    steps: int = field(init=False)
    seats: int = field(init=False)
    finish_reasons: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        lengths = [len(choice.pieces) for choice in self.choices]
        reasons = [choice.finish_reason for choice in self.choices] or ["stop"] * len(self.prompts)
        derived = {
            "prompt_tokens": sum(prompt.tokens for prompt in self.prompts),
            "output_tokens": sum(lengths),
            "steps": max(lengths, default=0),
            "seats": len(self.choices) or len(self.prompts),
            "finish_reasons": tuple(reasons),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def tokens_by(self, step: int) -> int:
        """Tokens generated over all choices when `step` steps are done."""
        if step >= self.steps:
            return self.output_tokens
        return sum(min(step, len(choice.pieces)) for choice in self.choices) if step else 0


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells two answers to the same request apart."""

    id: bytes
    created: int
