"""What is broken on purpose fires exactly the alerts it should, in a real Prometheus, and clears.

The shipped rules run thirty times faster than on a wall; nothing else in them is changed. The tests
build on each other's rest: each leaves the plant as it found it.
"""

import asyncio

import pytest

from tests.harness.commands import KeyCommands
from tests.harness.gateway import chat
from tests.monitoring.plant import Plant

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_nothing_but_the_watchdog_fires_under_ordinary_load(plant: Plant) -> None:
    await plant.until_firing()


async def test_every_rule_can_be_evaluated(plant: Plant) -> None:
    assert {rule["health"] for rule in await plant.prometheus.rules()} == {"ok"}


async def test_a_gpu_that_falls_off_the_bus_is_told_once(plant: Plant) -> None:
    await plant.exporter.client.post("/sim/faults", json={"gpu": 1, "kind": "lost"})
    await plant.until_firing("GpuLost")
    (alert,) = [a for a in await plant.prometheus.alerts() if a.name == "GpuLost"]
    assert alert.labels["gpu"] == "1"
    assert "error" not in str(alert.annotations)

    await plant.exporter.client.delete("/sim/faults")
    await plant.until_quiet()


async def test_a_key_that_has_used_its_quota_is_named(plant: Plant) -> None:
    keys = KeyCommands(plant.gateway.settings)
    made = await keys.create("spender", "--daily-tokens", "300")
    async with plant.gateway.client_with(made.secret) as client:
        async with asyncio.timeout(15):
            # Unknown to the gateway for a moment, then good, then exhausted.
            while (await client.post("/v1/chat/completions", json=chat())).status_code != 429:
                await asyncio.sleep(0.05)
    await plant.until_firing("KeyNearQuota")
    (alert,) = [a for a in await plant.prometheus.alerts() if a.name == "KeyNearQuota"]
    assert alert.labels["key"] == "spender"

    await keys.run("revoke", made.key_id)
    await plant.until_quiet()


async def test_a_full_kv_cache_is_told_as_a_cache_a_queue_and_a_stall(plant: Plant) -> None:
    await plant.simulator.client.post("/sim/faults", json={"kind": "kv_full"})
    await plant.until_firing(
        "VllmKvCacheHigh", "VllmKvCacheSaturated", "VllmQueueGrowing", "VllmStalled"
    )

    await plant.simulator.client.delete("/sim/faults")
    await plant.until_quiet()


async def test_a_killed_vllm_is_down_unhealthy_and_no_longer_asked(plant: Plant) -> None:
    await plant.simulator.kill()
    await plant.until_firing("TargetDown", "CircuitBreakerOpen", "UpstreamUnhealthy")
    (alert,) = [a for a in await plant.prometheus.alerts() if a.name == "TargetDown"]
    assert alert.labels["job"] == "vllm"
    assert alert.labels["severity"] == "critical"

    await plant.simulator.start()
    await plant.until_quiet()
