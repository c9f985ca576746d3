"""An Anthropic request in the words of /v1/chat/completions, for servers that know no other.

The conversation comes out as vLLM's own /v1/messages would make it, so that both paths put the
same prompt before the model.
"""

from collections.abc import Mapping
from typing import Final

from gateway.errors import InvalidRequest
from gateway.wire.anthropic_fields import objects_in, text_in
from gateway.wire.anthropic_system import hoist_system, system_text
from gateway.wire.anthropic_turns import assistant_turn, user_turns

# Spelt alike on both sides. The latter are vLLM's own, where the operator's policy lets them pass.
_SAME: Final = (
    "temperature",
    "top_p",
    "top_k",
    "cache_salt",
    "ec_transfer_params",
    "kv_transfer_params",
    "vllm_xargs",
    "watermarking",
)
_TOOL_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


def chat_conversation(fields: Mapping[str, object]) -> dict[str, object]:
    """What makes the prompt: messages, tools, and what the chat template is told.

    Raises InvalidRequest for blocks that chat has no words for.
    """
    fields = {**fields, **hoist_system(fields)}
    messages: list[dict[str, object]] = []
    system = system_text(fields.get("system"))
    if system:
        messages.append({"role": "system", "content": system})
    for at, message in enumerate(objects_in(fields.get("messages"))):
        content, where = message.get("content"), f"messages.{at}.content"
        if message.get("role") == "assistant":
            messages.append(assistant_turn(content, where))
        elif message.get("role") == "user":
            messages.extend(user_turns(content, where))
        else:
            raise InvalidRequest(
                f"{where}: the upstream cannot add or remove tools within a conversation.",
                code="unsupported_parameter",
                param=where,
            )
    conversation: dict[str, object] = {"messages": messages}
    tools = [_tool(tool) for tool in objects_in(fields.get("tools"))]
    if tools:
        conversation["tools"] = tools
    template = _template_kwargs(fields)
    if template:
        conversation["chat_template_kwargs"] = template
    return conversation


def chat_request(fields: Mapping[str, object], *, is_stream: bool) -> dict[str, object]:
    """The whole request but for its model and its max_tokens. Raises as `chat_conversation`."""
    request = chat_conversation(fields)
    request.update((name, fields[name]) for name in _SAME if fields.get(name) is not None)
    if fields.get("stop_sequences"):
        request["stop"] = fields["stop_sequences"]
    if "tools" in request:
        request.update(_tool_choice(fields.get("tool_choice")))
    request.update(_output_config(fields))
    if is_stream:
        request["stream"] = True
        request["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return request


def _tool(tool: Mapping[str, object]) -> dict[str, object]:
    schema = tool.get("input_schema")
    parameters = {"type": "object", **schema} if isinstance(schema, dict) else {"type": "object"}
    function: dict[str, object] = {"name": tool.get("name"), "parameters": parameters}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _tool_choice(asked: object) -> dict[str, object]:
    if not isinstance(asked, dict):
        return {}
    kind = text_in(asked.get("type"))
    if kind == "tool":
        named = {"type": "function", "function": {"name": asked.get("name")}}
        choice: dict[str, object] = {"tool_choice": named}
    elif kind in _TOOL_CHOICES:
        choice = {"tool_choice": _TOOL_CHOICES[kind]}
    else:
        raise InvalidRequest(
            "tool_choice.type: must be auto, any, tool or none.", param="tool_choice.type"
        )
    if asked.get("disable_parallel_tool_use") is True:
        choice["parallel_tool_calls"] = False
    return choice


def _output_config(fields: Mapping[str, object]) -> dict[str, object]:
    """Effort and a schema for the answer; the schema was a field of its own in older SDKs."""
    asked = fields.get("output_config")
    config = asked if isinstance(asked, dict) else {}
    changes: dict[str, object] = {}
    if config.get("effort") is not None:
        changes["reasoning_effort"] = config["effort"]
    shape = config.get("format") or fields.get("output_format")
    if isinstance(shape, dict) and isinstance(shape.get("schema"), dict):
        schema = {"name": "json_schema", "schema": shape["schema"]}
        changes["response_format"] = {"type": "json_schema", "json_schema": schema}
    return changes


def _template_kwargs(fields: Mapping[str, object]) -> dict[str, object]:
    """Whether to think is the chat template's business; most call the switch by this name.

    The budget stays behind: vLLM refuses one where it was started without a reasoning parser.
    """
    asked, thinking = fields.get("chat_template_kwargs"), fields.get("thinking")
    kwargs = dict(asked) if isinstance(asked, dict) else {}
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind in ("enabled", "disabled"):
        kwargs.setdefault("enable_thinking", kind == "enabled")
    return kwargs
