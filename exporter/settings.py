"""Settings: a table of variables, read once, with every fault in one message."""

# ruff: noqa: E501  a table reads by rows

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.collector import CollectorConfig
from exporter.logs import LogFormat

_PREFIXES = ("GPU_EXPORTER_", "GPU_EXPECTED_")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_LOG_FORMATS = ("auto", "json", "console")
_SWITCH = {
    **dict.fromkeys(("on", "true", "yes", "1"), True),
    **dict.fromkeys(("off", "false", "no", "0"), False),
}


class ConfigurationError(Exception):
    """Everything that is wrong with the settings: a fault for each variable, naming it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable: its default as an operator would write it, how it is read, what it does."""

    name: str
    default: str
    read: Callable[[str], Any]
    help: str


def _text(raw: str) -> str:
    return raw


def _port(raw: str) -> int:
    number = _whole(raw)
    if number > 65535:
        raise ValueError("a port is at most 65535")
    return number


def _whole(raw: str) -> int:
    try:
        number = int(raw)
    except ValueError:
        raise ValueError("must be a whole number") from None
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _optional_count(raw: str) -> int | None:
    return _whole(raw) if raw else None


def _seconds(raw: str) -> float:
    try:
        number = float(raw)
    except ValueError:
        raise ValueError("must be a number of seconds") from None
    if not math.isfinite(number) or number <= 0:
        raise ValueError("must be more than 0 seconds")
    return number


def _switch(raw: str) -> bool:
    if raw.lower() not in _SWITCH:
        raise ValueError("must be on or off")
    return _SWITCH[raw.lower()]


def _log_level(raw: str) -> str:
    if raw.upper() not in _LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(_LOG_LEVELS)}")
    return raw.upper()


def _log_format(raw: str) -> str:
    if raw.lower() not in _LOG_FORMATS:
        raise ValueError(f"must be one of {', '.join(_LOG_FORMATS)}")
    return raw.lower()


TABLE = (
    Setting("GPU_EXPORTER_HOST", "127.0.0.1", _text, "Address to listen on; `0.0.0.0` for every interface."),
    Setting("GPU_EXPORTER_PORT", "9101", _port, "Port to listen on."),
    Setting("GPU_EXPORTER_INTERVAL_SECONDS", "5", _seconds, "How often the GPUs are read."),
    Setting("GPU_EXPORTER_TIMEOUT_SECONDS", "4", _seconds, "How long one reading may take before its worker is killed and replaced."),
    Setting("GPU_EXPECTED_COUNT", "", _optional_count, "How many GPUs there should be. Empty: all seen since the start."),
    Setting("GPU_EXPORTER_PROCESSES", "off", _switch, "Memory of each process, by pid and program name."),
    Setting("GPU_EXPORTER_PCIE", "on", _switch, "PCIe traffic of GPUs without GPM, which the driver samples for 40 ms per GPU."),
    Setting("LOG_LEVEL", "INFO", _log_level, "DEBUG, INFO, WARNING or ERROR; shared with the gateway."),
    Setting("LOG_FORMAT", "auto", _log_format, "`json`, `console`, or `auto`: console on a terminal; shared with the gateway."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What app.py needs to compose the exporter."""

    host: str
    port: int
    collector: CollectorConfig
    expected_count: int | None
    wants_processes: bool
    wants_pcie: bool
    log_level: str
    log_format: LogFormat
    warnings: tuple[str, ...]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Raises ConfigurationError with every fault. An empty variable is an unset one."""
        values: dict[str, Any] = {}
        faults = []
        for setting in TABLE:
            raw = environ.get(setting.name, "").strip() or setting.default
            try:
                values[setting.name] = setting.read(raw)
            except ValueError as fault:
                faults.append(f"{setting.name}={raw}: {fault}")
        if faults:
            raise ConfigurationError(faults)
        return cls(
            host=values["GPU_EXPORTER_HOST"],
            port=values["GPU_EXPORTER_PORT"],
            collector=CollectorConfig(
                interval_seconds=values["GPU_EXPORTER_INTERVAL_SECONDS"],
                timeout_seconds=values["GPU_EXPORTER_TIMEOUT_SECONDS"],
            ),
            expected_count=values["GPU_EXPECTED_COUNT"],
            wants_processes=values["GPU_EXPORTER_PROCESSES"],
            wants_pcie=values["GPU_EXPORTER_PCIE"],
            log_level=values["LOG_LEVEL"],
            log_format=values["LOG_FORMAT"],
            warnings=tuple(_unknown(environ)),
        )


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    known = {setting.name for setting in TABLE}
    for name in sorted(environ.keys() - known):
        if name.startswith(_PREFIXES):
            yield f"{name} is not a setting of the exporter; it does nothing"
