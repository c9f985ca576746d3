"""The simulator's own endpoints under /sim: state, faults, settings, received requests."""

from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass, replace

import orjson

from scripts.simulator.application import Application
from scripts.simulator.config import RUNTIME_FIELDS, SimulatorConfig
from scripts.simulator.errors import bad_request
from scripts.simulator.faults import Fault, fault_from_fields
from scripts.simulator.fields import Fields
from scripts.simulator.reply import Reply
from scripts.simulator.server import Request

# What POST /sim/config also accepts: the flags' names.
_SHORT_NAMES = {"ttft": "ttft_seconds", "inter_token": "inter_token_seconds"}


@dataclass(frozen=True, slots=True)
class SimulatorState:
    """A snapshot; running and waiting count sequences, the totals all models together."""

    running: int
    waiting: int
    hanging: int
    connections: int
    requests_total: int
    aborted_total: int
    finished_total: Mapping[str, int]
    prompt_tokens_total: int
    generation_tokens_total: int
    prefix_cache_hits_total: int
    kv_cache_usage: float
    faults: tuple[Fault, ...]


def snapshot(application: Application, *, connections: int) -> SimulatorState:
    """The state right now."""
    engine = application.engine
    models = engine.metrics.values()
    reasons = {reason for model in models for reason in model.finished}
    return SimulatorState(
        running=engine.running,
        waiting=engine.waiting,
        hanging=application.outages.hanging,
        connections=connections,
        requests_total=application.requests_total,
        aborted_total=engine.aborted,
        finished_total={
            reason: sum(model.finished[reason] for model in models) for reason in sorted(reasons)
        },
        prompt_tokens_total=sum(model.prompt_tokens for model in models),
        generation_tokens_total=sum(model.generation_tokens for model in models),
        prefix_cache_hits_total=sum(model.prefix_hits for model in models),
        kv_cache_usage=engine.kv_cache_usage,
        faults=application.board.armed,
    )


class Control:
    """Turns the knobs of an application over HTTP."""

    def __init__(self, *, application: Application, connections: Sized) -> None:
        self._application = application
        self._connections = connections
        application.add_route(b"GET", b"/sim/state", self._state)
        application.add_route(b"GET", b"/sim/requests", self._requests)
        application.add_route(b"DELETE", b"/sim/requests", self._forget)
        application.add_route(b"GET", b"/sim/faults", self._faults)
        application.add_route(b"POST", b"/sim/faults", self._arm)
        application.add_route(b"DELETE", b"/sim/faults", self._disarm)
        application.add_route(b"GET", b"/sim/config", self._config)
        application.add_route(b"POST", b"/sim/config", self._configure)

    def _state(self, _request: Request, reply: Reply) -> None:
        state = snapshot(self._application, connections=len(self._connections))
        reply.send(200, orjson.dumps(state))

    def _requests(self, _request: Request, reply: Reply) -> None:
        seen = [
            {
                "method": request.method,
                "path": request.path,
                "headers": request.headers,
                "body": request.body.decode(errors="replace"),
            }
            for request in self._application.requests
        ]
        reply.send(200, orjson.dumps(seen))

    def _forget(self, request: Request, reply: Reply) -> None:
        self._application.requests.clear()
        self._requests(request, reply)

    def _faults(self, _request: Request, reply: Reply) -> None:
        reply.send(200, orjson.dumps({"faults": self._application.board.armed}))

    def _arm(self, request: Request, reply: Reply) -> None:
        self._application.board.arm(fault_from_fields(Fields.parse(request.body)))
        self._application.board_changed()
        self._faults(request, reply)

    def _disarm(self, request: Request, reply: Reply) -> None:
        self._application.board.disarm()
        self._application.board_changed()
        self._faults(request, reply)

    def _config(self, _request: Request, reply: Reply) -> None:
        known = asdict(self._application.config)
        shown = {name: known[name] for name in sorted(RUNTIME_FIELDS - {"api_key"})}
        reply.send(200, orjson.dumps(shown))

    def _configure(self, request: Request, reply: Reply) -> None:
        changed = changed_config(self._application.config, Fields.parse(request.body))
        self._application.configure(changed)
        self._config(request, reply)


def changed_config(config: SimulatorConfig, fields: Fields) -> SimulatorConfig:
    """The settings with the posted ones changed; raises ApiError (400) for a wrong one."""
    changes: dict[str, object] = {}
    for posted, value in fields.members().items():
        name = _SHORT_NAMES.get(posted, posted)
        if name not in RUNTIME_FIELDS:
            raise bad_request(f"'{posted}' cannot be changed while running.", posted)
        kind = type(getattr(config, name))
        accepted = int | float if kind is float else kind
        if not isinstance(value, accepted):
            raise bad_request(f"'{posted}' must be of type {kind.__name__}.", posted)
        changes[name] = kind(value)
    return replace(config, **changes)  # type: ignore[arg-type]  # checked one by one above
