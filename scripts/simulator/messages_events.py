"""The events of a streamed /v1/messages, byte for byte as vLLM 0.32 writes them."""

import orjson

from scripts.simulator.answers import messages_stop, messages_usage
from scripts.simulator.work import Identity, Work


class MessagesEvents:
    """The named events of one content block; it ends without [DONE]."""

    def __init__(self, work: Work, identity: Identity) -> None:
        self._work = work
        self._identity = identity

    def opening(self) -> list[bytes]:
        message: dict[str, object] = {
            "id": f"chatcmpl-{self._identity.id.decode()}",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._work.model,
            "stop_reason": None,
            "stop_sequence": None,
            # The whole prompt, although the end subtracts what came from the cache.
            "usage": {"input_tokens": self._work.prompt_tokens, "output_tokens": 0},
        }
        return [_event("message_start", message=message)]

    def tokens(self, index: int, start: int, stop: int) -> list[bytes]:
        choice = self._work.choices[index]
        events = []
        if start == 0:
            events.append(_event("content_block_start", content_block=self._block(), index=0))
        pieces = [piece for piece in choice.pieces[start:stop] if piece]
        return events + [
            _event("content_block_delta", delta=self._delta(piece), index=0) for piece in pieces
        ]

    def closing(self, cached_tokens: int | None) -> list[bytes]:
        work = self._work
        reason, sequence = messages_stop(work)
        return [
            _event("content_block_stop", index=0),
            _event(
                "message_delta",
                delta={"stop_reason": reason, "stop_sequence": sequence},
                usage=messages_usage(work, cached_tokens),
            ),
            _event("message_stop"),
        ]

    def _block(self) -> dict[str, object]:
        name = self._work.choices[0].tool_name
        if not name:
            return {"type": "text", "text": ""}
        identity = f"chatcmpl-tool-{self._identity.id.decode()}"
        return {"type": "tool_use", "id": identity, "name": name, "input": {}}

    def _delta(self, piece: str) -> dict[str, object]:
        if self._work.choices[0].tool_name:
            return {"type": "input_json_delta", "partial_json": piece}
        return {"type": "text_delta", "text": piece}


def _event(kind: str, **members: object) -> bytes:
    data = orjson.dumps({"type": kind, **members})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
