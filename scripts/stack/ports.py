"""Who listens on a port of this machine."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

_LISTENING = "0A"


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as fault:
            return fault.errno == errno.EADDRINUSE
    return False


def holder(port: int) -> str:
    """Who has it, as far as the system tells: other users' programs can be hidden from us."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end, or be somebody else's, while we look.
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) in sockets for link in (process / "fd").iterdir()):
                return f"{_name(process)} (pid {process.name})"
    return "a program that cannot be seen from here (another user's, or a container)"


def _name(process: Path) -> str:
    """Any byte may stand in a program's name, those that move the cursor included."""
    name = (process / "comm").read_bytes().strip().decode(errors="replace")
    return "".join(each if each.isprintable() else "?" for each in name)


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for row in Path(table).read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
