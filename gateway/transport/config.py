"""Time and size limits of the upstream side."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class TransportConfig:
    """Time and size limits of the upstream side; seconds and bytes.

    An answer that is not streamed begins when all of it is generated: until its first byte
    `unstreamed_timeout_seconds` count. `keepalive_seconds` stays below the 5 s after which vLLM
    closes an idle connection. `max_head_bytes` also bounds what may pass without any of the
    body: trailers and chunk extensions.
    """

    connect_timeout_seconds: float = 2.0
    first_byte_timeout_seconds: float = 120.0
    unstreamed_timeout_seconds: float = 600.0
    idle_timeout_seconds: float = 300.0
    answer_timeout_seconds: float = 3600.0
    keepalive_seconds: float = 3.0
    max_head_bytes: int = 64 * 1024
    max_idle_connections: int = 512

    def for_upstream(
        self,
        *,
        connect_timeout_seconds: float | None,
        first_byte_timeout_seconds: float | None,
        idle_timeout_seconds: float | None,
    ) -> Self:
        """The same with what one upstream has of its own; None: nothing. Its time until the first
        byte counts for every answer, streamed or not."""
        first_byte = first_byte_timeout_seconds
        return replace(
            self,
            connect_timeout_seconds=connect_timeout_seconds or self.connect_timeout_seconds,
            first_byte_timeout_seconds=first_byte or self.first_byte_timeout_seconds,
            unstreamed_timeout_seconds=first_byte or self.unstreamed_timeout_seconds,
            idle_timeout_seconds=idle_timeout_seconds or self.idle_timeout_seconds,
        )
