"""One parsed request to /v1/messages: native, or translated for a server that knows only chat."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

import orjson

from gateway.errors import GatewayError, InvalidRequest
from gateway.exchange import (
    JSON_TYPE,
    STAND_INS,
    InferenceCall,
    Operation,
    PromptSize,
    ResponseReader,
    TokenUsage,
)
from gateway.wire import anthropic_errors
from gateway.wire.anthropic_answer import mend_message
from gateway.wire.anthropic_chat_stream import TranslatedStreamReader
from gateway.wire.anthropic_failures import say_failures
from gateway.wire.anthropic_from_chat import message_of_chat
from gateway.wire.anthropic_stream import AnthropicStreamReader
from gateway.wire.anthropic_system import hoist_system
from gateway.wire.anthropic_to_chat import chat_conversation, chat_request
from gateway.wire.openai_usage import read_token_count
from gateway.wire.strictjson import StrictObject


@dataclass(frozen=True, slots=True)
class AnthropicRequest:
    """What the two forms of a request share. `prompt` is its size, `has_media` tells images."""

    operation: Operation
    document: StrictObject
    dropped_fields: frozenset[str]
    model: str
    is_stream: bool
    max_tokens: int
    prompt: PromptSize
    has_media: bool

    @property
    def is_metered(self) -> bool:
        return True

    @property
    def choices(self) -> int:
        return 1

    @property
    def output_limit(self) -> int | None:
        return self.max_tokens

    @property
    def estimated(self) -> TokenUsage:
        """Of an answer that hides its usage: the prompt, and one token at the very least."""
        return TokenUsage(max(1, self.prompt.estimate), 1, is_estimated=True)

    @property
    def content_type(self) -> bytes:
        return JSON_TYPE

    def forget(self) -> None:
        self.document.forget()

    def tokenize_bodies(self, *, model: str) -> tuple[bytes, ...]:
        # /tokenize does not see what images become inside the engine.
        if self.has_media:
            return ()
        try:
            conversation = chat_conversation(self.forwarded)
        except InvalidRequest:
            return ()
        return (orjson.dumps({"model": model, **conversation}),)

    def read_rejection(
        self, status: int, body: bytes, *, retry_after_seconds: float | None
    ) -> GatewayError:
        return anthropic_errors.read_rejection(
            status, body, retry_after_seconds=retry_after_seconds
        )

    def read_token_count(self, body: bytes) -> int:
        return read_token_count(body)

    @property
    def forwarded(self) -> Mapping[str, object]:
        """The fields without those that go no further."""
        return without_fields(self.document.fields, self.dropped_fields)

    def bounded(self, output_limit: int | None) -> int:
        """The output limit to send: `output_limit` only ever lowers what the caller set."""
        return self.max_tokens if output_limit is None else min(output_limit, self.max_tokens)


@dataclass(frozen=True, slots=True)
class AnthropicCall(AnthropicRequest):
    """An InferenceCall for a server that speaks Anthropic itself."""

    def as_served_by(self, operations: Container[Operation]) -> InferenceCall:
        """This call, or its translation where only chat is understood.

        Raises InvalidRequest for blocks that chat has no words for.
        """
        if self.operation in operations:
            return self
        return TranslatedCall(
            request=chat_request(self.forwarded, is_stream=self.is_stream),
            operation=STAND_INS[self.operation],
            document=self.document,
            dropped_fields=self.dropped_fields,
            model=self.model,
            is_stream=self.is_stream,
            max_tokens=self.max_tokens,
            prompt=self.prompt,
            has_media=self.has_media,
        )

    def encode(self, *, model: str, output_limit: int | None) -> bytes:
        fields = self.forwarded
        changes = native_changes(fields)
        bound = self.bounded(output_limit)
        if bound != self.max_tokens:
            changes["max_tokens"] = bound
        if model != self.model:
            changes["model"] = model
        if not changes and fields is self.document.fields:
            return self.document.canonical
        return orjson.dumps({**fields, **changes})

    def new_reader(self, shown_model: str = "") -> ResponseReader:
        return AnthropicStreamReader(prompt_tokens=self.prompt.estimate, shown_model=shown_model)

    def mend_answer(self, body: bytes, shown_model: str = "") -> tuple[TokenUsage, bytes]:
        """Usage of a whole answer, and the answer as the client is to get it.

        Raises UpstreamFailed if it is no JSON object.
        """
        return mend_message(body, otherwise=self.estimated, shown_model=shown_model)


@dataclass(frozen=True, slots=True)
class TranslatedCall(AnthropicRequest):
    """The same call in chat's words (`request`); the answer comes back in Anthropic's."""

    request: dict[str, object]

    def as_served_by(self, operations: Container[Operation]) -> InferenceCall:
        return self

    def forget(self) -> None:
        self.document.forget()
        self.request.clear()

    def encode(self, *, model: str, output_limit: int | None) -> bytes:
        bound = self.bounded(output_limit)
        return orjson.dumps({"model": model, "max_tokens": bound, **self.request})

    def new_reader(self, shown_model: str = "") -> ResponseReader:
        return TranslatedStreamReader(prompt_tokens=self.prompt.estimate, shown_model=shown_model)

    def mend_answer(self, body: bytes, shown_model: str = "") -> tuple[TokenUsage, bytes]:
        """Usage of a whole answer, and the message that it makes.

        Raises UpstreamFailed if it is no answer of chat.
        """
        return message_of_chat(body, otherwise=self.estimated, shown_model=shown_model)


def without_fields(fields: Mapping[str, object], dropped: frozenset[str]) -> Mapping[str, object]:
    if dropped.isdisjoint(fields):
        return fields
    return {name: fields[name] for name in fields if name not in dropped}


def native_changes(fields: Mapping[str, object]) -> dict[str, object]:
    """What vLLM's own endpoint must read otherwise than it was sent.

    It drops the flag of a failed tool, of which the model would never know.
    Agents ask for a budget of thought out of habit. vLLM refuses any budget where it runs
    without a reasoning parser, and one that the output limit has sunk below; `adaptive` asks
    for thought and sets no budget.
    """
    changes = dict(hoist_system(fields))
    told = say_failures(changes.get("messages", fields.get("messages")))
    if told is not None:
        changes["messages"] = told
    thinking = fields.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        changes["thinking"] = {"type": "adaptive"}
    return changes
