"""Token counts in Anthropic's words, whose input is the sum of three numbers."""

from collections.abc import Mapping
from typing import Final

from gateway.exchange import TokenUsage
from gateway.wire import openai_usage
from gateway.wire.openai_usage import MOST_TOKENS, ReportedUsage

_INPUT: Final = "input_tokens"
_CACHED: Final = ("cache_creation_input_tokens", "cache_read_input_tokens")


def read_usage(value: object) -> ReportedUsage:
    """A `usage` object: what was read from the cache and written to it is input like the rest.

    An input of nothing is no count: some servers report zero before they know.
    """
    if not isinstance(value, dict):
        return ReportedUsage(None, None)
    parts = [_count(value.get(name)) for name in (_INPUT, *_CACHED)]
    whole = sum(part for part in parts if part is not None)
    return ReportedUsage(whole or None, _count(value.get("output_tokens")))


def read_chat_usage(value: object) -> ReportedUsage | None:
    """Chat's `usage` object; here too an input of nothing is no count."""
    reported = openai_usage.read_usage(value)
    return reported and ReportedUsage(reported.input_tokens or None, reported.output_tokens)


def usage_of_chat(usage: TokenUsage, reported: object) -> dict[str, object]:
    """The usage to show for a translated answer: what is charged, of which so much was cached
    as the upstream's own usage object has `reported`."""
    shown: dict[str, object] = {_INPUT: usage.input_tokens, "output_tokens": usage.output_tokens}
    details = reported.get("prompt_tokens_details") if isinstance(reported, dict) else None
    if not isinstance(details, dict):
        return shown
    left = usage.input_tokens
    for name, key in zip(_CACHED, ("created_cache_tokens", "cached_tokens"), strict=True):
        cached = min(_count(details.get(key)) or 0, left)
        shown[name] = cached
        left -= cached
    return {**shown, _INPUT: left}


class RunningTally:
    """The count of one native stream while it runs, field by field as a client adds it up.

    Between the first event and the last one there is no usage: each piece of content counts as
    one token. What the end reports replaces the estimate, also where it is less: the client
    sees the same number. A prompt that nobody reports counts as `prompt_tokens`, and is shown
    so: coding agents work with the number.
    """

    __slots__ = ("_has_begun", "_input", "_is_counted", "_is_guessed", "_output", "_prompt_tokens")

    def __init__(self, *, prompt_tokens: int) -> None:
        self._prompt_tokens = max(1, prompt_tokens)
        self._input: dict[str, int] = {}
        self._output = 0
        self._has_begun = False
        self._is_guessed = True
        self._is_counted = False

    def begin(self) -> None:
        """The upstream has said something: from here on the prompt counts."""
        self._has_begun = True

    def count(self, pieces: int) -> None:
        self._output += pieces
        self._is_counted = False

    def open(self, usage: object) -> dict[str, object]:
        """Take the usage of message_start. Returns it as the client is to see it."""
        given = usage if isinstance(usage, dict) else {}
        return {
            **given,
            "output_tokens": _count(given.get("output_tokens")) or 0,
            **self._take(given),
        }

    def settle(self, usage: object) -> dict[str, object]:
        """Take the usage of a message_delta, which speaks for all that came before it."""
        given = usage if isinstance(usage, dict) else {}
        output = _count(given.get("output_tokens"))
        if output is not None:
            self._output = output
            self._is_counted = True
        changes = self._take(given) if _INPUT in given else {}
        return {**given, **changes, "output_tokens": self._output}

    def as_usage(self) -> TokenUsage:
        if not self._has_begun:
            return TokenUsage()
        input_tokens = sum(self._input.values()) or self._prompt_tokens
        is_exact = self._is_counted and not self._is_guessed
        return TokenUsage(input_tokens, self._output, is_estimated=not is_exact)

    def _take(self, given: Mapping[str, object]) -> dict[str, int]:
        """Note the input that is `given`. Returns those fields as the client is to see them."""
        for name in (_INPUT, *_CACHED):
            count = _count(given.get(name))
            if count is not None:
                self._input[name] = count
        self._is_guessed = not any(self._input.values())
        if self._is_guessed:
            self._input = {_INPUT: self._prompt_tokens}
        named = [name for name in _CACHED if given.get(name) is not None]
        return {name: self._input.get(name, 0) for name in (_INPUT, *named)}


def completed(reported: ReportedUsage, otherwise: TokenUsage) -> TokenUsage:
    """What a whole answer's usage comes to, `otherwise` filling in what it does not say."""
    input_tokens, output_tokens = reported
    if input_tokens is not None and output_tokens is not None:
        return TokenUsage(input_tokens, output_tokens)
    return TokenUsage(
        otherwise.input_tokens if input_tokens is None else input_tokens,
        otherwise.output_tokens if output_tokens is None else output_tokens,
        is_estimated=True,
    )


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
