"""The Anthropic dialect: /v1/messages and its count of tokens."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from gateway.errors import GatewayError
from gateway.exchange import Allowance, InferenceCall, Operation, ServedModel
from gateway.wire import anthropic_errors, anthropic_models
from gateway.wire.anthropic_calls import AnthropicCall
from gateway.wire.anthropic_counting import CountCall
from gateway.wire.anthropic_fields import (
    TEMPLATE_OVERRIDES,
    UNHEARD_FIELDS,
    require_conversation,
    require_max_tokens,
    require_model,
)
from gateway.wire.anthropic_limits import Counted, Standing, limit_headers
from gateway.wire.anthropic_media import inspect_sources
from gateway.wire.openai import OpenAIConfig
from gateway.wire.openai_checks import Fields
from gateway.wire.openai_fields import refuse_fields
from gateway.wire.openai_media import NO_MEDIA
from gateway.wire.openai_prompt import chat_prompt
from gateway.wire.strictjson import parse_object


class AnthropicDialect:
    """A Dialect; see there. Checks only what the gateway reads: vLLM judges the rest.

    The operator's policy over fields and media is the one of the OpenAI dialect.
    """

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._dropped_fields = config.dropped_fields | UNHEARD_FIELDS.keys()

    def parse(self, operation: Operation, body: bytes) -> InferenceCall:
        document = parse_object(body)
        fields = Fields(document.fields)
        refuse_fields(document.fields, self._config.refused_fields)
        if "chat_template" in self._config.refused_fields:
            refuse_fields(fields.object("chat_template_kwargs"), TEMPLATE_OVERRIDES)
        model = require_model(fields)
        require_conversation(document.fields)
        media = inspect_sources(
            document.fields,
            document.canonical,
            allowed_domains=self._config.allowed_media_domains,
        )
        prompt = chat_prompt(document.fields, len(document.canonical), media).size
        if operation is Operation.COUNT_TOKENS:
            return CountCall(
                operation=operation,
                document=document,
                dropped_fields=self._dropped_fields,
                model=model,
                prompt=prompt,
                media_tokens=chat_prompt({}, 0, media).size.estimate,
            )
        return AnthropicCall(
            operation=operation,
            document=document,
            dropped_fields=self._dropped_fields,
            model=model,
            is_stream=fields.flag("stream"),
            max_tokens=require_max_tokens(fields),
            prompt=prompt,
            has_media=media != NO_MEDIA,
        )

    def status_of(self, error: GatewayError) -> int:
        """529 where the OpenAI dialect says 503; else the error's own status."""
        return anthropic_errors.status_of(error)

    def render_error(self, error: GatewayError, *, request_id: str) -> bytes:
        return anthropic_errors.error_body(error, request_id=request_id)

    def error_event(self, error: GatewayError, *, request_id: str) -> bytes:
        return anthropic_errors.error_event(error, request_id=request_id)

    def identity_headers(self, request_id: bytes) -> list[tuple[bytes, bytes]]:
        # The second for logs and proxies, which look for the same name whatever the dialect.
        return [(b"request-id", request_id), (b"x-request-id", request_id)]

    def limit_headers(
        self, requests: Allowance | None, tokens: Allowance | None, *, now: float
    ) -> list[tuple[bytes, bytes]]:
        return limit_headers(
            Standing(counted, left.limit, left.remaining, _back_at(now, left))
            for counted, left in ((Counted.REQUESTS, requests), (Counted.TOKENS, tokens))
            if left is not None
        )

    def model_list(self, models: Sequence[ServedModel]) -> Mapping[str, object]:
        return anthropic_models.model_list(models)

    def model_card(self, model: ServedModel) -> Mapping[str, object]:
        return anthropic_models.model_card(model)


def _back_at(now: float, left: Allowance) -> datetime:
    return datetime.fromtimestamp(now + left.reset_after_seconds, UTC)
