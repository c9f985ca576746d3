"""The fields of an Anthropic request: what must be right, and what goes no further."""

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.errors import InvalidRequest
from gateway.wire.openai_checks import Fields

# Each means something at Anthropic and nothing here: the answer is the same without it.
UNHEARD_FIELDS: Final[Mapping[str, str]] = {
    "betas": "what the SDKs send as the header anthropic-beta",
    "container": "Anthropic's code execution; there is no container here",
    "context_management": "edits of the history that Anthropic's servers would make",
    "diagnostics": "reports about Anthropic's own prompt cache",
    "fallbacks": "other models of Anthropic's; which model answers is the operator's decision",
    "inference_geo": "the region of Anthropic's servers",
    "mcp_servers": "tools that Anthropic's servers would call",
    "metadata": "names the client's own end user, and nothing upstream reads it",
    "service_tier": "Anthropic's price list",
    "speed": "Anthropic's price list",
    "user_profile_id": "names the client's own end user",
    "workspace_id": "names an account at Anthropic",
}

# Older vLLM let these through to the tokenizer (CVE-2025-61620, CVE-2025-62426).
TEMPLATE_OVERRIDES: Final = frozenset({"chat_template", "tokenize"})

_ROLES: Final = ("user", "assistant", "system")


def require_model(fields: Fields) -> str:
    model = fields.text("model")
    if not model:
        raise _missing("model")
    return model


def require_max_tokens(fields: Fields) -> int:
    """Anthropic has no default for it."""
    limit = fields.integer("max_tokens", least=1)
    if limit is None:
        raise _missing("max_tokens")
    return limit


def require_conversation(values: Mapping[str, object]) -> None:
    """Messages, system prompt and tools in the shape that the rest of this dialect relies on."""
    fields = Fields(values)
    fields.require_objects("messages")
    for at, message in enumerate(objects_in(values.get("messages"))):
        where = f"messages.{at}"
        if message.get("role") not in _ROLES:
            raise _invalid(f"{where}.role", "user, assistant or system")
        _require_content(message.get("content"), f"{where}.content")
    if values.get("system") is not None:
        _require_content(values["system"], "system")
    if values.get("tools") is not None:
        _require_tools(values["tools"])


def objects_in(value: object) -> Sequence[Mapping[str, object]]:
    """The objects of a list; nothing where there is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_in(value: object) -> str:
    return value if isinstance(value, str) else ""


def _require_content(content: object, where: str) -> None:
    """A text, or blocks that each name their type."""
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise _invalid(where, "a string or a list of content blocks")
    for at, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise _invalid(f"{where}.{at}", "an object with a type")
        if block["type"] == "text" and not isinstance(block.get("text"), str):
            raise _invalid(f"{where}.{at}.text", "a string")


def _require_tools(tools: object) -> None:
    if not isinstance(tools, list):
        raise _invalid("tools", "a list of tools")
    for at, tool in enumerate(tools):
        where = f"tools.{at}"
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise _invalid(where, "an object with a name")
        if isinstance(tool.get("input_schema"), dict):
            continue
        kind = tool.get("type")
        if isinstance(kind, str) and kind != "custom":
            raise InvalidRequest(
                f"{where}: tools of the type {kind[:100]!r} are built into Anthropic's models and "
                "servers. Describe the tool with an 'input_schema' and run it in the client.",
                code="unsupported_parameter",
                param=where,
            )
        raise _invalid(f"{where}.input_schema", "an object")


def _missing(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: Field required", code="missing_required_parameter", param=name)


def _invalid(where: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"{where}: must be {expected}.", code="invalid_type", param=where)
