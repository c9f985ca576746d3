"""Doors: the listening sockets of all workers, held open by the supervisor."""

import socket
from collections.abc import Callable
from typing import NamedTuple

Listen = Callable[[], socket.socket]


class Door(NamedTuple):
    """What one worker listens on: GATEWAY_PORT and, where there is one, METRICS_PORT."""

    main: socket.socket
    side: socket.socket | None

    def close(self) -> None:
        self.main.close()
        if self.side is not None:
            self.side.close()


class Doors:
    """A socket for each worker on the same port (SO_REUSEPORT).

    Why not one socket for all: of 64 connections opened at once two workers then take 13 and 51,
    of 8 often 0 and 8, because who is awake takes all there are; with a socket each the kernel
    deals them out by hash: 29 to 35, and 2 to 6 at worst (Linux 6, uvloop, five tries each).

    The supervisor keeps every socket, so that connections outlast a worker that crashes and is
    started again at once. One that is not is taken out of the group, or a share of the
    connections would wait for it.
    """

    def __init__(self, *, count: int, open_door: Callable[[], Door]) -> None:
        self._open_door = open_door
        self._doors = {number: open_door() for number in range(1, count + 1)}

    def open(self, number: int) -> Door:
        """The door of this worker, opened anew if it was shut. Raises what opening raises."""
        if number not in self._doors:
            self._doors[number] = self._open_door()
        return self._doors[number]

    def shut(self, number: int) -> None:
        door = self._doors.pop(number, None)
        if door is not None:
            door.close()

    def shut_all_but(self, number: int) -> None:
        """In a worker: what it holds of the others' doors would keep them open."""
        for other in list(self._doors.keys() - {number}):
            self.shut(other)

    def shut_all(self) -> None:
        self.shut_all_but(0)
