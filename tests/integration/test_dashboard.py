"""GET /dashboard in a real browser: the numbers are right, and it is served like the rest."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from scripts.simulator.simulator import Simulator
from tests.harness.browser import REFRESH_MS, chromium, dashboard, number
from tests.harness.gateway import GatewayProcess, chat
from tests.harness.used import CHAT, NASTY_MODEL, UsedService, used_service

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


async def test_the_numbers_are_those_of_the_usage_endpoint(
    browser: Browser, service: UsedService
) -> None:
    secret = service.secrets["used"]
    async with service.gateway.client_with(secret) as client:
        usage = (await client.get("/v1/usage", params={"days": 30})).json()
    async with dashboard(browser, service.gateway.url, timezone_id="America/New_York") as page:
        await page.open_report(secret)

        assert await page.text("key-name") == "used"
        assert number(await page.text("figure")) == usage["remaining_tokens"]
        assert await page.facts() == {
            "Used": usage["total_tokens"],
            "Reserved": usage["reserved_tokens"],
            "Input": usage["input_tokens"],
            "Output": usage["output_tokens"],
            "Requests": usage["requests"],
            "Refused": usage["refusals"],
        }
        days = [[number(cell) for cell in cells] for _, *cells in await page.rows("days")]
        columns = ("input_tokens", "output_tokens", "total_tokens", "requests", "refusals")
        assert days == [[day[name] for name in columns] for day in usage["history"]]
        assert len(days) == 30
        models = {name: [number(c) for c in cells] for name, *cells in await page.rows("models")}
        today = usage["models"]["sim-model"]["total_tokens"]
        assert models == {
            "sim-model": [today, today + 3 * 225_000, usage["requests"] + 225],
            NASTY_MODEL: [0, 3 * 77 * 15, 225],
        }
        resets_at = datetime.fromisoformat(usage["resets_at"])
        local = resets_at.astimezone(ZoneInfo("America/New_York"))
        assert f"{local:%A} {local.day} {local:%B} at {local:%H:%M} your time" in await page.text(
            "reset"
        )
        assert "Pacific/Auckland" in await page.text("zone")
        assert page.complaints == []


async def test_the_plot_has_a_bar_for_every_part_of_a_day_and_says_a_day_pointed_at(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        await page.open_report(service.secrets["used"])
        plot = page.page.get_by_role("img", name="Tokens per day")
        box = await plot.bounding_box()
        assert box is not None
        await plot.hover(position={"x": box["width"] - 60, "y": 100})

        assert await plot.locator("rect.input, rect.output").count() >= 30
        await expect(page.page.locator("#plot-caption")).to_contain_text("requests")


async def test_a_key_without_a_quota_has_no_limit_no_meter_and_no_reset(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        await page.open_report(service.secrets["unlimited"])

        assert "no daily limit" in await page.text("figure-words")
        assert number(await page.text("figure")) == (await page.facts())["Used"] > 0
        assert await page.text("reset") == ""
        await expect(page.page.get_by_role("meter")).to_be_hidden()


async def test_a_key_never_used_says_so_and_draws_no_empty_plot(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        await page.open_report(service.secrets["fresh"])

        assert "Nothing used yet" in await page.text("history-total")
        assert await page.text("figure") == "50,000"
        await expect(page.page.get_by_role("img", name="Tokens per day")).to_be_hidden()
        await expect(page.page.get_by_text("No model has been asked")).to_be_visible()


async def test_a_quota_used_up_is_said_in_words(browser: Browser, service: UsedService) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        await page.open_report(service.secrets["spent"])

        assert await page.text("figure") == "0"
        assert "used up" in await page.text("standing")
        meter = page.page.get_by_role("meter")
        assert await meter.get_attribute("aria-valuenow") == "12"


async def test_numbers_are_refreshed_while_somebody_looks(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url, has_own_clock=True) as page:
        await page.open_report(service.gateway.key)
        before = (await page.facts())["Requests"]
        await service.gateway.client.post(CHAT, json=chat())
        await page.page.clock.fast_forward(REFRESH_MS)

        await expect(page.page.locator("#facts")).to_contain_text(f"Requests{before + 1}")


# Served like everything else.


async def test_page_and_files_are_limited_per_address_and_counted_under_two_routes(
    simulator: Simulator, tmp_path: Path
) -> None:
    async with GatewayProcess(
        folder=tmp_path, VLLM_URL=simulator.url, RATE_LIMIT_PER_IP="3/hour"
    ) as gateway:
        head = await gateway.client.head("/dashboard")
        paths = ("/dashboard/main.js", "/dashboard/none.js", "/dashboard")
        statuses = [(await gateway.client.get(path)).status_code for path in paths]
        counted = [
            await gateway.metric("gateway_requests_total", route=route)
            for route in ("/dashboard", "/dashboard/")
        ]

    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1000
    assert statuses == [200, 404, 429]
    assert counted == [2, 2]


async def test_off_means_that_there_is_no_such_page(simulator: Simulator, tmp_path: Path) -> None:
    async with GatewayProcess(folder=tmp_path, VLLM_URL=simulator.url, DASHBOARD="off") as gateway:
        paths = ("/dashboard", "/dashboard/", "/dashboard/main.js")
        answers = [await gateway.client.get(path) for path in paths]

    assert {answer.status_code for answer in answers} == {404}
