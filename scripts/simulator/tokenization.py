"""/tokenize and /detokenize: the very counts that generation charges."""

import orjson

from scripts.simulator import prompts, tokens
from scripts.simulator.config import SimulatorConfig
from scripts.simulator.errors import invalid
from scripts.simulator.fields import Fields
from scripts.simulator.generation import served_model


def tokenize(fields: Fields, config: SimulatorConfig) -> bytes:
    """A prompt, or messages through the chat template; raises ApiError as vLLM refuses."""
    served_model(fields, (*config.models, *config.embedding_models))
    if fields.get("messages") is None:
        text = fields.text("prompt", str(fields.require("prompt")))
    else:
        text = prompts.chat_text(fields)
    ids = tokens.encode(text)
    answer = {
        "count": len(ids),
        "max_model_len": config.max_model_len,
        "tokens": ids,
        "token_strs": tokens.split(text) if fields.flag("return_token_strs") else None,
    }
    return orjson.dumps(answer)


def detokenize(fields: Fields, config: SimulatorConfig) -> bytes:
    """The text of token ids; raises ApiError as vLLM refuses."""
    served_model(fields, (*config.models, *config.embedding_models))
    ids = fields.items("tokens")
    known = [token for token in ids if isinstance(token, int) and 0 <= token < 2**63]
    if len(known) < len(ids):
        raise invalid("body.tokens", "Input should be a valid integer", "int_type")
    return orjson.dumps({"prompt": tokens.decode(known)})
