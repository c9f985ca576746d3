"""Why an answer ended, from chat's words to Anthropic's, and what a tool was called with."""

from typing import NamedTuple

import orjson


class Stop(NamedTuple):
    """Anthropic's stop_reason, and the stop sequence that was met, if one was."""

    reason: str
    sequence: str | None = None


def stop_of(finish_reason: object, met: object, *, has_called: bool, is_call_whole: bool) -> Stop:
    """`met` is vLLM's stop_reason: a text where one of the caller's stop sequences was met, a
    token's number or null where the model ended by itself.

    vLLM says `stop` after a call that was forced by name. A call that a stop sequence or the
    ceiling cut short must not look like one to be run.
    """
    if finish_reason == "length":
        return Stop("max_tokens")
    if finish_reason == "content_filter":
        return Stop("refusal")
    if isinstance(met, str) and not is_call_whole:
        return Stop("stop_sequence", met)
    return Stop("tool_use" if has_called else "end_turn")


def parsed_input(arguments: str) -> dict[str, object] | None:
    """The arguments of a call; None where they are no JSON object."""
    try:
        value = orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
