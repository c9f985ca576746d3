"""The models of this gateway in the shape of OpenAI's GET /v1/models, as vLLM answers it."""

from collections.abc import Sequence

from gateway.exchange import ServedModel


def model_card(model: ServedModel) -> dict[str, object]:
    """One model, as GET /v1/models/{id} answers it."""
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "vllm",
        "max_model_len": model.context_tokens,
    }


def model_list(models: Sequence[ServedModel]) -> dict[str, object]:
    return {"object": "list", "data": [model_card(model) for model in models]}
