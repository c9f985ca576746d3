"""The set of upstreams: which models exist, and a lease on one that serves them."""

from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from types import TracebackType
from typing import Self

from gateway.breaker import Permit
from gateway.errors import (
    InvalidRequest,
    ModelNotFound,
    UpstreamFailed,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.exchange import ServedModel
from gateway.routing.policy import SelectionPolicy
from gateway.routing.upstream import Upstream


class Lease:
    """A slot at one upstream and its breaker's permit, given back on leaving the block.

    Leaving by an upstream's failure counts against it, as `judge` has it. All else without a
    verdict is neutral: the client left, or nothing was learnt.
    """

    __slots__ = ("_permit", "upstream")

    def __init__(self, upstream: Upstream, permit: Permit) -> None:
        self.upstream = upstream
        self._permit = permit
        upstream.in_flight += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.upstream.in_flight -= 1
        self.judge(error)
        self._permit.release()

    def begin_answer(self) -> None:
        """A sound answer has begun: a probe has made its point and need not last a whole stream."""
        if self._permit.is_probe:
            self._permit.succeed()

    def succeed(self) -> None:
        self._permit.succeed()

    def judge(self, error: BaseException | None) -> None:
        """Count against the upstream what is its failure. Neutral are a 4xx, which an engine
        that is dead can say too, and a wrong set-up, which no pause mends."""
        if isinstance(error, UpstreamMisconfigured):
            return
        if isinstance(error, UpstreamFailed | UpstreamTimeout | UpstreamUnavailable):
            self.fail()

    def fail(self) -> None:
        """The upstream failed this call, be it after a good beginning."""
        if not self._permit.fail():
            self.upstream.breaker.record_failure()


class UpstreamPool:
    """Membership, and who may be asked now."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        policy: SelectionPolicy,
        default_model: str | None,
    ) -> None:
        self.upstreams = tuple(upstreams)
        self._policy = policy
        self._default_model = default_model

    def models(self) -> list[ServedModel]:
        """The union of what the upstreams serve, by name."""
        union: dict[str, ServedModel] = {}
        for upstream in self.upstreams:
            for name, model in upstream.models.items():
                union.setdefault(name, model)
        return [union[name] for name in sorted(union)]

    def resolve(self, name: str, *, visible: Callable[[str], bool]) -> ServedModel:
        """The model a client named, or the only sensible one if it named none.

        Raises ModelNotFound, InvalidRequest if none was named, or UpstreamUnavailable while an
        upstream that might serve it has never been reached. `visible` keeps other keys' models
        out of the suggestions.
        """
        name = name or self._default_name(visible)
        for upstream in self.upstreams:
            model = upstream.models.get(name)
            if model is not None:
                return model
        if not all(upstream.was_discovered for upstream in self.upstreams):
            raise UpstreamUnavailable(
                "The model server has not answered yet; it may be starting.",
                retry_after_seconds=2.0,
            )
        known = [model.name for model in self.models() if visible(model.name)]
        if not name:
            served = f" Served here: {', '.join(known)}." if known else ""
            raise InvalidRequest(
                f"Name a model: 'model' is missing.{served}",
                code="missing_required_parameter",
                param="model",
            )
        raise ModelNotFound(_unknown_model(name, known), param="model")

    def _default_name(self, visible: Callable[[str], bool]) -> str:
        if self._default_model:
            return self._default_model
        names = [model.name for model in self.models() if visible(model.name)]
        return names[0] if len(names) == 1 else ""

    def lease(self, model: str, *, besides: Collection[Upstream]) -> Lease:
        """A slot at an upstream that serves the model and is not in `besides`.

        Raises UpstreamUnavailable when there is none, or when every breaker is open; then with
        the time until the first of them lets a probe pass.
        """
        serving = [u for u in self.upstreams if model in u.models and u not in besides]
        if not serving:
            raise UpstreamUnavailable(
                "No other upstream serves this model.", retry_after_seconds=1.0
            )
        permitted = [u for u in serving if u.breaker.permits]
        if not permitted:
            wait_seconds = min(u.breaker.retry_after_seconds for u in serving)
            raise UpstreamUnavailable(
                "The model server is failing and is left alone for now (circuit breaker open).",
                code="circuit_open",
                retry_after_seconds=wait_seconds,
            )
        upstream = self._policy.pick(permitted)
        return Lease(upstream, upstream.breaker.acquire())


def _unknown_model(name: str, known: list[str]) -> str:
    near = get_close_matches(name[:200], known, n=3, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else " GET /v1/models lists what is."
    return f"The model '{name[:200]}' is not served here.{hint}"
