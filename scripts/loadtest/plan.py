"""What one worker is to do: plain values that travel to it over a pipe, the key among them."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import orjson


class Endpoint(StrEnum):
    """What is asked for."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"


PATHS: Final = {
    Endpoint.CHAT: "/v1/chat/completions",
    Endpoint.COMPLETIONS: "/v1/completions",
    Endpoint.EMBEDDINGS: "/v1/embeddings",
}


@dataclass(frozen=True, slots=True)
class Slo:
    """What a user still finds good, in seconds; 0 where nothing is asked."""

    ttft_seconds: float = 0.0
    tpot_seconds: float = 0.0
    e2el_seconds: float = 0.0

    @property
    def is_set(self) -> bool:
        return bool(self.ttft_seconds or self.tpot_seconds or self.e2el_seconds)

    def words(self) -> str:
        """As the command line writes it."""
        limits = (
            ("ttft", self.ttft_seconds),
            ("tpot", self.tpot_seconds),
            ("e2el", self.e2el_seconds),
        )
        return " ".join(f"{name}:{limit:g}" for name, limit in limits if limit)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about the load. `rate` 0 means a closed loop of `concurrency` users.

    `start_at` and what follows from it are times of the monotonic clock, which all processes of
    a machine share.
    """

    host: str
    port: int
    is_tls: bool
    authority: str
    prefix: str
    api_key: str
    model: str
    endpoint: Endpoint
    is_stream: bool
    concurrency: int
    rate: float
    arrivals: str
    max_outstanding: int
    prompt_tokens: str
    output_tokens: str
    prompt_file: str
    ignores_eos: bool
    extra_body: str
    think_seconds: str
    failure_pause_seconds: float
    duration_seconds: float
    warm_up_seconds: float
    ramp_seconds: float
    drain_seconds: float
    timeout_seconds: float
    connect_timeout_seconds: float
    seed: int
    slo: Slo
    start_at: float = 0.0
    worker: int = 0
    workers: int = 1

    @property
    def begin_at(self) -> float:
        """From here on it counts: the ramp and the warm-up are over."""
        return self.start_at + self.ramp_seconds + self.warm_up_seconds

    @property
    def end_at(self) -> float:
        """No request is due from here on."""
        return self.begin_at + self.duration_seconds

    @property
    def is_open_loop(self) -> bool:
        return self.rate > 0

    def shares(self, *, workers: int, start_at: float) -> "list[Plan]":
        """The plan divided among workers."""
        return [
            replace(
                self,
                worker=number,
                workers=workers,
                start_at=start_at,
                concurrency=_share(self.concurrency, number, workers),
                max_outstanding=_share(self.max_outstanding, number, workers),
                rate=self.rate / workers,
            )
            for number in range(workers)
        ]

    def to_json(self) -> bytes:
        """One line."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, line: bytes) -> "Plan":
        """The plan that `to_json` wrote."""
        values = orjson.loads(line)
        values["slo"] = Slo(**values["slo"])
        values["endpoint"] = Endpoint(values["endpoint"])
        return cls(**values)


def _share(whole: int, number: int, workers: int) -> int:
    return whole // workers + (1 if number < whole % workers else 0)
