"""Ending a running call from outside: its client left, or the gateway must stop."""

import asyncio
from types import TracebackType
from typing import Self

from gateway.errors import GatewayError


class Interruption:
    """A block of the current task that `interrupt` ends with a given error.

    The task is cancelled, so every `with` inside unwinds; on leaving the block that one
    cancellation becomes the error. A cancellation from elsewhere stays one.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: GatewayError | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    def interrupt(self, error: GatewayError) -> None:
        """Only the first call counts, and none after the block was left."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._error is not None and task is not None:
            task.uncancel()
            if isinstance(error, asyncio.CancelledError):
                raise self._error from None
