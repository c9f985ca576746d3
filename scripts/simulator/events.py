"""The events of streamed answers, byte for byte as vLLM 0.32 writes them.

One object per stream, behind one port: `opening` once with the first token, `tokens` for
every engine step, `closing` once at the end.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import orjson

from scripts.simulator.answers import (
    FINGERPRINT,
    finish_reason,
    responses_message,
    responses_object,
    template,
)
from scripts.simulator.messages_events import MessagesEvents
from scripts.simulator.transcription_events import TranscriptionEvents
from scripts.simulator.work import Choice, Dialect, Identity, UsageReports, Work

DONE = b"data: [DONE]\n\n"


class Events(Protocol):
    """One streamed answer, told in whole events."""

    def opening(self) -> list[bytes]:
        """What precedes the first token."""

    def tokens(self, index: int, start: int, stop: int) -> list[bytes]:
        """The tokens from `start` up to `stop` of one choice; its finish with the last."""

    def closing(self, cached_tokens: int | None) -> list[bytes]:
        """What follows the last token."""


def events_for(work: Work, identity: Identity) -> Events:
    """The events of this work's dialect."""
    return _DIALECTS[work.dialect](work, identity)


class ChatEvents:
    """`chat.completion.chunk` events."""

    def __init__(self, work: Work, identity: Identity) -> None:
        self._work = work
        self._identity = identity
        self._continuous = work.usage_reports is UsageReports.CONTINUOUS
        self._head = (
            b'data: {"id":"chatcmpl-%b","object":"chat.completion.chunk",'
            b'"created":%d,"model":%b,"choices":['
            % (identity.id, identity.created, orjson.dumps(work.model))
        )

    def opening(self) -> list[bytes]:
        role = b'{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,'
        return [
            self._head
            + role % index
            + b'"finish_reason":null}]'
            + self._usage(choice, 0)
            + b',"prompt_token_ids":null,"prompt_text":null}\n\n'
            for index, choice in enumerate(self._work.choices)
        ]

    def tokens(self, index: int, start: int, stop: int) -> list[bytes]:
        choice = self._work.choices[index]
        last = len(choice.pieces) - 1
        before, after = self._delta(index, choice)
        after += b',"logprobs":null,"finish_reason":null,"token_ids":null}]'
        inner = choice.pieces[start : min(stop, last)]
        events = self._inner_events(choice, start, inner, before, after)
        if start == 0 and choice.tool_name:
            events.insert(0, self._call_event(index, choice, after))
        if start <= last < stop:
            events.append(self._finish_event(index, choice))
        return events

    def _inner_events(
        self, choice: Choice, start: int, inner: Sequence[str], before: bytes, after: bytes
    ) -> list[bytes]:
        if not self._continuous:
            after += b"}\n\n"
            return [before + escaped(piece) + after for piece in inner]
        prompt = choice.prompt.tokens
        whole = before.replace(b"%", b"%%") + b"%b" + after + _CHAT_USAGE + b"}\n\n"
        return [
            whole % (escaped(piece), prompt, prompt + count, count)
            for count, piece in enumerate(inner, start + 1)
        ]

    def closing(self, cached_tokens: int | None) -> list[bytes]:
        if self._work.usage_reports is UsageReports.NONE:
            return [DONE]
        tail = b'],"usage":%b,"system_fingerprint":"%b"}\n\n'
        usage = _final_usage(self._work, cached_tokens)
        return [self._head + tail % (usage, FINGERPRINT.encode()), DONE]

    def _delta(self, index: int, choice: Choice) -> tuple[bytes, bytes]:
        if choice.tool_name:
            call = (
                b'{"index":%d,"delta":{"content":null,"tool_calls":[{"index":0,'
                b'"function":{"arguments":"'
            )
            return self._head + call % index, b'"}}]}'
        return self._head + b'{"index":%d,"delta":{"content":"' % index, b'"}'

    def _call_event(self, index: int, choice: Choice, after: bytes) -> bytes:
        """The call's name, which costs no token here."""
        call = (
            b'{"index":%d,"delta":{"content":null,"tool_calls":[{"id":"chatcmpl-tool-%b",'
            b'"type":"function","index":0,"function":{"name":%b'
        )
        begun = call % (index, self._identity.id, orjson.dumps(choice.tool_name))
        # `after` closes the arguments' string first, and there is none yet.
        return self._head + begun + after[1:] + self._usage(choice, 0) + b"}\n\n"

    def _finish_event(self, index: int, choice: Choice) -> bytes:
        piece = choice.pieces[-1]
        before, after = self._delta(index, choice)
        if choice.tool_name and not piece:
            before, after = self._head + b'{"index":%d,"delta":{' % index, b"}"
        finish = b',"logprobs":null,"finish_reason":%b,"stop_reason":%b,"token_ids":null}]' % (
            orjson.dumps(finish_reason(choice, self._work)),
            orjson.dumps(choice.stop_reason),
        )
        event = before + escaped(piece) + after + finish
        event += self._usage(choice, len(choice.pieces))
        if self._work.usage_reports is UsageReports.NONE:
            event += b',"system_fingerprint":"%b"' % FINGERPRINT.encode()
        return event + b"}\n\n"

    def _usage(self, choice: Choice, count: int) -> bytes:
        if not self._continuous:
            return b""
        prompt = choice.prompt.tokens
        return _CHAT_USAGE % (prompt, prompt + count, count)


class CompletionEvents:
    """`text_completion` events."""

    def __init__(self, work: Work, identity: Identity) -> None:
        self._work = work
        self._head = (
            b'data: {"id":"cmpl-%b","object":"text_completion","created":%d,"model":%b,"choices":['
            % (identity.id, identity.created, orjson.dumps(work.model))
        )

    def opening(self) -> list[bytes]:
        return []

    def tokens(self, index: int, start: int, stop: int) -> list[bytes]:
        choice = self._work.choices[index]
        count = len(choice.pieces)
        before = self._head + b'{"index":%d,"text":"' % index
        events = []
        for done, piece in enumerate(choice.pieces[start:stop], start + 1):
            ending = self._finish(choice) if done == count else _UNFINISHED
            events.append(before + escaped(piece) + ending + self._tail(choice, done))
        return events

    def closing(self, cached_tokens: int | None) -> list[bytes]:
        if self._work.usage_reports is UsageReports.NONE:
            return [DONE]
        tail = b'],"usage":%b,"system_fingerprint":"%b"}\n\n'
        usage = _final_usage(self._work, cached_tokens)
        return [self._head + tail % (usage, FINGERPRINT.encode()), DONE]

    @staticmethod
    def _finish(choice: Choice) -> bytes:
        ending = b'","logprobs":null,"finish_reason":%b,"stop_reason":%b' + _NO_IDS
        return ending % (orjson.dumps(choice.finish_reason), orjson.dumps(choice.stop_reason))

    def _tail(self, choice: Choice, done: int) -> bytes:
        if self._work.usage_reports is UsageReports.CONTINUOUS:
            prompt = choice.prompt.tokens
            return _COMPLETION_USAGE % (prompt, prompt + done, done)
        if self._work.usage_reports is UsageReports.NONE and done == len(choice.pieces):
            return b',"system_fingerprint":"%b"}\n\n' % FINGERPRINT.encode()
        return b"}\n\n"


class ResponsesEvents:
    """The named, numbered events of the Responses API; it ends without [DONE]."""

    def __init__(self, work: Work, identity: Identity) -> None:
        self._work = work
        self._identity = identity
        self._sequence = 0
        self._item = f"msg_{identity.id.decode()}"

    def opening(self) -> list[bytes]:
        begun = responses_object(self._work, status="in_progress")
        message = {**responses_message("", status="in_progress"), "content": []}
        part: dict[str, object] = {
            "annotations": [],
            "text": "",
            "type": "output_text",
            "logprobs": [],
        }
        return [
            self._event("response.created", {"response": begun}),
            self._event("response.in_progress", {"response": begun}),
            self._event("response.output_item.added", {"item": message, "output_index": 0}),
            self._part_event("content_part.added", part=part),
        ]

    def tokens(self, index: int, start: int, stop: int) -> list[bytes]:
        return [
            self._part_event("output_text.delta", delta=piece, logprobs=[])
            for piece in self._work.choices[index].pieces[start:stop]
            if piece
        ]

    def closing(self, cached_tokens: int | None) -> list[bytes]:
        text = self._work.choices[0].text
        part: dict[str, object] = {
            "annotations": [],
            "text": text,
            "type": "output_text",
            "logprobs": None,
        }
        message = responses_message(text, status="completed")
        whole = responses_object(self._work, status="completed")
        return [
            self._part_event("output_text.done", text=text, logprobs=[]),
            self._part_event("content_part.done", part=part),
            self._event("response.output_item.done", {"item": message, "output_index": 0}),
            self._event("response.completed", {"response": whole}),
        ]

    def _part_event(self, name: str, **members: object) -> bytes:
        """An event about the only part of the only item."""
        place = {"content_index": 0, "item_id": self._item, "output_index": 0}
        return self._event(f"response.{name}", {**place, **members})

    def _event(self, name: str, members: dict[str, object]) -> bytes:
        # The members stand in alphabetical order but for the response itself.
        body = dict(sorted({**members, "sequence_number": self._sequence, "type": name}.items()))
        self._sequence += 1
        known = {b"id": self._identity.id, b"created": self._identity.created}
        return b"event: %b\ndata: %b\n\n" % (name.encode(), template(body) % known)


@lru_cache(maxsize=4096)
def escaped(piece: str) -> bytes:
    """A token as it stands inside a JSON string."""
    return orjson.dumps(piece)[1:-1]


def _final_usage(work: Work, cached_tokens: int | None) -> bytes:
    prompt, output = work.prompt_tokens, work.output_tokens
    spent: dict[str, object] = {
        "prompt_tokens": prompt,
        "total_tokens": prompt + output,
        "completion_tokens": output,
    }
    if cached_tokens is not None:
        spent["prompt_tokens_details"] = {"cached_tokens": cached_tokens, "created_cache_tokens": 0}
    return orjson.dumps(spent)


# Chat sets completion_tokens_details even when it is null, completions do not.
_CHAT_USAGE = (
    b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
    b'"completion_tokens_details":null}'
)
_COMPLETION_USAGE = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}\n\n'
_NO_IDS = b',"prompt_token_ids":null,"token_ids":null}]'
_UNFINISHED = b'","logprobs":null,"finish_reason":null,"stop_reason":null' + _NO_IDS
_DIALECTS: dict[Dialect, Callable[[Work, Identity], Events]] = {
    Dialect.CHAT: ChatEvents,
    Dialect.COMPLETION: CompletionEvents,
    Dialect.RESPONSES: ResponsesEvents,
    Dialect.MESSAGES: MessagesEvents,
    Dialect.TRANSCRIPTION: TranscriptionEvents,
    Dialect.TRANSLATION: TranscriptionEvents,
}
