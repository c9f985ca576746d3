"""Time and size limits of the upstream side."""

from dataclasses import dataclass


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
