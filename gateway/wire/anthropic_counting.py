"""One parsed request to /v1/messages/count_tokens, native or through /tokenize."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

import orjson

from gateway.errors import GatewayError, UpstreamFailed
from gateway.exchange import (
    JSON_TYPE,
    NO_USAGE,
    STAND_INS,
    InferenceCall,
    Operation,
    PromptSize,
    ResponseReader,
    TokenUsage,
)
from gateway.wire import anthropic_errors
from gateway.wire.anthropic_answer import parsed_answer
from gateway.wire.anthropic_calls import native_changes, without_fields
from gateway.wire.anthropic_stream import AnthropicStreamReader
from gateway.wire.anthropic_to_chat import chat_conversation
from gateway.wire.anthropic_turns import without_images
from gateway.wire.openai_usage import MOST_TOKENS, read_token_count
from gateway.wire.strictjson import StrictObject


@dataclass(frozen=True, slots=True)
class CountRequest:
    """What the two forms share. It generates nothing and costs nothing.

    `media_tokens` is the estimate for the images, which no tokenizer counts.
    """

    operation: Operation
    document: StrictObject
    dropped_fields: frozenset[str]
    model: str
    prompt: PromptSize
    media_tokens: int

    @property
    def is_stream(self) -> bool:
        return False

    @property
    def is_metered(self) -> bool:
        return False

    @property
    def choices(self) -> int:
        return 1

    @property
    def output_limit(self) -> int | None:
        return 0

    @property
    def content_type(self) -> bytes:
        return JSON_TYPE

    def forget(self) -> None:
        """It has no stream to outlast."""

    def tokenize_bodies(self, *, model: str) -> tuple[bytes, ...]:
        return ()

    def new_reader(self, shown_model: str = "") -> ResponseReader:
        return AnthropicStreamReader(prompt_tokens=self.prompt.estimate, shown_model=shown_model)

    def read_rejection(
        self, status: int, body: bytes, *, retry_after_seconds: float | None
    ) -> GatewayError:
        return anthropic_errors.read_rejection(
            status, body, retry_after_seconds=retry_after_seconds
        )

    def read_token_count(self, body: bytes) -> int:
        return read_token_count(body)


@dataclass(frozen=True, slots=True)
class CountCall(CountRequest):
    """An InferenceCall for a server that counts for Anthropic's clients itself."""

    def as_served_by(self, operations: Container[Operation]) -> InferenceCall:
        """This call, or the count of its translation by /tokenize.

        Raises InvalidRequest for blocks that chat has no words for.
        """
        if self.operation in operations:
            return self
        fields = without_fields(self.document.fields, self.dropped_fields)
        return TranslatedCount(
            conversation=without_images(chat_conversation(fields)),
            operation=STAND_INS[self.operation],
            document=self.document,
            dropped_fields=self.dropped_fields,
            model=self.model,
            prompt=self.prompt,
            media_tokens=self.media_tokens,
        )

    def encode(self, *, model: str, output_limit: int | None) -> bytes:
        fields = without_fields(self.document.fields, self.dropped_fields)
        return orjson.dumps({**fields, **native_changes(fields), "model": model})

    def mend_answer(self, body: bytes, shown_model: str = "") -> tuple[TokenUsage, bytes]:
        """No usage, and the count as it came. Raises UpstreamFailed if there is none."""
        count = parsed_answer(body).get("input_tokens")
        if type(count) is not int or not 0 <= count <= MOST_TOKENS:
            raise UpstreamFailed("The upstream did not count the prompt.")
        return NO_USAGE, body


@dataclass(frozen=True, slots=True)
class TranslatedCount(CountRequest):
    """The same question to /tokenize, with the prompt that a translated call would make."""

    conversation: Mapping[str, object]

    def as_served_by(self, operations: Container[Operation]) -> InferenceCall:
        return self

    def encode(self, *, model: str, output_limit: int | None) -> bytes:
        return orjson.dumps({"model": model, **self.conversation})

    def mend_answer(self, body: bytes, shown_model: str = "") -> tuple[TokenUsage, bytes]:
        """No usage, and the count in Anthropic's words. Raises UpstreamFailed without a count."""
        count = read_token_count(body) + self.media_tokens
        return NO_USAGE, orjson.dumps({"input_tokens": count})
