"""Whether the other side of a connection has left, asked where nobody reads from it."""

import socket
import sys
from typing import Any

# Linux, include/net/tcp_states.h: its end was reset; its end was closed and ours is not yet.
_TCP_CLOSE = 7
_TCP_CLOSE_WAIT = 8


def has_left(transport: Any) -> bool:
    """True if the peer closed or reset the connection. False where the platform cannot tell.

    A transport that is not read hears of no end, and of a reset only when it writes.
    """
    if sys.platform != "linux":
        return False
    connection = transport.get_extra_info("socket")
    if connection is None:
        return False
    try:
        # tcpi_state is the first byte of struct tcp_info.
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return False
    return state in (_TCP_CLOSE, _TCP_CLOSE_WAIT)
