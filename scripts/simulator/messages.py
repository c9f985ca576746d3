"""/v1/messages and its count of tokens, as vLLM serves them: by way of its own chat."""

from collections.abc import Iterable
from dataclasses import replace

import orjson

from scripts.simulator import answers, prompts, tokens
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.errors import ApiError
from scripts.simulator.fields import Fields
from scripts.simulator.generation import chat_work, served_model
from scripts.simulator.work import Dialect, Work

# What keeps its name on the way to chat.
_SAME = ("model", "max_tokens", "stream", "temperature", "top_p", "top_k")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_SCHEMA_FAULT = "Bad Request"


class MessagesError(ApiError):
    """A refusal in Anthropic's envelope, with vLLM's own word for its type."""

    def body(self) -> bytes:
        error = {"type": self.kind, "message": str(self)}
        return orjson.dumps({"type": "error", "error": error})


def messages_work(fields: Fields, config: SimulatorConfig) -> Work:
    """Raises ApiError as vLLM refuses: what its schema finds in OpenAI's envelope, the rest in
    Anthropic's."""
    fields.require("max_tokens")
    chat = _as_chat(fields)
    try:
        work = chat_work(chat, config)
    except ApiError as error:
        raise _in_envelope(error) from None
    return answers.with_answer(replace(work, dialect=Dialect.MESSAGES))


def count_tokens(fields: Fields, config: SimulatorConfig) -> bytes:
    """The very count that an answer to the same conversation charges."""
    try:
        served_model(fields, config.models)
        count = len(tokens.split(prompts.chat_text(_as_chat(fields))))
    except ApiError as error:
        raise _in_envelope(error) from None
    context = {"original_input_tokens": count}
    return orjson.dumps({"input_tokens": count, "context_management": context})


def _in_envelope(error: ApiError) -> ApiError:
    if error.kind == _SCHEMA_FAULT:
        return error
    return MessagesError(error.status, str(error), error.kind)


def _as_chat(fields: Fields) -> Fields:
    """The chat request that vLLM makes of it."""
    system = tokens.content_text(fields.get("system"))
    said = [{"role": "system", "content": system}] if system else []
    chat: dict[str, object] = {name: fields.get(name) for name in _SAME}
    chat["messages"] = [*said, *_turns(fields.items("messages"))]
    chat["stop"] = fields.get("stop_sequences")
    tools = fields.get("tools")
    if isinstance(tools, list) and tools:
        chat["tools"] = [_tool(Fields(tool)) for tool in tools if isinstance(tool, dict)]
        chat["tool_choice"] = _tool_choice(fields.nested("tool_choice"))
    return Fields(chat)


def _turns(messages: Iterable[object]) -> list[dict[str, object]]:
    turns: list[dict[str, object]] = []
    for message in messages:
        if not isinstance(message, dict):
            continue
        role, content = message.get("role"), message.get("content")
        if isinstance(content, list):
            turns += _blocks(role, [Fields(block) for block in content if isinstance(block, dict)])
        else:
            turns.append({"role": role, "content": content})
    return turns


def _blocks(role: object, blocks: Iterable[Fields]) -> list[dict[str, object]]:
    results: list[dict[str, object]] = []
    calls: list[dict[str, object]] = []
    parts: list[dict[str, object]] = []
    for block in blocks:
        kind = block.text("type")
        if kind == "tool_result":
            text = tokens.content_text(block.get("content"))
            identity = block.text("tool_use_id")
            results.append({"role": "tool", "tool_call_id": identity, "content": text})
        elif kind == "tool_use":
            calls.append(_call(block))
        elif kind in ("text", "image"):
            parts.append(block.members())
    turn: dict[str, object] = {"role": role, "content": parts}
    if calls:
        turn["tool_calls"] = calls
    return [*results, turn] if parts or calls else results


def _call(block: Fields) -> dict[str, object]:
    arguments = orjson.dumps(block.nested("input").members()).decode()
    function = {"name": block.text("name"), "arguments": arguments}
    return {"id": block.text("id"), "type": "function", "function": function}


def _tool(tool: Fields) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.text("name")}
    if tool.get("description") is not None:
        function["description"] = tool.get("description")
    function["parameters"] = tool.get("input_schema")
    return {"type": "function", "function": function}


def _tool_choice(choice: Fields) -> object:
    if choice.text("type") == "tool":
        return {"type": "function", "function": {"name": choice.text("name")}}
    return _CHOICES.get(choice.text("type"))
