"""A listener on which nobody is ever connected: connections hang until they are given up."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def full_backlog(port: int = 0) -> Iterator[str]:
    """The URL of a port whose queue of connections is full, and that nobody accepts from."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", port), backlog=0))
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
