"""WATCHDOG_* and what else the watchdog reads, with every fault in one message."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from scripts.supervision.environment import setting
from scripts.supervision.restarts import RestartPolicy
from scripts.supervision.rotation import LogLimits

T = TypeVar("T")
VLLM_CHOICES = ("gpu", "cpu", "sim", "none")
DRAIN_SECONDS = 30.0
BEYOND_DRAIN_SECONDS = 15.0
NEVER = float("inf")


class SettingsFault(Exception):
    """Something cannot be read or does not fit; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: to become healthy, with failing health, with a hung engine, and to end."""

    start_seconds: float
    health_seconds: float
    stall_seconds: float
    stop_seconds: float
    poll_seconds: float


@dataclass(frozen=True, slots=True)
class WatchdogSettings:
    """`vllm`: one of VLLM_CHOICES, or empty: find out. `exporter`: on, off, or a number of GPUs."""

    vllm: str
    exporter: str
    patience: Patience
    policy: RestartPolicy
    logs: LogLimits


def read_settings(options: Mapping[str, str]) -> WatchdogSettings:
    """Options of the command line win over the environment, this over config/.env.

    Raises SettingsFault with every fault.
    """
    table = _Table(options)
    settings = WatchdogSettings(
        vllm=table.read("WATCHDOG_VLLM", "", _vllm),
        exporter=table.read("WATCHDOG_EXPORTER", "on", _exporter),
        patience=Patience(
            start_seconds=table.read("WATCHDOG_START_SECONDS", "1800", _seconds),
            health_seconds=table.read("WATCHDOG_HEALTH_SECONDS", "60", _seconds),
            stall_seconds=table.read("WATCHDOG_STALL_SECONDS", "100", _seconds_or_off),
            stop_seconds=table.read("WATCHDOG_STOP_SECONDS", "30", _seconds),
            poll_seconds=table.read("WATCHDOG_POLL_SECONDS", "5", _seconds),
        ),
        policy=RestartPolicy(
            backoff_seconds=table.read("WATCHDOG_BACKOFF_SECONDS", "1", _seconds),
            backoff_max_seconds=table.read("WATCHDOG_BACKOFF_MAX_SECONDS", "60", _seconds),
            restarts_max=table.read("WATCHDOG_RESTARTS_MAX", "5", _whole),
            stable_seconds=table.read("WATCHDOG_STABLE_SECONDS", "60", _seconds),
        ),
        logs=LogLimits(
            size_bytes=table.read("WATCHDOG_LOG_BYTES", "52428800", _count),
            files=table.read("WATCHDOG_LOG_FILES", "5", _count),
        ),
    )
    if table.faults:
        raise SettingsFault("\n".join(table.faults))
    return settings


def gateway_stop_seconds() -> float:
    """Longer than the gateway's drain, whatever it is set to."""
    try:
        drain_seconds = float(setting("DRAIN_SECONDS") or DRAIN_SECONDS)
    except ValueError:
        drain_seconds = DRAIN_SECONDS
    return drain_seconds + BEYOND_DRAIN_SECONDS


class _Table:
    """Reads one variable after the other and collects what is wrong."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        self.faults: list[str] = []

    def read(self, name: str, default: str, parse: Callable[[str], T]) -> T:
        text = (self._options.get(name) or setting(name)).strip() or default
        try:
            return parse(text)
        except ValueError as fault:
            self.faults.append(f"{name}={text}: {fault}")
            return parse(default)


def _vllm(text: str) -> str:
    if text and text not in VLLM_CHOICES:
        raise ValueError(f"must be one of {', '.join(VLLM_CHOICES)}")
    return text


def _exporter(text: str) -> str:
    if text not in ("on", "off") and not (text.isdecimal() and int(text)):
        raise ValueError("must be on, off, or how many GPUs to simulate")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < NEVER:
        raise ValueError("must be a number of seconds above 0")
    return seconds


def _seconds_or_off(text: str) -> float:
    return NEVER if text == "off" else _seconds(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("must be a whole number of at least 0")
    return int(text)


def _count(text: str) -> int:
    number = _whole(text)
    if not number:
        raise ValueError("must be a whole number of at least 1")
    return number
