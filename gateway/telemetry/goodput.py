"""Goodput: which answers were as quick as was promised."""

from dataclasses import dataclass
from typing import NamedTuple

from gateway.exchange import Exchange, Operation, Outcome

GENERATING = frozenset(
    operation.value
    for operation in (
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.RESPONSES,
        Operation.MESSAGES,
    )
)
# Whoever asked for nonsense, too much, or left, is no witness of how quick the answers are.
JUDGED = frozenset({Outcome.OK, Outcome.ERROR, Outcome.TRUNCATED})


@dataclass(frozen=True, slots=True)
class Slo:
    """What an answer may take: until its first token, and for each token after that."""

    ttft_seconds: float = 2.5
    time_per_output_token_seconds: float = 0.1

    def is_met(self, exchange: Exchange, pace: "Pace | None", duration_seconds: float) -> bool:
        """An answer that is not streamed shows no first token: it has the time that a stream
        of its length, just good enough, would have had."""
        if pace is None:
            if duration_seconds <= self.ttft_seconds:
                return True
            rest_seconds = max(later_tokens(exchange), 0) * self.time_per_output_token_seconds
            return duration_seconds <= self.ttft_seconds + rest_seconds
        if pace.ttft_seconds > self.ttft_seconds:
            return False
        per_token = pace.seconds_per_token
        return per_token is None or per_token <= self.time_per_output_token_seconds


class Pace(NamedTuple):
    """How quick a stream was; `seconds_per_token` counts the tokens after the first, and is None
    where there are none or the stream did not come to its end."""

    ttft_seconds: float
    seconds_per_token: float | None


def pace_of(exchange: Exchange) -> Pace | None:
    """None where no first token was seen."""
    first_token_at, heard_at = exchange.first_token_at, exchange.heard_at
    if first_token_at is None:
        return None
    ttft_seconds = first_token_at - exchange.started_at
    tokens = later_tokens(exchange)
    if heard_at is None or tokens <= 0:
        return Pace(ttft_seconds, None)
    return Pace(ttft_seconds, (heard_at - first_token_at) / tokens)


def later_tokens(exchange: Exchange) -> float:
    """Output tokens after the first. Choices of one request are generated side by side."""
    choices = exchange.choices
    tokens = exchange.usage.output_tokens
    return (tokens / choices if choices > 1 else tokens) - 1
