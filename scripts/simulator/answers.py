"""The JSON of whole answers, key for key as vLLM 0.32 writes it."""

from collections.abc import Iterable
from dataclasses import replace

import orjson

from scripts.simulator.work import Choice, Dialect, Identity, Work

VLLM_VERSION = "0.32.0"
FINGERPRINT = f"vllm-{VLLM_VERSION}-51a1a70e"

# Stand-ins that survive serialisation and become the fields of the template.
ID = "\x00id"
CREATED = "\x00created"
DETAILS = "\x00details"
MESSAGES_USAGE = "\x00messages_usage"
_FIELDS = (
    (b"%", b"%%"),
    (b"\\u0000id", b"%(id)b"),
    (b'"\\u0000created"', b"%(created)d"),
    (b'"\\u0000details"', b"%(details)b"),
    (b'"\\u0000messages_usage"', b"%(messages_usage)b"),
)


def template(answer: dict[str, object]) -> bytes:
    """The answer as bytes in which id, time and cache details are still open."""
    raw = orjson.dumps(answer)
    for stand_in, field in _FIELDS:
        raw = raw.replace(stand_in, field)
    return raw


def render(work: Work, identity: Identity, cached_tokens: int | None) -> bytes:
    """The finished answer; `cached_tokens` None means they are not reported."""
    return work.answer % {
        b"id": identity.id,
        b"created": identity.created,
        b"details": cache_details(cached_tokens),
        b"messages_usage": orjson.dumps(messages_usage(work, cached_tokens)),
    }


def cache_details(cached_tokens: int | None) -> bytes:
    """`prompt_tokens_details` of a whole answer."""
    if cached_tokens is None:
        return b"null"
    return b'{"cached_tokens":%d,"created_cache_tokens":0,"multimodal_tokens":null}' % cached_tokens


def with_answer(work: Work) -> Work:
    """The work with the template of its whole answer."""
    shape = _SHAPES[work.dialect]
    return replace(work, answer=template(shape(work)))


def usage(prompt_tokens: int, output_tokens: int) -> dict[str, object]:
    """vLLM's UsageInfo."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
        "prompt_tokens_details": DETAILS,
        "completion_tokens_details": None,
    }


def messages_usage(work: Work, cached_tokens: int | None) -> dict[str, object]:
    """Usage in Anthropic's words: what came from the cache is no input there."""
    if cached_tokens is None:
        return {"input_tokens": work.prompt_tokens, "output_tokens": work.output_tokens}
    return {
        "input_tokens": work.prompt_tokens - cached_tokens,
        "output_tokens": work.output_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
    }


def messages_stop(work: Work) -> tuple[str, str | None]:
    """Anthropic's stop_reason and stop_sequence."""
    choice = work.choices[0]
    if choice.finish_reason == "length":
        return "max_tokens", None
    if choice.tool_name:
        return "tool_use", None
    if choice.stop_reason is not None:
        return "stop_sequence", choice.stop_reason
    return "end_turn", None


def finish_reason(choice: Choice, work: Work) -> str:
    """A call the model chose itself ends as tool_calls, a named one as stop."""
    if choice.tool_name and choice.finish_reason == "stop" and not work.named_tool:
        return "tool_calls"
    return choice.finish_reason


def _chat(work: Work) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion",
        "created": CREATED,
        "model": work.model,
        "choices": [_chat_choice(i, choice, work) for i, choice in enumerate(work.choices)],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(work.prompt_tokens, work.output_tokens),
        **_nulls("prompt_logprobs", "prompt_token_ids", "prompt_text"),
        **_nulls("kv_transfer_params", "ec_transfer_params", "metrics"),
    }


def _chat_choice(index: int, choice: Choice, work: Work) -> dict[str, object]:
    # A call cut short cannot be parsed: vLLM then gives it out as mere text.
    is_call = bool(choice.tool_name) and choice.finish_reason != "length"
    message: dict[str, object] = {
        "role": "assistant",
        "content": "" if is_call else choice.text,
        **_nulls("refusal", "annotations", "audio", "function_call"),
    }
    if is_call:
        function = {"name": choice.tool_name, "arguments": choice.text}
        call = {"id": f"chatcmpl-tool-{ID}", "type": "function", "function": function}
        message["tool_calls"] = [call]
    message["reasoning"] = None
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(choice, work),
        "stop_reason": choice.stop_reason,
        **_nulls("token_ids", "routed_experts"),
    }


def _completion(work: Work) -> dict[str, object]:
    return {
        "id": f"cmpl-{ID}",
        "object": "text_completion",
        "created": CREATED,
        "model": work.model,
        "choices": [
            {
                "index": index,
                "text": choice.text,
                "logprobs": None,
                "finish_reason": choice.finish_reason,
                "stop_reason": choice.stop_reason,
                **_nulls("token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts"),
            }
            for index, choice in enumerate(work.choices)
        ],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage(work.prompt_tokens, work.output_tokens),
        **_nulls("kv_transfer_params", "ec_transfer_params", "metrics"),
    }


def responses_message(text: str, *, status: str) -> dict[str, object]:
    """The one output item of a response."""
    part: dict[str, object] = {
        "annotations": [],
        "text": text,
        "type": "output_text",
        "logprobs": None,
    }
    return {
        "id": f"msg_{ID}",
        "content": [part],
        "role": "assistant",
        "status": status,
        "type": "message",
        "phase": None,
    }


def responses_object(work: Work, *, status: str) -> dict[str, object]:
    """The response object: empty while in progress, with output and usage afterwards."""
    begun = status == "in_progress"
    cut = work.choices[0].finish_reason == "length" and not begun
    text = work.choices[0].text
    return {
        "id": f"resp_{ID}",
        "created_at": CREATED,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        **_nulls("instructions", "metadata"),
        "model": work.model,
        "object": "response",
        "output": [] if begun else [responses_message(text, status="completed")],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": work.max_tokens,
        **_nulls("max_tool_calls", "previous_response_id", "prompt", "reasoning"),
        "service_tier": "auto",
        "status": "incomplete" if cut else status,
        **_nulls("text", "top_logprobs"),
        "truncation": "disabled",
        "usage": None if begun else _responses_usage(work),
        "user": None,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        **_nulls("kv_transfer_params", "ec_transfer_params"),
        **_nulls("input_messages", "output_messages"),
    }


def _responses_usage(work: Work) -> dict[str, object]:
    read: dict[str, object] = {"cached_tokens": 0, "cache_write_tokens": 0}
    written: dict[str, object] = {"reasoning_tokens": 0, "tool_output_tokens": 0}
    return {
        "input_tokens": work.prompt_tokens,
        "input_tokens_details": {
            **read,
            **_empties("input_tokens_per_turn", "cached_tokens_per_turn"),
        },
        "output_tokens": work.output_tokens,
        "output_tokens_details": {
            **written,
            **_empties("output_tokens_per_turn", "tool_output_tokens_per_turn"),
        },
        "total_tokens": work.prompt_tokens + work.output_tokens,
    }


def _responses(work: Work) -> dict[str, object]:
    return responses_object(work, status="completed")


def _messages(work: Work) -> dict[str, object]:
    choice = work.choices[0]
    reason, sequence = messages_stop(work)
    is_call = bool(choice.tool_name) and choice.finish_reason != "length"
    block: dict[str, object] = {"type": "text", "text": choice.text}
    if is_call:
        block = {
            "type": "tool_use",
            "id": f"chatcmpl-tool-{ID}",
            "name": choice.tool_name,
            "input": orjson.loads(choice.text),
        }
    answer: dict[str, object] = {
        "id": f"chatcmpl-{ID}",
        "type": "message",
        "role": "assistant",
        "content": [block],
        "model": work.model,
        "stop_reason": reason,
    }
    # Null members are left out of a whole answer.
    if sequence is not None:
        answer["stop_sequence"] = sequence
    return {**answer, "usage": MESSAGES_USAGE}


def _nulls(*names: str) -> dict[str, object]:
    return dict.fromkeys(names)


def _empties(*names: str) -> dict[str, object]:
    return {name: [] for name in names}


def model_list(models: Iterable[str], *, created: int, max_model_len: int) -> bytes:
    """The answer of GET /v1/models."""
    cards = [_model_card(name, created, max_model_len) for name in models]
    return orjson.dumps({"object": "list", "data": cards})


def _model_card(name: str, created: int, max_model_len: int) -> dict[str, object]:
    permission = {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": name,
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [permission],
    }


_SHAPES = {
    Dialect.CHAT: _chat,
    Dialect.COMPLETION: _completion,
    Dialect.RESPONSES: _responses,
    Dialect.MESSAGES: _messages,
}
