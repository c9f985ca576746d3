"""One parsed OpenAI request: what is asked, in numbers, and the body that asks vLLM for it."""

from collections.abc import Container, Mapping
from typing import Final, NamedTuple

import orjson

from gateway.errors import GatewayError
from gateway.exchange import JSON_TYPE, NO_USAGE, Operation, PromptSize, ResponseReader, TokenUsage
from gateway.wire import openai_errors, openai_naming, openai_prompt, openai_usage
from gateway.wire.openai_naming import RenamedStream, renamed
from gateway.wire.openai_responses import ResponsesStreamReader
from gateway.wire.openai_stream import OpenAIStreamReader, StreamWishes
from gateway.wire.strictjson import StrictObject

# The fields that bound the output, the one that vLLM obeys first; the last is set where the
# caller set none.
OUTPUT_LIMIT_FIELDS: Final[Mapping[Operation, tuple[str, ...]]] = {
    Operation.CHAT: ("max_completion_tokens", "max_tokens"),
    Operation.COMPLETIONS: ("max_tokens",),
    Operation.RESPONSES: ("max_output_tokens",),
}
"""Operations that generate; the others have no output."""

UNMETERED: Final = frozenset({Operation.TOKENIZE, Operation.DETOKENIZE})
_USAGE_IS_ASKED_FOR: Final = frozenset({Operation.CHAT, Operation.COMPLETIONS})


class OpenAICall(NamedTuple):
    """An InferenceCall; see there. `choices_per_prompt` is n, `wishes` what the stream may show."""

    operation: Operation
    document: StrictObject
    dropped_fields: frozenset[str]
    model: str
    is_stream: bool
    is_metered: bool
    choices_per_prompt: int
    choices: int
    output_limit: int | None
    prompts: openai_prompt.Prompts
    prompt: PromptSize
    has_media: bool
    wishes: StreamWishes

    @property
    def content_type(self) -> bytes:
        return JSON_TYPE

    def as_served_by(self, operations: Container[Operation]) -> "OpenAICall":
        """This call: whoever serves it speaks OpenAI."""
        return self

    def encode(self, *, model: str, output_limit: int | None) -> bytes:
        """The body for the upstream. `output_limit` only ever lowers what the caller set."""
        changes = self._output_bounds(output_limit)
        if model != self.model:
            changes["model"] = model
        if self.is_stream and self.operation in _USAGE_IS_ASKED_FOR:
            changes["stream_options"] = self._stream_options()

        fields = self.document.fields
        if not self.dropped_fields.isdisjoint(fields):
            fields = {name: fields[name] for name in fields if name not in self.dropped_fields}
        elif not changes:
            return self.document.canonical
        return orjson.dumps({**fields, **changes})

    def forget(self) -> None:
        self.document.forget()
        self.prompts.texts.clear()

    def tokenize_bodies(self, *, model: str) -> tuple[bytes, ...]:
        # /tokenize does not see what images become inside the engine.
        if self.has_media:
            return ()
        fields, texts = self.document.fields, self.prompts.texts
        return openai_prompt.tokenize_bodies(self.operation, fields, texts, model=model)

    def new_reader(self, shown_model: str = "") -> ResponseReader:
        if self.operation is Operation.RESPONSES:
            reader: ResponseReader = ResponsesStreamReader(prompt_tokens=self.prompt.estimate)
            path = openai_naming.RESPONSE_EVENT
        else:
            reader = OpenAIStreamReader(
                choices_per_prompt=self.choices_per_prompt,
                choices=self.choices,
                prompt_tokens=self.prompt.estimate,
                wishes=self.wishes,
            )
            path = openai_naming.ANSWER
        return RenamedStream(reader, shown_model, path=path) if shown_model else reader

    def read_rejection(
        self, status: int, body: bytes, *, retry_after_seconds: float | None
    ) -> GatewayError:
        return openai_errors.read_rejection(status, body, retry_after_seconds=retry_after_seconds)

    def read_token_count(self, body: bytes) -> int:
        return openai_usage.read_token_count(body)

    def mend_answer(self, body: bytes, shown_model: str = "") -> tuple[TokenUsage, bytes]:
        usage = openai_usage.read_answer(body, otherwise=self._least_usage)
        return usage, renamed(body, shown_model) if shown_model else body

    def _least_usage(self) -> TokenUsage:
        """What an answer that hides its usage has cost: one token per choice, at the very least."""
        if not self.is_metered:
            return NO_USAGE
        generated = self.choices if self.operation in OUTPUT_LIMIT_FIELDS else 0
        return TokenUsage(self.prompt.estimate, generated, is_estimated=True)

    def _output_bounds(self, output_limit: int | None) -> dict[str, object]:
        names = OUTPUT_LIMIT_FIELDS.get(self.operation)
        if output_limit is None or names is None:
            return {}
        bound = output_limit if self.output_limit is None else min(output_limit, self.output_limit)
        given = [(name, self.document.fields.get(name)) for name in names]
        limits = [(name, value) for name, value in given if isinstance(value, int)]
        if not limits:
            return {names[-1]: bound}
        return {name: bound for name, value in limits if value > bound}

    def _stream_options(self) -> dict[str, object]:
        asked = self.document.fields.get("stream_options")
        options = asked if isinstance(asked, dict) else {}
        return {**options, "include_usage": True, "continuous_usage_stats": True}
