"""XID events: what the driver reports the moment it happens."""

import contextlib
import ctypes
import time
from typing import Any, Final

import pynvml  # type: ignore[import-untyped]  # theirs

from exporter.snapshot import XidEvent

_EVENTS: Final = pynvml.nvmlEventTypeXidCriticalError


class XidWatch:
    """One event set over all GPUs that can report."""

    def __init__(self, handles: dict[str, Any]) -> None:
        self._uuids: dict[int | None, str] = {}
        self._events: Any = None
        with contextlib.suppress(pynvml.NVMLError):  # a driver without events has no XIDs to tell
            self._events = pynvml.nvmlEventSetCreate()
        if self._events is None:
            return
        for uuid, handle in handles.items():
            with contextlib.suppress(pynvml.NVMLError):  # as above, for one card
                pynvml.nvmlDeviceRegisterEvents(handle, _EVENTS, self._events)
                self._uuids[_address(handle)] = uuid

    def wait(self, *, seconds: float) -> tuple[XidEvent, ...]:
        if not self._uuids:
            return ()
        try:
            event = pynvml.nvmlEventSetWait_v2(self._events, int(seconds * 1000))
        except pynvml.NVMLError:
            # A time-out; or a lost GPU, which the collection finds out by itself.
            return ()
        uuid = self._uuids.get(_address(event.device))
        if uuid is None or not event.eventType & _EVENTS:
            return ()
        return (XidEvent(uuid, int(event.eventData), time.time()),)


def _address(handle: Any) -> int | None:
    """Pointers of ctypes do not compare equal; where they point does."""
    return ctypes.cast(handle, ctypes.c_void_p).value
