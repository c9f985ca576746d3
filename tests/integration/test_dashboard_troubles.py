"""The dashboard when something is wrong: plain words, patience, and a way on."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from scripts.simulator.config import SimulatorConfig
from scripts.simulator.simulator import Simulator
from tests.harness.browser import REFRESH_MS, chromium, dashboard
from tests.harness.callers import UNLIMITED
from tests.harness.commands import KeyCommands
from tests.harness.gateway import GatewayProcess
from tests.harness.used import UsedService, used_service

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[UsedService]:
    async with used_service(tmp_path_factory.mktemp("dashboard")) as running:
        yield running


@pytest.fixture(scope="module")
def simulator(service: UsedService) -> Simulator:
    return service.simulator


async def test_a_wrong_key_is_refused_in_plain_words(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        alert = page.page.get_by_role("alert")
        for wrong, words in (
            ("sk-wrong", "does not know that key"),
            ("sk wrong", "no spaces"),
            ("schlüssel", "no special letters"),
            ("", "Enter your API key"),
        ):
            await page.enter(wrong)
            await expect(alert).to_contain_text(words)
            await expect(page.page.get_by_label("API key")).to_be_focused()
            assert await page.page.get_by_label("API key").input_value() == ""
        await page.open_report(service.secrets["fresh"])


async def test_a_key_revoked_meanwhile_ends_the_session_with_the_reason(
    browser: Browser, service: UsedService
) -> None:
    commands = KeyCommands(service.gateway.settings)
    key = await commands.create("short-lived")
    async with dashboard(browser, service.gateway.url, has_own_clock=True) as page:
        await page.open_report(key.secret)
        await commands.run("revoke", "short-lived")
        async with service.gateway.client_with(key.secret) as client, asyncio.timeout(10):
            while (await client.get("/v1/models")).status_code != 401:
                await asyncio.sleep(0.05)
        await page.page.clock.fast_forward(REFRESH_MS)

        await expect(page.page.get_by_role("alert")).to_contain_text("revoked or replaced")
        await expect(page.page.locator("#session")).to_be_hidden()
        assert await page.rows("days") == []


async def test_an_unwell_service_and_a_restart_are_said_in_plain_words(
    browser: Browser, tmp_path: Path
) -> None:
    async with AsyncExitStack() as held:
        simulator = await held.enter_async_context(Simulator(SimulatorConfig()))
        settings = {"HEALTH_INTERVAL_SECONDS": "0.1", **UNLIMITED}
        gateway = await held.enter_async_context(
            # Its second start finds no upstream: alive is enough.
            GatewayProcess(folder=tmp_path, until_ready=False, VLLM_URL=simulator.url, **settings)
        )
        await gateway.logged(event="upstream is healthy")
        page = await held.enter_async_context(dashboard(browser, gateway.url, has_own_clock=True))
        health = page.page.locator("#health")
        await expect(health).to_have_text("Service is up")
        await page.open_report(gateway.key)

        simulator.vanish()
        await gateway.logged(event="upstream is unhealthy")
        await page.page.clock.fast_forward(REFRESH_MS)
        await expect(health).to_have_text("Service is down")
        await expect(page.page.locator("#service")).to_contain_text("model server does not answer")

        gateway.signal(signal.SIGTERM)
        await gateway.ended()
        await page.page.clock.fast_forward(REFRESH_MS)
        await expect(health).to_have_text("Gateway does not answer")
        await expect(page.page.locator("#notice")).to_contain_text("may be restarting")
        assert await page.facts()

        await gateway.start()
        await page.page.clock.fast_forward(REFRESH_MS * 2)
        await expect(page.page.locator("#notice")).to_be_empty()
        await expect(health).to_have_text("Service is down")


async def test_a_page_that_asks_too_often_waits_as_it_is_told(
    browser: Browser, simulator: Simulator, tmp_path: Path
) -> None:
    async with (
        GatewayProcess(
            folder=tmp_path, VLLM_URL=simulator.url, RATE_LIMIT_PER_IP="20/hour"
        ) as gateway,
        dashboard(browser, gateway.url, has_own_clock=True) as page,
    ):
        await page.open_report(gateway.key)
        while (await gateway.client.get("/v1/models")).status_code != 429:
            pass
        await page.page.clock.fast_forward(REFRESH_MS)
        await expect(page.page.locator("#notice")).to_contain_text("Too many requests")
        asked = page.asked("/v1/usage")
        await page.page.clock.fast_forward(REFRESH_MS)
        await page.page.wait_for_timeout(100)

        assert page.asked("/v1/usage") == asked == 2
        assert (await page.facts())["Used"] == 0
