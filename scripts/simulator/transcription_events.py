"""The events of a streamed transcription or translation, as vLLM 0.32 writes them."""

import orjson

from scripts.simulator.work import Dialect, Identity, UsageReports, Work

_DONE = b"data: [DONE]\n\n"
_USAGE = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}\n\n'
_NAMES = {
    Dialect.TRANSCRIPTION: (b"transcribe", b"transcription.chunk"),
    Dialect.TRANSLATION: (b"translate", b"translation.chunk"),
}


class TranscriptionEvents:
    """`transcription.chunk` and `translation.chunk` events: a choice without an index."""

    def __init__(self, work: Work, identity: Identity) -> None:
        self._work = work
        task, kind = _NAMES[work.dialect]
        self._head = b'data: {"id":"%b-%b","object":"%b","created":%d,"model":%b,"choices":[' % (
            task,
            identity.id,
            kind,
            identity.created,
            orjson.dumps(work.model),
        )

    def opening(self) -> list[bytes]:
        return []

    def tokens(self, index: int, start: int, stop: int) -> list[bytes]:
        choice = self._work.choices[index]
        last = len(choice.pieces)
        events = []
        for done, piece in enumerate(choice.pieces[start:stop], start + 1):
            delta = b'{"delta":{"content":%b}' % orjson.dumps(piece)
            ending = b',"finish_reason":"stop","stop_reason":null}]' if done == last else b"}]"
            events.append(self._head + delta + ending + self._tail(done))
        return events

    def closing(self, cached_tokens: int | None) -> list[bytes]:
        if self._work.usage_reports is UsageReports.NONE:
            return [_DONE]
        return [self._head + b"]" + self._usage(self._work.output_tokens), _DONE]

    def _tail(self, done: int) -> bytes:
        if self._work.usage_reports is not UsageReports.CONTINUOUS:
            return b"}\n\n"
        return self._usage(done)

    def _usage(self, done: int) -> bytes:
        prompt = self._work.prompt_tokens
        return _USAGE % (prompt, prompt + done, done)
