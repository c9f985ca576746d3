"""What is looked at before a Redis is trusted, and what `gateway check` says of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.shared.config import RedisConfig, RedisUnusable
from gateway.shared.inspection import inspect
from gateway.shared.tables import Tables
from tests.harness.commands import run_gateway
from tests.harness.gateway import free_port
from tests.harness.redis import RedisProcess


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with RedisProcess(folder=tmp_path, is_durable=True) as server:
        yield server


@pytest.fixture
def tables(redis: RedisProcess) -> Iterator[Tables]:
    found = Tables(RedisConfig(redis.url))
    yield found
    found.close()


def test_a_redis_that_keeps_everything_is_trusted(tables: Tables) -> None:
    found = inspect(tables, place="redis://here")
    assert int(found.version.partition(".")[0]) >= 7
    assert found.warnings == ()


def test_one_that_forgets_is_warned_about(redis: RedisProcess, tables: Tables) -> None:
    with redis.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("appendonly", "no")
    eviction, persistence = inspect(tables, place="redis://here").warnings
    assert "maxmemory-policy is allkeys-lru" in eviction
    assert "set it to noeviction" in eviction
    assert "set appendonly to yes" in persistence


def test_one_that_is_too_old_is_refused() -> None:
    class Old(Tables):
        def facts(self) -> dict[str, object]:
            return {"redis_version": "6.2.14"}

    old = Old(RedisConfig("redis://127.0.0.1"))
    with pytest.raises(RedisUnusable, match=r"it is version 6\.2\.14\. Redis 7 or newer"):
        inspect(old, place="redis://127.0.0.1")


async def test_the_check_warns_of_it(redis: RedisProcess) -> None:
    with redis.client() as client:
        client.config_set("appendonly", "no")
    settings = {"REDIS_URL": redis.url, "GATEWAY_API_KEYS": "a=sk-aaaaaaaaaaaaaaaaaaaaaa"}
    told = await run_gateway("check", settings=settings)
    assert f"warning: REDIS_URL=redis://127.0.0.1:{redis.port}/0: appendonly is off" in told.err


async def test_the_check_and_the_commands_say_that_there_is_none() -> None:
    url = f"redis://:hidden@127.0.0.1:{free_port()}/0"
    settings = {"REDIS_URL": url, "GATEWAY_API_KEYS": "a=sk-aaaaaaaaaaaaaaaaaaaaaa"}
    for command in (("check",), ("keys", "list"), ("usage",)):
        told = await run_gateway(*command, settings=settings)
        assert told.code == 1
        assert "REDIS_URL=redis://127.0.0.1" in told.err
        assert "Start Redis there, or correct the address" in told.err
        assert "hidden" not in told.err + told.out
