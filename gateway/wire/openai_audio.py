"""Speech to text: a form with a file goes in, a text comes out; metered as far as vLLM counts.

A whole answer states seconds, which cost no tokens; a stream states its tokens, which do.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.errors import GatewayError, InvalidRequest
from gateway.exchange import NO_USAGE, Operation, PromptSize, ResponseReader, TokenUsage
from gateway.wire import openai_errors, openai_usage
from gateway.wire.multipart import Form, boundary_of, parse_form
from gateway.wire.openai_checks import require_short
from gateway.wire.openai_fields import refuse_fields
from gateway.wire.openai_naming import RenamedStream, renamed
from gateway.wire.openai_stream import OpenAIStreamReader, StreamWishes

_NO_PROMPT: Final = PromptSize(0, 0)
_TRUE: Final = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "f", "n", "", "null"})
_STREAM_FIELDS: Final = ("stream", "stream_include_usage", "stream_continuous_usage_stats")
_STREAMED: Final = dict.fromkeys(_STREAM_FIELDS, "true")


@dataclass(frozen=True, slots=True)
class AudioCall:
    """An InferenceCall of /v1/audio; see there. Nobody can tell beforehand what a file costs."""

    operation: Operation
    form: Form
    dropped_fields: frozenset[str]
    model: str
    is_stream: bool
    wishes: StreamWishes

    @property
    def content_type(self) -> bytes:
        return self.form.content_type

    @property
    def is_metered(self) -> bool:
        return True

    @property
    def choices(self) -> int:
        return 1

    @property
    def prompt(self) -> PromptSize:
        return _NO_PROMPT

    @property
    def output_limit(self) -> int | None:
        return 0

    def as_served_by(self, operations: Container[Operation]) -> "AudioCall":
        return self

    def encode(self, *, model: str, output_limit: int | None) -> bytes:
        """The form for the upstream. A stream is always asked for its running usage."""
        values = {"model": model} | (_STREAMED if self.is_stream else {})
        return self.form.encode(without={*self.dropped_fields, *_STREAM_FIELDS}, values=values)

    def forget(self) -> None:
        self.form.parts.clear()

    def tokenize_bodies(self, *, model: str) -> tuple[bytes, ...]:
        return ()

    def new_reader(self, shown_model: str = "") -> ResponseReader:
        reader = OpenAIStreamReader(
            choices_per_prompt=1, choices=1, prompt_tokens=0, wishes=self.wishes
        )
        return RenamedStream(reader, shown_model) if shown_model else reader

    def read_rejection(
        self, status: int, body: bytes, *, retry_after_seconds: float | None
    ) -> GatewayError:
        return openai_errors.read_rejection(status, body, retry_after_seconds=retry_after_seconds)

    def read_token_count(self, body: bytes) -> int:
        return openai_usage.read_token_count(body)

    def mend_answer(self, body: bytes, shown_model: str = "") -> tuple[TokenUsage, bytes]:
        usage = openai_usage.read_answer(body, otherwise=lambda: NO_USAGE)
        return usage, renamed(body, shown_model) if shown_model else body


def parse_audio(
    operation: Operation,
    body: bytes,
    content_type: bytes,
    *,
    refused_fields: frozenset[str],
    dropped_fields: frozenset[str],
) -> AudioCall:
    """Read a request for speech to text. Raises InvalidRequest, UnsupportedMediaType."""
    form = parse_form(body, boundary_of(content_type))
    values = form.values()
    refuse_fields(_asking_for_something(values), refused_fields)
    _require_file(form)
    is_stream = _flag(values, "stream")
    include_usage = _flag(values, "stream_include_usage")
    continuous = _flag(values, "stream_continuous_usage_stats")
    if (include_usage or continuous) and not is_stream:
        asked = "stream_include_usage" if include_usage else "stream_continuous_usage_stats"
        raise InvalidRequest(f"{asked!r} can only be given with 'stream'.", param=asked)
    return AudioCall(
        operation=operation,
        form=form,
        dropped_fields=dropped_fields,
        model=require_short(values.get("model", "")),
        is_stream=is_stream,
        wishes=StreamWishes(include_usage, include_usage and continuous),
    )


def _require_file(form: Form) -> None:
    for part in form.parts:
        if part.is_file != (part.name == "file"):
            wanted = "a file" if part.name == "file" else "a value, and no file"
            raise InvalidRequest(
                f"{part.name!r} must be {wanted}.", code="invalid_type", param=part.name
            )
        if part.is_file and not part.content:
            raise InvalidRequest("The file is empty.", param="file")
    if not any(part.is_file for part in form.parts):
        raise InvalidRequest(
            "'file' must be a file.", code="missing_required_parameter", param="file"
        )


def _asking_for_something(values: Mapping[str, str]) -> Mapping[str, object]:
    return {name: text for name, text in values.items() if text.strip().lower() not in _FALSE}


def _flag(values: Mapping[str, str], name: str) -> bool:
    word = values.get(name, "").strip().lower()
    if word in _TRUE:
        return True
    if word not in _FALSE:
        raise InvalidRequest(f"{name!r} must be true or false.", code="invalid_type", param=name)
    return False
