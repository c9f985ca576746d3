"""The endpoint of calls that bring a file: a form is held whole, and its room is accounted for.

It is not passed on while it comes in: the model may stand behind the file, and without it there
is no upstream to choose; and an upstream that fails is replaced by another, which needs the
file again. So MAX_BODY_BYTES bounds one upload, and what bounds all bodies together
(LARGEST_AT_ONCE) bounds all uploads until they are answered.
"""

from collections.abc import Callable
from typing import Final

from gateway.clock import Clock
from gateway.edge.asgi import Receive, Scope, Send, exchange_of, header
from gateway.edge.body import BodyMemory, read_form_body
from gateway.edge.inference import InferenceConfig, InferenceEndpoint
from gateway.edge.lifecycle import Lifecycle
from gateway.exchange import InferenceCall, Operation

UPLOADS: Final = frozenset({Operation.TRANSCRIPTIONS, Operation.TRANSLATIONS})
"""Operations whose body is a form."""

# The form as it came, and as it is written out for the upstream.
_COPIES: Final = 2

FormParser = Callable[[Operation, bytes, bytes], InferenceCall]
"""Reads an operation's form, given with its Content-Type. Raises InvalidRequest."""


class UploadEndpoint:
    """One such operation's endpoint; what comes after reading is `inference`'s."""

    def __init__(
        self,
        operation: Operation,
        *,
        parse: FormParser,
        inference: InferenceEndpoint,
        lifecycle: Lifecycle,
        memory: BodyMemory,
        clock: Clock,
        config: InferenceConfig,
    ) -> None:
        self._operation = operation
        self._parse = parse
        self._inference = inference
        self._lifecycle = lifecycle
        self._memory = memory
        self._clock = clock
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._lifecycle.admit()
        limit_bytes = self._config.max_body_bytes
        content_type = header(scope, b"content-type") or b""
        began_at = self._clock.monotonic()
        body = await read_form_body(scope, receive, limit_bytes=limit_bytes, memory=self._memory)
        exchange_of(scope).upload_seconds = self._clock.monotonic() - began_at
        with self._memory.holding(_COPIES * len(body)):
            call = self._parse(self._operation, body, content_type)
            await self._inference.answer(call, scope, send)
