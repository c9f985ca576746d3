"""Token counts as an upstream reports them: believed where they are believable."""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import orjson

from gateway.errors import UpstreamFailed
from gateway.exchange import TokenUsage

# No engine counts beyond this in one answer; a larger number is a fault, not a fact.
MOST_TOKENS: Final = 1_000_000_000

_USAGE_KEY: Final = b'"usage":{'
_VLLM_USAGE: Final = re.compile(
    rb'"usage":\{"prompt_tokens":(\d{1,9}),"total_tokens":(\d{1,9})(?:,"completion_tokens":(\d{1,9}))?[,}]'
)


class ReportedUsage(NamedTuple):
    """One `usage` object; None where it says nothing believable."""

    input_tokens: int | None
    output_tokens: int | None


def read_usage(value: object) -> ReportedUsage | None:
    """Read a `usage` object in the words of chat and completions, or in those of responses."""
    if not isinstance(value, dict):
        return None
    if "input_tokens" in value:
        return ReportedUsage(_count(value["input_tokens"]), _count(value.get("output_tokens")))
    if "prompt_tokens" in value:
        return ReportedUsage(_count(value["prompt_tokens"]), _count(value.get("completion_tokens")))
    return None


def read_answer(body: bytes, *, otherwise: Callable[[], TokenUsage]) -> TokenUsage:
    """Usage of a whole answer; `otherwise` is asked for what it does not say.

    Raises UpstreamFailed if the body is no JSON object: nothing to pass on.
    """
    return _usage_as_vllm_writes_it(body) or _parsed_usage(body, otherwise())


def _usage_as_vllm_writes_it(body: bytes) -> TokenUsage | None:
    """The one usage object of an answer in vLLM's own spelling, without parsing the rest.

    A batch of embeddings is megabytes of numbers, which would hold up every stream while they
    are parsed. No text a model writes can look like this: quotes inside strings are escaped.
    """
    start = body.rfind(_USAGE_KEY)
    if start < 0 or body.find(_USAGE_KEY) != start or body[:1] != b"{" or body[-1:] != b"}":
        return None
    found = _VLLM_USAGE.match(body, start)
    if found is None:
        return None
    prompt, total, completion = map(int, found.groups(b"0"))
    return TokenUsage(prompt, completion) if prompt + completion == total else None


def _parsed_usage(body: bytes, otherwise: TokenUsage) -> TokenUsage:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamFailed("The upstream's answer is no JSON.") from None
    if not isinstance(answer, dict):
        raise UpstreamFailed("The upstream's answer is no JSON object.")
    return _complete(read_usage(answer.get("usage")), otherwise)


def read_token_count(body: bytes) -> int:
    """The `count` in /tokenize's answer. Raises UpstreamFailed if there is none to believe."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamFailed("The upstream's count of the prompt is no JSON.") from None
    count = _count(answer.get("count")) if isinstance(answer, dict) else None
    if count is None:
        raise UpstreamFailed("The upstream did not count the prompt.")
    return count


def _complete(reported: ReportedUsage | None, otherwise: TokenUsage) -> TokenUsage:
    if reported is None or reported.input_tokens is None:
        return otherwise
    if reported.output_tokens is not None:
        return TokenUsage(reported.input_tokens, reported.output_tokens)
    return TokenUsage(reported.input_tokens, otherwise.output_tokens, otherwise.output_tokens > 0)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def as_object(document: bytes) -> Mapping[str, object]:
    """The JSON object that `document` holds; an empty one where it holds something else."""
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
