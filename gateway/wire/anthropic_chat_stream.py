"""A streamed chat answer, turned into the events of /v1/messages while it passes."""

from collections.abc import Mapping

from gateway.errors import UpstreamTruncated
from gateway.exchange import TokenUsage
from gateway.wire.anthropic_blocks import BlockWriter
from gateway.wire.anthropic_events import KEEP_ALIVE, PING, STOP, event, message_id, message_start
from gateway.wire.anthropic_fields import objects_in, text_in
from gateway.wire.anthropic_from_chat import signature_of
from gateway.wire.anthropic_stops import Stop, stop_of
from gateway.wire.anthropic_usage import read_chat_usage, usage_of_chat
from gateway.wire.openai_errors import stream_failure
from gateway.wire.openai_running import RunningUsage
from gateway.wire.openai_usage import as_object
from gateway.wire.reading import EventReader
from gateway.wire.sse import data_of


class TranslatedStreamReader(EventReader):
    """A ResponseReader that takes the events of chat and gives those of Anthropic.

    The running usage of chat is charged while it streams; what the last event shows is charged
    in the end.
    """

    __slots__ = (
        "_blocks",
        "_finish_reason",
        "_has_refused",
        "_identity",
        "_last_usage",
        "_met",
        "_running",
        "_shown_model",
    )

    def __init__(self, *, prompt_tokens: int, shown_model: str = "") -> None:
        """`shown_model` is what the client is to read as the model's name; empty: as it comes."""
        super().__init__()
        self._blocks = BlockWriter()
        self._running = RunningUsage(
            choices_per_prompt=1, choices=1, prompt_tokens=max(1, prompt_tokens)
        )
        self._shown_model = shown_model
        self._identity = ""
        self._finish_reason: object = None
        self._met: object = None
        self._has_refused = False
        self._last_usage: object = None

    @property
    def usage(self) -> TokenUsage:
        return self._running.as_usage()

    def _read(self, chat_event: bytes) -> bytes:
        """What the client gets for one event of chat."""
        data = data_of(chat_event)
        if data is None:
            # Comments keep connections alive, here as there.
            return KEEP_ALIVE if chat_event.startswith(b":") else b""
        if data.strip() == b"[DONE]":
            return self._conclude()
        fields = as_object(data)
        if fields.get("error"):
            raise stream_failure(fields["error"])
        choices = fields.get("choices")
        if not isinstance(choices, list):
            return b""
        choice = choices[0] if choices else None
        self._running.begin()
        is_first = not self._identity
        if is_first:
            self._identity = message_id(fields.get("id"))
        if not isinstance(choice, dict):
            self._settle(fields.get("usage"))
            return self._begin(fields) if is_first else b""
        written = self._say(choice)
        self._count(fields.get("usage"), has_content=bool(written))
        return self._begin(fields) + written if is_first else written

    def _begin(self, fields: Mapping[str, object]) -> bytes:
        shown = {"input_tokens": self.usage.input_tokens, "output_tokens": 0}
        model = self._shown_model or text_in(fields.get("model"))
        return message_start(identity=self._identity, model=model, usage=shown) + PING

    def _say(self, choice: Mapping[str, object]) -> bytes:
        if choice.get("finish_reason") is not None:
            self._finish_reason = choice["finish_reason"]
            self._met = choice.get("stop_reason")
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return b""
        written = b""
        thought = text_in(delta.get("reasoning") or delta.get("reasoning_content"))
        if thought:
            written += self._blocks.thought(thought, signature=signature_of(self._identity))
        text = text_in(delta.get("content"))
        if text:
            written += self._blocks.text(text)
        refusal = text_in(delta.get("refusal"))
        if refusal:
            self._has_refused = True
            written += self._blocks.text(refusal)
        calls = delta.get("tool_calls")
        return written + self._call(calls) if calls else written

    def _call(self, calls: object) -> bytes:
        written = b""
        for call in objects_in(calls):
            number, function = call.get("index"), call.get("function")
            named = function if isinstance(function, dict) else {}
            at = number if type(number) is int else 0
            name = text_in(named.get("name"))
            identity = text_in(call.get("id"))
            if name and not identity:
                identity = f"toolu_{signature_of(self._identity)}_{at}"
            arguments = text_in(named.get("arguments"))
            written += self._blocks.call(at, arguments, identity=identity, name=name)
        return written

    def _count(self, usage: object, *, has_content: bool) -> None:
        if has_content:
            self.saw_content = True
        reported = read_chat_usage(usage)
        if reported is not None:
            self._last_usage = usage
            self._running.report(0, reported)
        elif has_content:
            self._running.count_unreported()

    def _settle(self, usage: object) -> None:
        reported = read_chat_usage(usage)
        if reported is not None:
            self._last_usage = usage
            self._running.settle(reported)

    def _conclude(self) -> bytes:
        if not self._identity:
            raise UpstreamTruncated("The upstream ended its answer before the beginning.")
        written = self._blocks.close()
        stop = stop_of(
            self._finish_reason,
            self._met,
            has_called=self._blocks.has_called,
            is_call_whole=self._blocks.is_call_whole,
        )
        if self._has_refused:
            stop = Stop("refusal")
        delta = {"stop_reason": stop.reason, "stop_sequence": stop.sequence}
        usage = usage_of_chat(self.usage, self._last_usage)
        self.is_complete = True
        self._stop()
        return written + event("message_delta", {"delta": delta, "usage": usage}) + STOP
