"""The upstreams that live now, generation after generation: who stays keeps what is known of it."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import NamedTuple, Self

from gateway.routing.aliases import Aliases
from gateway.routing.definition import FleetDefinition, UpstreamDefinition
from gateway.routing.health import HealthProber
from gateway.routing.pool import UpstreamPool
from gateway.routing.upstream import Upstream

_DRAIN_LOOK_SECONDS = 0.1
_INTRODUCTION_SECONDS = 3.0


class Member(NamedTuple):
    """An upstream, and its connections to open and to close."""

    upstream: Upstream
    connections: AbstractAsyncContextManager[object]


class Fleet:
    """Owns every Upstream with its connections and its prober's task, from enter to exit.

    `replace` swaps the generation in one tick. An upstream that is where it was keeps its
    breaker, health, connections and calls; one that is no longer named gets no new call, and its
    connections close when its last one has ended. `on_gone` hears of a name nobody has any more.
    """

    def __init__(
        self,
        first: FleetDefinition,
        *,
        pool: UpstreamPool,
        prober: HealthProber,
        member: Callable[[UpstreamDefinition], Member],
        on_gone: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._first = first
        self._pool = pool
        self._prober = prober
        self._member = member
        self._on_gone = on_gone
        self._members: dict[str, Member] = {}
        self._draining: dict[asyncio.Task[None], Member] = {}
        self.generation = 0

    async def __aenter__(self) -> Self:
        await self.replace(self._first)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        draining, self._draining = self._draining, {}
        for task in draining:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)
        for member in (*draining.values(), *self._members.values()):
            await member.connections.__aexit__(None, None, None)

    async def replace(self, definition: FleetDefinition) -> None:
        """Make this the generation that counts."""
        kept, new = self._sorted(definition)
        for member in new.values():
            await member.connections.__aenter__()
        if self.generation:
            await self._introduce(member.upstream for member in new.values())

        # From here to the end no await: nobody sees half a generation.
        before, self._members = self._members, kept | new
        for each in definition.upstreams:
            if each.name in kept:
                kept[each.name].upstream.adopt(each)
        members = [self._members[name].upstream for name in definition.names]
        self._pool.replace(members, aliases=Aliases(definition.aliases))
        self.generation += 1
        for member in new.values():
            self._prober.begin(member.upstream)
        for name, member in before.items():
            if name not in kept:
                self._prober.end(member.upstream)
                self._draining[asyncio.create_task(self._drain(member))] = member

    async def _introduce(self, upstreams: Iterable[Upstream]) -> None:
        """Ask newcomers what they serve before they take over from those that are known: a call
        that comes between must not find nobody."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_INTRODUCTION_SECONDS):
                await asyncio.gather(*map(self._prober.look, upstreams))

    def _sorted(self, definition: FleetDefinition) -> tuple[dict[str, Member], dict[str, Member]]:
        """Who stays, and who is new, by name."""
        kept: dict[str, Member] = {}
        new: dict[str, Member] = {}
        for each in definition.upstreams:
            known = self._members.get(each.name)
            if known is not None and known.upstream.definition.is_same_place(each):
                kept[each.name] = known
            else:
                new[each.name] = self._member(each)
        return kept, new

    async def _drain(self, member: Member) -> None:
        upstream = member.upstream
        # Leases count on the hot path; they need not tell anybody besides.
        while upstream.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        await member.connections.__aexit__(None, None, None)
        self._draining = {task: m for task, m in self._draining.items() if m is not member}
        if upstream.name not in self._members:
            self._on_gone(upstream.name)
