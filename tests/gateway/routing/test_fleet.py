"""Generations of upstreams: who stays keeps everything, who goes drains, the swap is whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import UpstreamUnavailable
from gateway.routing.definition import FleetDefinition, Kind, UpstreamDefinition
from gateway.routing.fleet import Fleet, Member
from gateway.routing.health import HealthProber, ProberConfig
from gateway.routing.pool import UpstreamPool
from gateway.routing.source import UpstreamsFile
from gateway.routing.watcher import FleetWatcher
from tests.fakes.clock import FakeClock
from tests.gateway.routing.fleet import ScriptedProbe, chat_with, pool_of, upstream_of, well


class Connections:
    """Remembers whether they are open."""

    def __init__(self) -> None:
        self.is_open = False

    async def __aenter__(self) -> None:
        self.is_open = True

    async def __aexit__(self, *_exception: object) -> None:
        self.is_open = False


class Yard:
    """A fleet of upstreams without a network, each well and serving `m`."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.connections: dict[str, list[Connections]] = {}
        self.gone: list[str] = []
        self.pool: UpstreamPool = pool_of()
        self.prober = HealthProber(config=ProberConfig(60.0, 60.0), on_change=lambda _: None)

    def fleet(self, first: FleetDefinition) -> Fleet:
        return Fleet(
            first,
            pool=self.pool,
            prober=self.prober,
            member=self._member,
            on_gone=self.gone.append,
        )

    def _member(self, definition: UpstreamDefinition) -> Member:
        connections = Connections()
        self.connections.setdefault(definition.name, []).append(connections)
        probe = ScriptedProbe(*[well("m")] * 3)
        upstream = upstream_of(
            definition.name, clock=self.clock, models=(), probe=probe, definition=definition
        )
        return Member(upstream, connections)


def fleet_of(*names: str, **aliases: str) -> FleetDefinition:
    return FleetDefinition(tuple(map(at, names)), aliases)


def at(name: str) -> UpstreamDefinition:
    return UpstreamDefinition(name=name, url=f"http://{name}")


async def until(condition: object) -> None:
    async with asyncio.timeout(2):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(*names: str) -> AsyncIterator[tuple[Yard, Fleet]]:
    yard = Yard()
    async with yard.fleet(fleet_of(*names)) as fleet, yard.prober:
        await until(lambda: all(u.health.is_healthy for u in yard.pool.upstreams))
        yield yard, fleet


async def test_the_pool_has_whom_the_generation_names_in_its_order() -> None:
    async with running("b", "a") as (yard, fleet):
        assert [u.name for u in yard.pool.upstreams] == ["b", "a"]
        await fleet.replace(fleet_of("a", "c", alias="m"))
        assert [u.name for u in yard.pool.upstreams] == ["a", "c"]
        assert len(yard.pool.aliases) == 1
        assert fleet.generation == 2


async def test_who_stays_is_the_same_with_its_calls_and_its_circuit() -> None:
    async with running("a", "b") as (yard, fleet):
        before = yard.pool.upstreams[0]
        before.breaker.acquire().fail()
        before.in_flight = 3
        await fleet.replace(fleet_of("a"))
        (after,) = yard.pool.upstreams
        assert after is before
        assert (after.in_flight, after.breaker.permits) == (3, False)
        assert len(yard.connections["a"]) == 1
        after.in_flight = 0


async def test_what_is_said_of_who_stays_counts_from_now_on() -> None:
    async with running("a") as (yard, fleet):
        changed = replace(
            at("a"),
            weight=7,
            max_in_flight=1,
            models=frozenset({"x"}),
            kinds=frozenset({Kind.EMBED}),
        )
        before = yard.pool.upstreams[0]
        await fleet.replace(FleetDefinition((changed,)))
        (after,) = yard.pool.upstreams
        assert after.definition == changed
        assert after.models == {}
        # Of another kind it need not be asked whether it speaks Anthropic: it is made anew.
        assert after is not before


async def test_another_place_under_the_same_name_is_another_upstream() -> None:
    async with running("a") as (yard, fleet):
        old = yard.pool.upstreams[0]
        old.in_flight = 1
        await fleet.replace(FleetDefinition((replace(at("a"), url="http://elsewhere"),)))
        (new,) = yard.pool.upstreams
        first, second = yard.connections["a"]
        assert new is not old
        assert (first.is_open, second.is_open) == (True, True)
        old.in_flight = 0
        await until(lambda: not first.is_open)
        assert second.is_open
        assert yard.gone == []


async def test_who_goes_gets_no_call_and_closes_after_its_last() -> None:
    async with running("a", "b") as (yard, fleet):
        leases = [yard.pool.lease(chat_with()) for _ in range(2)]
        leaving = next(u for u in yard.pool.upstreams if u.name == "b")
        await fleet.replace(fleet_of("a"))
        for _ in range(4):
            with yard.pool.lease(chat_with()) as lease:
                assert lease.upstream.name == "a"
        (connections,) = yard.connections["b"]
        await asyncio.sleep(0.15)
        assert leaving.in_flight == 1
        assert connections.is_open
        for lease in leases:
            lease.__exit__(None, None, None)
        await until(lambda: yard.gone == ["b"])
        assert not connections.is_open


async def test_a_newcomer_is_known_before_it_takes_over() -> None:
    async with running("a") as (yard, fleet):
        await fleet.replace(fleet_of("b"))
        with yard.pool.lease(chat_with()) as lease:
            assert lease.upstream.name == "b"


async def test_leaving_closes_everybody_and_ends_every_task() -> None:
    before = len(asyncio.all_tasks())
    async with running("a", "b") as (yard, fleet):
        yard.pool.upstreams[1].in_flight = 1
        await fleet.replace(fleet_of("a"))
    assert not any(each.is_open for all_of in yard.connections.values() for each in all_of)
    assert len(asyncio.all_tasks()) == before


async def test_nobody_at_all_is_unavailable() -> None:
    with pytest.raises(UpstreamUnavailable):
        pool_of().lease(chat_with())


# The watcher


class Watch:
    """A watcher of a file, and what it told."""

    def __init__(self, path: Path, fleet: Fleet) -> None:
        self.path = path
        self.reloads = 0
        self.failures: list[tuple[str, ...]] = []
        self.watcher = FleetWatcher(
            UpstreamsFile(path),
            fleet=fleet,
            on_reload=self._count,
            on_failure=self.failures.append,
            look_seconds=0.02,
            settling_seconds=0.05,
        )

    def _count(self) -> None:
        self.reloads += 1

    def write(self, *names: str) -> None:
        text = "".join(f'[[upstream]]\nname = "{n}"\nurl = "http://{n}"\n' for n in names)
        self.path.write_text(text)


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[tuple[Yard, Watch]]:
    async with running("a") as (yard, fleet):
        watch = Watch(folder / "upstreams.toml", fleet)
        watch.write("a")
        async with watch.watcher:
            yield yard, watch


async def test_a_change_is_seen_and_sameness_is_not(tmp_path: Path) -> None:
    async with watching(tmp_path) as (yard, watch):
        await asyncio.sleep(0.1)
        assert watch.reloads == 0
        watch.write("a", "b")
        await until(lambda: watch.reloads == 1)
        assert [u.name for u in yard.pool.upstreams] == ["a", "b"]


async def test_a_file_is_read_when_it_is_written_to_its_end(tmp_path: Path) -> None:
    async with watching(tmp_path) as (_, watch):
        with watch.path.open("w") as file:
            for piece in ("[[upstr", 'eam]]\nname = "c"\nurl =', ' "http://c"\n'):
                file.write(piece)
                file.flush()
                await asyncio.sleep(0.03)
        await until(lambda: watch.reloads == 1)
        assert watch.failures == []


async def test_a_broken_file_is_told_once_and_the_next_good_one_is_taken(tmp_path: Path) -> None:
    async with watching(tmp_path) as (yard, watch):
        watch.path.write_text("[[upstream")
        await until(lambda: watch.failures)
        await asyncio.sleep(0.2)
        assert len(watch.failures) == watch.watcher.failures_total == 1
        assert [u.name for u in yard.pool.upstreams] == ["a"]
        watch.write("b")
        await until(lambda: watch.reloads == 1)


async def test_a_file_put_in_the_place_of_another_is_a_change(tmp_path: Path) -> None:
    async with watching(tmp_path) as (yard, watch):
        other = tmp_path / "new.toml"
        other.write_text(watch.path.read_text().replace('"a"', '"z"').replace("//a", "//z"))
        other.rename(watch.path)
        await until(lambda: watch.reloads == 1)
        assert [u.name for u in yard.pool.upstreams] == ["z"]


async def test_a_hangup_reads_the_file_though_it_is_the_same(tmp_path: Path) -> None:
    async with watching(tmp_path) as (_, watch):
        watch.watcher.reload_soon()
        await until(lambda: watch.reloads == 1)


async def test_after_the_end_a_hangup_does_nothing(tmp_path: Path) -> None:
    async with watching(tmp_path) as (_, watch):
        pass
    watch.watcher.reload_soon()
    assert watch.reloads == 0
