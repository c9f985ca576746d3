"""The simulator's answers have the very shape of those recorded from a real vLLM."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.scripts.simulated import simulated

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
# Left out: log probabilities, which the simulator answers with null, and tools left to the
# model's choice, which the simulator never calls.
MATCHED = (
    "chat_plain",
    "chat_plain_n2",
    "chat_plain_json_schema",
    "chat_max_completion_tokens",
    "chat_stream",
    "chat_stream_usage",
    "chat_stream_continuous_usage",
    "chat_stream_n2_continuous_usage",
    "completion_plain",
    "completion_echo",
    "completion_echo_nothing_generated",
    "completion_prompts",
    "completion_stream",
    "completion_stream_usage",
    "completion_stream_prompts_n2_continuous_usage",
    "completion_tokens",
    "completion_default_length",
    "tool_named_plain",
    "tool_named_stream_continuous_usage",
    "tool_required_plain",
    "tool_required_stream_continuous_usage",
    "chat_without_model",
    "chat_unknown_field",
    "responses_plain",
    "responses_stream",
    "responses_error_unknown_model",
    "messages_plain",
    "messages_stream",
    "messages_count_tokens",
    "messages_error_unknown_model",
    "messages_error_without_max_tokens",
    "messages_error_too_long",
    "messages_error_too_long_stream",
    "embeddings_string",
    "embeddings_list",
    "embeddings_tokens",
    "embeddings_messages",
    "embeddings_base64",
    "rerank",
    "score",
    "models",
    "version",
    "load",
    "health",
    "tokenize_prompt",
    "tokenize_prompt_strings",
    "tokenize_messages",
    "detokenize",
    "error_unknown_model",
    "error_unknown_path",
    "tokenize_error_unknown_model",
    "error_wrong_method",
    "error_prompt_too_long",
    "error_zero_max_tokens",
    "error_zero_n",
    "error_temperature",
    "error_wrong_type",
    "error_greedy_n2",
    "error_stream_options_without_stream",
    "error_without_messages",
    "error_content_type",
    "embeddings_error_unknown_model",
)


@pytest.mark.parametrize("name", MATCHED)
async def test_answer_has_the_recorded_shape(name: str) -> None:
    recorded = orjson.loads((TRANSCRIPTS / f"{name}.json").read_bytes())
    request = recorded["request"]
    body = request.get("body")
    sent = {"json": body} if isinstance(body, dict) else {"content": body}
    served = {"models": ("tiny",), "embedding_models": ("tiny-embed",), "max_model_len": 256}
    async with simulated(**served) as (_, client):
        answer = await client.request(
            request["method"], request["path"], headers=request["headers"], **sent
        )

    assert answer.status_code == recorded["status"]
    assert shapes(answer.text) == shapes("\n".join(recorded["body_lines"]))
    assert header_names(answer.headers) == header_names(recorded["headers"])


def shapes(text: str) -> list[str]:
    """Each distinct line's shape in order of appearance: JSON without its values."""
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line]
    return list(dict.fromkeys(shape_of(line) for line in lines))


def shape_of(line: str) -> str:
    try:
        return str(skeleton(orjson.loads(line)))
    except orjson.JSONDecodeError:
        return line


def skeleton(value: Any) -> Any:
    """Keys in their order and the types of the leaves; a list by its distinct members."""
    if isinstance(value, dict):
        return {key: skeleton(member) for key, member in value.items()}
    if isinstance(value, list):
        return list(dict.fromkeys(str(skeleton(member)) for member in value))
    return value if value is None or isinstance(value, bool) else type(value).__name__


def header_names(headers: Any) -> list[str]:
    return [name.lower() for name in headers]
