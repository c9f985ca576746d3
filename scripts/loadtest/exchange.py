"""One request under way, and what its sender saw of the answer."""

from collections.abc import Callable

from scripts.loadtest.failure import Failure, FailureKind


class Exchange:
    """Times are the monotonic clock's, in seconds; 0.0 where something has not happened.

    `intended_at` is when the request was due, which in an open loop may be before it could be
    sent. Latencies are counted from there: a server that stalls cannot hide the requests that
    would have come meanwhile (coordinated omission).
    """

    __slots__ = (
        "deadline", "ended_at", "failure", "first_token_at", "input_tokens", "intended_at",
        "is_sample", "is_stream", "last_token_at", "note_gap", "on_end", "output_tokens",
        "request", "sent_at", "token_events",
    )  # fmt: skip

    def __init__(
        self,
        request: bytes,
        *,
        is_stream: bool,
        intended_at: float,
        deadline: float,
        on_end: Callable[["Exchange"], None],
    ) -> None:
        self.request = request
        self.is_stream = is_stream
        self.is_sample = True
        self.intended_at = intended_at
        self.deadline = deadline
        self.on_end = on_end
        self.note_gap: Callable[[float], None] = _ignore
        self.sent_at = 0.0
        self.first_token_at = 0.0
        self.last_token_at = 0.0
        self.ended_at = 0.0
        self.token_events = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.failure: Failure | None = None

    def note_tokens(self, events: int, now: float) -> None:
        """Tokens arrived in one read, in that many events."""
        if self.token_events:
            self.note_gap(now - self.last_token_at)
        else:
            self.first_token_at = now
        self.last_token_at = now
        self.token_events += events

    def note_usage(self, usage: object) -> None:
        """The server's own count, in OpenAI's words."""
        if isinstance(usage, dict):
            self.input_tokens = _count(usage.get("prompt_tokens"))
            self.output_tokens = _count(usage.get("completion_tokens"))

    def fail(self, kind: FailureKind, message: str = "") -> None:
        """The first failure is the cause; what follows from it is not counted."""
        self.failure = self.failure or Failure(kind, message=message)

    @property
    def total_seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended_at - self.intended_at

    @property
    def time_to_first_token(self) -> float | None:
        """None unless tokens were streamed."""
        return self.first_token_at - self.intended_at if self.token_events else None

    @property
    def time_per_output_token(self) -> float | None:
        """The mean over all tokens but the first; None below two tokens."""
        tokens = self.output_tokens or self.token_events
        if not self.token_events or tokens < 2:
            return None
        return (self.last_token_at - self.first_token_at) / (tokens - 1)


def _ignore(_seconds: float) -> None:
    """Gaps outside the measured window are nobody's."""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
