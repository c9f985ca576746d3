"""A whole answer of /v1/chat/completions as the message that an Anthropic client expects."""

from collections.abc import Mapping

import orjson

from gateway.errors import UpstreamFailed
from gateway.exchange import TokenUsage
from gateway.wire.anthropic_answer import parsed_answer
from gateway.wire.anthropic_events import message_id
from gateway.wire.anthropic_fields import objects_in, text_in
from gateway.wire.anthropic_stops import parsed_input, stop_of
from gateway.wire.anthropic_usage import completed, read_chat_usage, usage_of_chat
from gateway.wire.openai_usage import ReportedUsage


def message_of_chat(
    body: bytes, *, otherwise: TokenUsage, shown_model: str = ""
) -> tuple[TokenUsage, bytes]:
    """The answer's usage, and the message. Raises UpstreamFailed if the body is no chat's answer.

    `otherwise` is shown and charged where the usage says nothing.
    """
    answer = parsed_answer(body)
    choice = next(iter(objects_in(answer.get("choices"))), {})
    said = choice.get("message")
    if not isinstance(said, dict):
        raise UpstreamFailed("The upstream's answer holds no message.")
    reported = read_chat_usage(answer.get("usage")) or ReportedUsage(None, None)
    usage = completed(reported, otherwise)
    identity = message_id(answer.get("id"))
    calls = [_tool_use(call, f"{identity}_{at}") for at, call in enumerate(_calls(said))]
    stop = stop_of(
        choice.get("finish_reason"),
        choice.get("stop_reason"),
        has_called=bool(calls),
        is_call_whole=bool(calls),
    )
    message = {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": shown_model or answer.get("model"),
        # Clients look at the first block without asking whether there is one.
        "content": [*_words(said, identity), *calls] or [{"type": "text", "text": ""}],
        "stop_reason": "refusal" if said.get("refusal") else stop.reason,
        "stop_sequence": stop.sequence,
        "usage": usage_of_chat(usage, answer.get("usage")),
    }
    return usage, orjson.dumps(message)


def signature_of(identity: str) -> str:
    """Clients keep a thought only with a signature; here it proves nothing and is never read."""
    return identity.removeprefix("msg_")


def _words(said: Mapping[str, object], identity: str) -> list[dict[str, object]]:
    blocks: list[dict[str, object]] = []
    thought = text_in(said.get("reasoning") or said.get("reasoning_content"))
    if thought:
        signature = signature_of(identity)
        blocks.append({"type": "thinking", "thinking": thought, "signature": signature})
    text = text_in(said.get("content")) or text_in(said.get("refusal"))
    if text:
        blocks.append({"type": "text", "text": text})
    return blocks


def _calls(said: Mapping[str, object]) -> list[Mapping[str, object]]:
    calls = objects_in(said.get("tool_calls"))
    return [call for call in calls if isinstance(call.get("function"), dict)]


def _tool_use(call: Mapping[str, object], otherwise: str) -> dict[str, object]:
    function = call["function"]
    named = function if isinstance(function, dict) else {}
    arguments = text_in(named.get("arguments"))
    given = parsed_input(arguments)
    return {
        "type": "tool_use",
        "id": text_in(call.get("id")) or otherwise.replace("msg_", "toolu_"),
        "name": text_in(named.get("name")),
        # Anthropic's advice for arguments that are no JSON: the tool's own check refuses them,
        # and the model reads why.
        "input": {"INVALID_JSON": arguments} if given is None else given,
    }
