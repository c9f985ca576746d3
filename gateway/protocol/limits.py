"""What a client may send, how much of it, and how long it may take."""

from dataclasses import dataclass
from enum import Enum

HEADER_FIELDS_MAX = 100
HEADER_BYTES_MAX = 32 * 1024
PIPELINED_MAX = 32
UNREAD_BODY_SECONDS = 5.0


class Phase(Enum):
    """What the client is to send next."""

    HEAD = "head"
    BODY = "body"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where to listen, what a client may take in seconds, and how long a shutdown waits."""

    host: str = "127.0.0.1"
    port: int = 8080
    header_timeout_seconds: float = 10.0
    body_timeout_seconds: float = 30.0
    write_timeout_seconds: float = 60.0
    keepalive_seconds: int = 75
    drain_seconds: float = 30.0
