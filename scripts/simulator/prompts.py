"""Prompts in every form the endpoints take them, tokenised once."""

from scripts.simulator import tokens
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.errors import bad_request, invalid, prompt_too_long
from scripts.simulator.fields import Fields
from scripts.simulator.prefix_cache import block_keys
from scripts.simulator.work import Prompt


def from_text(text: str, fields: Fields, config: SimulatorConfig) -> Prompt:
    """Raises ApiError (400) when the text is longer than the context."""
    pieces = tokens.split(text)
    _check(len(pieces), config)
    return Prompt(text, len(pieces), block_keys(pieces, fields.text("cache_salt")))


def from_chat(fields: Fields, config: SimulatorConfig) -> Prompt:
    """The messages of a chat request through the template, tools included."""
    return from_text(chat_text(fields), fields, config)


def chat_text(fields: Fields) -> str:
    """The templated conversation; raises ApiError (400) without messages."""
    messages = fields.items("messages")
    if not messages:
        raise bad_request("messages must not be empty.", "messages")
    generate = fields.flag("add_generation_prompt", default=True)
    return tokens.chat_prompt(messages, fields.get("tools"), generate=generate)


def from_member(name: str, fields: Fields, config: SimulatorConfig) -> tuple[Prompt, ...]:
    """A text, token ids, or a list of either; raises ApiError (400) for anything else."""
    value = fields.require(name)
    if isinstance(value, str):
        return (from_text(value, fields, config),)
    if not isinstance(value, list) or not value:
        raise invalid(f"body.{name}", "Input should be a valid string", "string_type")
    if isinstance(value[0], int):
        return (_from_ids(name, value, fields, config),)
    return tuple(_from_item(name, item, fields, config) for item in value)


def _from_item(name: str, item: object, fields: Fields, config: SimulatorConfig) -> Prompt:
    if isinstance(item, list):
        return _from_ids(name, item, fields, config)
    if not isinstance(item, str):
        raise invalid(f"body.{name}", "Input should be a valid string", "string_type")
    return from_text(item, fields, config)


def _from_ids(name: str, ids: list[object], fields: Fields, config: SimulatorConfig) -> Prompt:
    known = [token for token in ids if isinstance(token, int) and 0 <= token < 2**63]
    if len(known) < len(ids):
        raise invalid(f"body.{name}", "Input should be a valid integer", "int_type")
    _check(len(known), config)
    text = tokens.decode(known)
    return Prompt(text, len(known), block_keys(known, fields.text("cache_salt")))


def _check(count: int, config: SimulatorConfig) -> None:
    if count > config.max_model_len:
        raise prompt_too_long(count, config.max_model_len)
