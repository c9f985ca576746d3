"""Logs of programs that keep them open: turned over by size, without losing a line."""

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_COLLAPSE_RANGE = 0x08  # FALLOC_FL_COLLAPSE_RANGE, linux/falloc.h
_LINE_BYTES_MAX = 1 << 20
_PART_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LogLimits:
    """A log grows to `size_bytes`; `files` old ones are kept beside it, as NAME.log.1 and so on."""

    size_bytes: int
    files: int


def is_full(log: Path, limits: LogLimits) -> bool:
    try:
        return log.stat().st_size >= limits.size_bytes
    except OSError:
        return False


def turn_over_by_name(log: Path, limits: LogLimits, *, reopen: Callable[[], None]) -> None:
    """For a program that opens its log again when told: it writes to the old one until then."""
    _make_room(log, limits)
    log.rename(_old(log, 1))
    reopen()


def turn_over_in_place(log: Path, limits: LogLimits) -> None:
    """For a program that appends to its log for ever and knows nothing of us.

    The head of the file is copied, then cut off by the kernel in one step (ext4, XFS): lines
    that are written meanwhile are behind it and stay. A file system that cannot do that gets the
    usual copy and truncate, which loses what is written between the two.
    """
    with log.open("r+b", buffering=0) as live:
        state = os.fstat(live.fileno())
        # The cut is at a block's bound and before the end: the kernel asks for both.
        cut = (state.st_size - 1) // state.st_blksize * state.st_blksize
        split = _end_of_line(live.fileno(), cut)
        draft = log.with_name(f"{log.name}.new")
        # Of a watchdog that was killed in the midst of it.
        draft.unlink(missing_ok=True)
        try:
            _append(log, draft, start=0, stop=cut + split)
        except OSError:
            # A full disk must not cost the old logs as well.
            draft.unlink(missing_ok=True)
            raise
        _make_room(log, limits)
        draft.rename(_old(log, 1))
        if cut and _collapse(live.fileno(), cut):
            # The rest of the line that the cut went through stands whole in the copy.
            os.pwrite(live.fileno(), b" " * (split - 1) + b"\n" if split else b"", 0)
            return
        _append(log, _old(log, 1), start=cut + split, stop=None)
        live.truncate(0)


def _make_room(log: Path, limits: LogLimits) -> None:
    for number in range(limits.files, 0, -1):
        old = _old(log, number)
        if not old.exists():
            continue
        if number == limits.files:
            old.unlink()
        else:
            old.rename(_old(log, number + 1))


def _old(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def _end_of_line(descriptor: int, offset: int) -> int:
    """Bytes from the offset to the end of the line it is in; 0 if none of it is written yet."""
    if not offset or os.pread(descriptor, 1, offset - 1) == b"\n":
        return 0
    return os.pread(descriptor, _LINE_BYTES_MAX, offset).find(b"\n") + 1


def _append(log: Path, old: Path, *, start: int, stop: int | None) -> None:
    """The bytes from `start` to `stop`, or to the end, behind what is there."""
    with log.open("rb") as source, old.open("ab") as target:
        source.seek(start)
        left = sys.maxsize if stop is None else stop - start
        while part := source.read(min(left, _PART_BYTES)):
            target.write(part)
            left -= len(part)


def _collapse(descriptor: int, size: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(libc.fallocate(descriptor, _COLLAPSE_RANGE, 0, size) == 0)
