"""The dashboard's visitors: nobody learns their key, and everybody can use the page."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error, Route, expect

from tests.harness.browser import REFRESH_MS, Dashboard, chromium, dashboard
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


WHEREVER_A_KEY_COULD_HIDE = """async () => JSON.stringify([
  location.href, document.referrer, document.cookie, document.title, history.state, name,
  {...localStorage}, {...sessionStorage}, await caches.keys(), await indexedDB.databases(),
  document.documentElement.outerHTML, [...document.querySelectorAll("input")].map((i) => i.value),
  performance.getEntries().map((entry) => entry.name), Object.keys(window),
])"""


async def test_the_key_leaves_no_trace(browser: Browser, service: UsedService) -> None:
    secret = service.secrets["used"]
    async with dashboard(browser, service.gateway.url) as page:
        await page.open_report(secret)
        await page.page.reload()
        await page.open_report(secret)
        shown = await page.page.evaluate(WHEREVER_A_KEY_COULD_HIDE)
        stored = await page.page.context.storage_state()
        carriers = {
            request.url.partition("?")[0]
            for request in page.requests
            if secret in request.url or secret in str(await request.all_headers())
        }
        origins = {request.url[: len(service.gateway.url)] for request in page.requests}

        assert secret not in shown
        assert stored == {"cookies": [], "origins": []}
        assert carriers == {f"{service.gateway.url}/v1/usage"}
        assert origins == {service.gateway.url}
        assert secret not in service.gateway.log_path.read_text()
        assert page.complaints == []


async def test_forgetting_and_leaving_end_the_session(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url, has_own_clock=True) as page:
        await page.open_report(service.secrets["used"])
        await page.page.get_by_role("button", name="Forget key").click()
        await expect(page.page.get_by_label("API key")).to_be_focused()
        asked = page.asked("/v1/usage")
        await page.page.clock.fast_forward(REFRESH_MS)

        assert page.asked("/v1/usage") == asked
        assert await page.rows("days") == []

        await page.open_report(service.secrets["used"])
        await page.page.goto(f"{service.gateway.url}/health")
        await page.page.go_back()
        await expect(page.page.get_by_label("API key")).to_be_visible()
        assert await page.rows("days") == []


async def test_leaving_forgets_a_key_that_was_only_typed(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        await page.page.goto(f"{service.gateway.url}/dashboard")
        typed = page.page.get_by_label("API key")
        await typed.fill(service.secrets["used"])
        # What the browser does with a page that it keeps for its back button.
        await page.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")

        await expect(typed).to_have_value("")


async def test_the_page_can_ask_nobody_else_and_run_nothing_foreign(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        with pytest.raises(Error, match="Failed to fetch"):
            await page.page.evaluate("(url) => fetch(url)", service.simulator.url)
        await page.page.evaluate(
            "document.body.append(Object.assign(document.createElement('style'),"
            " {textContent: 'body { display: none }'}))"
        )
        await expect(page.page.get_by_label("API key")).to_be_visible()

        refused = "\n".join(page.complaints)
        assert "content policy: connect-src" in refused
        assert "content policy: style-src-elem" in refused


@pytest.mark.parametrize("width", [320, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_needs_no_sideways_scrolling(
    browser: Browser, service: UsedService, width: int, scheme: str
) -> None:
    async with dashboard(
        browser, service.gateway.url, width=width, color_scheme=scheme, has_touch=True
    ) as page:
        assert not await page.spills_sideways()
        await page.open_report(service.secrets["used"])
        await page.page.get_by_text("The same as a table").click()
        assert not await page.spills_sideways()


async def test_a_screen_reader_finds_landmarks_names_and_values(
    browser: Browser, service: UsedService
) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        entry = await page.page.locator("body").aria_snapshot()
        await page.open_report(service.secrets["used"])
        report = await page.page.locator("body").aria_snapshot()

    for line in (
        '- banner:\n  - heading "Token usage" [level=1]',
        "- status: Service is up",
        '- textbox "API key"',
        '- button "Show usage"',
    ):
        assert line in entry
    for line in (
        'heading "Today" [level=2]',
        'meter "Share of today\'s quota"',
        'img "Tokens per day. Busiest:',
        'rowheader "sim-model"',
        'columnheader "Requests"',
        'button "Forget key"',
        "used today, ",
    ):
        assert line in report


async def test_it_works_by_keyboard_alone(browser: Browser, service: UsedService) -> None:
    async with dashboard(browser, service.gateway.url) as page:
        keyboard = page.page.keyboard
        await keyboard.type(service.secrets["used"])
        await keyboard.press("Enter")
        await expect(page.page.get_by_role("button", name="Forget key")).to_be_focused()
        await keyboard.press("Tab")
        await keyboard.press("Enter")
        await expect(page.page.get_by_role("region", name="Usage per day")).to_be_visible()
        await keyboard.press("Shift+Tab")
        await keyboard.press("Enter")
        await expect(page.page.get_by_label("API key")).to_be_focused()


async def test_it_works_under_a_prefix_of_a_proxy(browser: Browser, service: UsedService) -> None:
    root = f"{service.gateway.url}/llm"
    asked: list[str] = []

    async def strip_prefix(route: Route) -> None:
        asked.append(route.request.url)
        await route.continue_(url=route.request.url.replace("/llm/", "/"))

    context = await browser.new_context()
    try:
        await context.route("**/*", strip_prefix)
        page = Dashboard(await context.new_page(), f"{root}/dashboard")
        await page.page.goto(page.url)
        await page.open_report(service.secrets["used"])
    finally:
        await context.close()

    assert f"{root}/v1/usage?days=30" in asked
    assert [url for url in asked if not url.startswith(f"{root}/")] == []
