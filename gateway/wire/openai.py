"""The OpenAI dialect, as vLLM speaks it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.errors import GatewayError, InvalidRequest
from gateway.exchange import Allowance, Operation, ServedModel
from gateway.wire import openai_errors, openai_limits, openai_models
from gateway.wire.openai_audio import AudioCall, parse_audio
from gateway.wire.openai_calls import OUTPUT_LIMIT_FIELDS, UNMETERED, OpenAICall
from gateway.wire.openai_checks import Fields
from gateway.wire.openai_fields import DROPPED_FIELDS, REFUSED_FIELDS, refuse_fields
from gateway.wire.openai_media import NO_MEDIA, MediaLoad, inspect_media
from gateway.wire.openai_prompt import Prompts, chat_prompt, pair_prompt, read_prompts
from gateway.wire.openai_stream import StreamWishes
from gateway.wire.strictjson import StrictObject, parse_object

_COMPLETIONS_DEFAULT: Final = 16
"""vLLM's max_tokens of /v1/completions where the field is absent; null is no limit there."""

# Older vLLM let these through to the tokenizer (CVE-2025-61620, CVE-2025-62426).
_TEMPLATE_OVERRIDES: Final = frozenset({"chat_template", "tokenize"})

_CHOOSING: Final = frozenset({Operation.CHAT, Operation.COMPLETIONS})
_PAIRS: Final = frozenset({Operation.RERANK, Operation.SCORE})
_NO_WISHES: Final = StreamWishes()
_STREAMABLE: Final = frozenset(OUTPUT_LIMIT_FIELDS)


@dataclass(frozen=True, slots=True)
class OpenAIConfig:
    """`allowed_media_domains` are host names in lower case; "*" allows every host."""

    refused_fields: frozenset[str] = frozenset(REFUSED_FIELDS)
    dropped_fields: frozenset[str] = frozenset(DROPPED_FIELDS)
    allowed_media_domains: frozenset[str] = frozenset()
    max_choices: int = 128


class OpenAIDialect:
    """A Dialect; see there. Checks only what the gateway reads: vLLM judges the rest."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config

    def parse(self, operation: Operation, body: bytes) -> OpenAICall:
        document = parse_object(body)
        fields = Fields(document.fields)
        media = self._require_allowed(document, fields)
        is_stream = operation in _STREAMABLE and fields.flag("stream")
        choices = self._choices(operation, fields)
        prompts = _read_prompt(operation, document, fields, media)
        return OpenAICall(
            operation=operation,
            document=document,
            dropped_fields=self._config.dropped_fields,
            model=fields.model(),
            is_stream=is_stream,
            is_metered=operation not in UNMETERED,
            choices_per_prompt=choices,
            choices=choices * prompts.count,
            output_limit=_output_limit(operation, fields),
            prompts=prompts,
            prompt=prompts.size,
            has_media=media is not NO_MEDIA,
            wishes=_wishes(operation, fields, is_stream=is_stream),
        )

    def parse_form(self, operation: Operation, body: bytes, content_type: bytes) -> AudioCall:
        """Read a request whose body is a form. Raises as `parse` does."""
        return parse_audio(
            operation,
            body,
            content_type,
            refused_fields=self._config.refused_fields,
            dropped_fields=self._config.dropped_fields,
        )

    def status_of(self, error: GatewayError) -> int:
        return error.status

    def render_error(self, error: GatewayError, *, request_id: str) -> bytes:
        return openai_errors.error_body(error)

    def error_event(self, error: GatewayError, *, request_id: str) -> bytes:
        return b"data: " + openai_errors.error_body(error) + b"\n\n"

    def identity_headers(self, request_id: bytes) -> list[tuple[bytes, bytes]]:
        return [(b"x-request-id", request_id)]

    def limit_headers(
        self, requests: Allowance | None, tokens: Allowance | None, *, now: float
    ) -> list[tuple[bytes, bytes]]:
        return openai_limits.limit_headers(requests, tokens)

    def model_list(self, models: Sequence[ServedModel]) -> Mapping[str, object]:
        return openai_models.model_list(models)

    def model_card(self, model: ServedModel) -> Mapping[str, object]:
        return openai_models.model_card(model)

    def _require_allowed(self, document: StrictObject, fields: Fields) -> MediaLoad:
        refused = self._config.refused_fields
        refuse_fields(document.fields, refused)
        if "chat_template_kwargs" in fields.values and "chat_template" in refused:
            refuse_fields(fields.object("chat_template_kwargs"), _TEMPLATE_OVERRIDES)
        return inspect_media(
            document.fields,
            document.canonical,
            allowed_domains=self._config.allowed_media_domains,
            refused_fields=refused,
        )

    def _choices(self, operation: Operation, fields: Fields) -> int:
        if "n" not in fields.values and "best_of" not in fields.values:
            return 1
        if operation not in _CHOOSING:
            return 1
        count = fields.integer("n", least=1, most=self._config.max_choices) or 1
        # vLLM dropped best_of; versions that had it generated answers they did not report.
        fields.integer("best_of", least=1, most=count)
        return count


def _read_prompt(
    operation: Operation, document: StrictObject, checked: Fields, media: MediaLoad
) -> Prompts:
    fields, body_bytes = document.fields, len(document.canonical)
    if operation is Operation.CHAT:
        checked.require_objects("messages")
        return chat_prompt(fields, body_bytes, media)
    if operation is Operation.RESPONSES:
        checked.require_input()
        return chat_prompt(fields, body_bytes, media)
    if operation is Operation.COMPLETIONS:
        return read_prompts(fields.get("prompt"), param="prompt")
    if operation in _PAIRS:
        _check_pairs(operation, checked)
        return pair_prompt(fields, body_bytes, media)
    if operation is Operation.EMBEDDINGS:
        checked.integer("dimensions", least=1)
        # vLLM's other formats are no JSON: their usage could not be read.
        checked.require_one_of("encoding_format", ("float", "base64"))
        if not checked.holds_conversation():
            return read_prompts(fields.get("input"), param="input")
    return chat_prompt(fields, body_bytes, media)


def _check_pairs(operation: Operation, checked: Fields) -> None:
    if operation is Operation.RERANK:
        checked.require_side("query")
        checked.require_side("documents")
        checked.integer("top_n", least=0)
    elif "text_1" in checked or "text_2" in checked:
        checked.require_side("text_1")
        checked.require_side("text_2")


def _output_limit(operation: Operation, fields: Fields) -> int | None:
    names = OUTPUT_LIMIT_FIELDS.get(operation)
    if names is None:
        return 0
    # Scoring a text asks for an echo and no new token; vLLM generates one all the same.
    echoes = operation is Operation.COMPLETIONS and fields.flag("echo")
    least = 0 if echoes else 1
    obeyed = None
    for name in reversed(names):
        if name in fields.values:
            limit = fields.integer(name, least=least)
            obeyed = obeyed if limit is None else limit
    if obeyed is not None:
        return max(1, obeyed)
    if operation is Operation.COMPLETIONS and "max_tokens" not in fields:
        return _COMPLETIONS_DEFAULT
    return None


def _wishes(operation: Operation, fields: Fields, *, is_stream: bool) -> StreamWishes:
    if "stream_options" not in fields.values or operation not in _CHOOSING:
        return _NO_WISHES
    options = fields.object("stream_options")
    if not options:
        return _NO_WISHES
    if not is_stream:
        raise InvalidRequest(
            "'stream_options' can only be given with 'stream': true.", param="stream_options"
        )
    checked = Fields(options, within="stream_options")
    include_usage = checked.flag("include_usage")
    continuous = checked.flag("continuous_usage_stats")
    # vLLM honours the one only with the other.
    return StreamWishes(include_usage, include_usage and continuous)
