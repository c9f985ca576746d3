"""Peer: another gateway, how it is installed, and how it is started at its fastest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.peers.homes import Home


@dataclass(frozen=True, slots=True)
class Slot:
    """What a peer is given: its ports, whom it stands before, its key and a folder to write to."""

    port: int
    side_port: int
    upstream_port: int
    key: str
    folder: Path

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start it, where it says that it is ready, and what its clients have to send."""

    command: tuple[str, ...]
    ready_path: str
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """`does` says in a few words what it does for a request, beside passing it on."""

    name: str
    does: str
    home: Home
    launch: Callable[[Slot], Launch]
