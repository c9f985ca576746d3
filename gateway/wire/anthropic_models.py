"""The models of this gateway in the shape of Anthropic's GET /v1/models."""

from collections.abc import Sequence
from typing import Final

from gateway.exchange import ServedModel

# Anthropic's own value where the date of a model is unknown.
_UNKNOWN: Final = "1970-01-01T00:00:00Z"


def model_card(model: ServedModel) -> dict[str, object]:
    """One model, as GET /v1/models/{id} answers it."""
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": _UNKNOWN,
        "lifecycle": "active",
        "max_input_tokens": model.context_tokens,
        "max_tokens": model.context_tokens,
    }


def model_list(models: Sequence[ServedModel]) -> dict[str, object]:
    """All models on one page."""
    return {
        "data": [model_card(model) for model in models],
        "has_more": False,
        "first_id": models[0].name if models else None,
        "last_id": models[-1].name if models else None,
    }
