"""A whole /v1/messages answer of a server that speaks Anthropic: counted and mended."""

import orjson

from gateway.errors import UpstreamErred, UpstreamFailed
from gateway.exchange import TokenUsage
from gateway.wire.anthropic_events import message_id
from gateway.wire.anthropic_usage import completed, read_usage


def mend_message(
    body: bytes, *, otherwise: TokenUsage, shown_model: str = ""
) -> tuple[TokenUsage, bytes]:
    """The answer's usage, and the answer as the client is to get it.

    `otherwise` is shown and charged where the usage says nothing. Raises UpstreamFailed if the
    body is no message.
    """
    message = parsed_answer(body)
    given = message.get("usage")
    shown = given if isinstance(given, dict) else {}
    usage = completed(read_usage(shown), otherwise)
    if usage.is_estimated:
        shown = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    mended = {"stop_reason": None, "stop_sequence": None, **message, "usage": shown}
    mended["id"] = message_id(message.get("id"))
    if shown_model:
        mended["model"] = shown_model
    return usage, orjson.dumps(mended)


def parsed_answer(body: bytes) -> dict[str, object]:
    """The object that an upstream answered. Raises UpstreamFailed for an error or anything else."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamFailed("The upstream's answer is no JSON.") from None
    if not isinstance(answer, dict):
        raise UpstreamFailed("The upstream's answer is no JSON object.")
    if answer.get("error"):
        raise UpstreamErred("The upstream reported an internal error.")
    return answer
