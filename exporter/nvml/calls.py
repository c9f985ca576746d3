"""Calls to one GPU: a value, or nothing and a fault on record, or the GPU is lost."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pynvml  # type: ignore[import-untyped]  # theirs

from exporter.families import Family
from exporter.snapshot import Fault, Sample
from exporter.source import SourceUnavailable

# The GPU is gone: nothing that it said in this collection counts.
_GONE: Final = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_RESET_REQUIRED,
    }
)
# NVML itself is gone: every handle is void.
_VOID: Final = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
# This card, this driver or this user does not have the value.
_ABSENT: Final = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        pynvml.NVML_ERROR_DEPRECATED,
    }
)
_CURES: Final = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "install NVIDIA's driver (libnvidia-ml.so.1), or run "
    "with --simulate 2 to see metrics without a GPU",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the driver's kernel module: `modprobe nvidia`",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was upgraded under the running kernel "
    "module: reboot, or unload and load the module",
    pynvml.NVML_ERROR_NO_PERMISSION: "give this user access to /dev/nvidia*",
    pynvml.NVML_ERROR_UNKNOWN: "in a container, start it again or run the exporter on the host; "
    "else see `dmesg`",
}
_VALUE_FIELDS: Final = {
    pynvml.NVML_VALUE_TYPE_DOUBLE: "dVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}
# "No value" in the drivers' ways: all bits set, and the top of the signed 64-bit range.
_ALL_BITS: Final = 2**32 - 1
_TOP_OF_RANGE: Final = 2**63 - 16


class DeviceLost(Exception):
    """The GPU answers no more; the call that said so, and its error."""

    def __init__(self, *, call: str, error: str) -> None:
        super().__init__(f"{call}: {error}")
        self.call = call
        self.error = error


def name_of(code: int) -> str:
    """NVML's name of an error: `GpuIsLost`, or `code_77` for one younger than pynvml."""
    named = type(pynvml.NVMLError(code)).__name__
    return named.removeprefix("NVMLError_") if "_" in named else f"code_{code}"


def unavailable(call: str, code: int) -> SourceUnavailable:
    cure = _CURES.get(code, "see `nvidia-smi` and `dmesg`")
    return SourceUnavailable(call=call, error=name_of(code), cure=cure)


def is_void(code: int) -> bool:
    return code in _VOID


def is_value(value: float) -> bool:
    """Whether a number is one, and not a driver's way to say that it has none."""
    return math.isfinite(value) and value != _ALL_BITS and value < _TOP_OF_RANGE


class Calls:
    """Asks one GPU. `on_call` hears each call before it is made."""

    def __init__(self, handle: Any, *, uuid: str, on_call: Callable[[str], None]) -> None:
        self.handle = handle
        self._uuid = uuid
        self._on_call = on_call
        self._faults: dict[str, Fault] = {}

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._faults.values())

    def on(self, handle: Any) -> "Calls":
        """The same for a part of this GPU, on the same record."""
        part = Calls(handle, uuid=self._uuid, on_call=self._on_call)
        part._faults = self._faults
        return part

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """The function's answer for this GPU, or None."""
        return self.plain(function, self.handle, *args)

    def plain(self, function: Callable[..., Any], *args: Any) -> Any:
        """The answer of a function that does not begin with the handle, or None."""
        call = function.__name__
        self._on_call(f"{call} on {self._uuid}")
        try:
            return function(*args)
        except pynvml.NVMLError as error:
            self.failed(call, error.value)
        except UnicodeDecodeError:
            # pynvml decodes names strictly, and the driver cuts them at a byte, not at a letter.
            self._faults[call] = Fault(call, "no_text", self._uuid, is_absence=True)
        return None

    def samples(
        self,
        family: Family,
        function: Callable[..., Any],
        *args: Any,
        scale: float = 1.0,
        labels: tuple[str, ...] = (),
    ) -> Iterator[Sample]:
        """One sample in base units, or none."""
        value = self.ask(function, *args)
        if value is not None and is_value(value):
            yield Sample(family, value * scale, labels)

    def fields(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """Values of (field id, scope id) that there are. Each has its own error, and its type."""
        answer = self.ask(pynvml.nvmlDeviceGetFieldValues, wanted)
        found = {}
        for key, field in zip(wanted, answer or (), strict=False):
            if field.nvmlReturn != pynvml.NVML_SUCCESS:
                self.failed(f"nvmlDeviceGetFieldValues_{key[0]}", field.nvmlReturn)
                continue
            member = _VALUE_FIELDS.get(field.valueType)
            value = getattr(field.value, member) if member else math.nan
            if is_value(value):
                found[key] = value
        return found

    def failed(self, call: str, code: int) -> None:
        """Put a failure on record. Raises DeviceLost or SourceUnavailable for the grave ones."""
        if code == pynvml.NVML_SUCCESS:
            return  # pynvml's way to say that there was nothing to report
        if code in _VOID:
            raise unavailable(call, code)
        if code in _GONE:
            raise DeviceLost(call=call, error=name_of(code))
        self._faults[call] = Fault(call, name_of(code), self._uuid, is_absence=code in _ABSENT)
