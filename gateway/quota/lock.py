"""The lock that makes one gateway the only writer of its journal."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.database import DatabaseUnusable


@contextmanager
def sole_gateway(path: Path) -> Iterator[None]:
    """Hold `<path>.lock`. The kernel gives it back when the process ends, however it ends.

    Two gateways on one file would each count to the full quota and overwrite the other's
    counts. Raises DatabaseUnusable if another gateway holds the lock.
    """
    file = path.resolve()
    lock_path = file.with_name(f"{file.name}.lock")
    descriptor = _opened(lock_path)
    try:
        _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _opened(lock_path: Path) -> int:
    try:
        lock_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DatabaseUnusable(
            lock_path,
            cause=f"the lock beside the database cannot be written ({error.strerror})",
            cure="Let the gateway's user write that directory, or name another path",
        ) from error


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
        raise DatabaseUnusable(
            path,
            cause=f"another gateway uses it (process {owner})",
            cure="Stop that gateway, or give this one a file of its own",
        ) from error
    with suppress(OSError):  # A full disk: the number only helps people, and the lock is held.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
