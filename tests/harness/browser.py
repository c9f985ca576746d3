"""The dashboard in a headless Chromium, as somebody who reads it and works it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page, Request, async_playwright, expect

from tests.harness.programs import installed

# More than the page waits between two looks.
REFRESH_MS = 31_000
WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`content policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Skips the test with the reason where there is none; in CI that is a failure."""
    binary = installed("chromium", package="chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=binary, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            await browser.close()


class Dashboard:
    """One open page. `complaints` is what the console and the content policy said against it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.requests: list[Request] = []
        page.on("request", self._saw)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda line: self._heard(line.type, line.text))

    async def enter(self, key: str) -> None:
        await self.page.get_by_label("API key").fill(key)
        await self.page.get_by_role("button", name="Show usage").click()

    async def open_report(self, key: str) -> None:
        await self.enter(key)
        await expect(self.page.get_by_role("heading", name="Today", exact=True)).to_be_visible()

    async def text(self, name: str) -> str:
        """What one element says."""
        return (await self.page.locator(f"#{name}").inner_text()).strip()

    async def facts(self) -> dict[str, int]:
        """The numbers of today by their names."""
        names = await self.page.locator("#facts dt").all_inner_texts()
        numbers = await self.page.locator("#facts dd").all_inner_texts()
        return {name: number(text) for name, text in zip(names, numbers, strict=True)}

    async def rows(self, table: str) -> list[list[str]]:
        """The cells of a table's body, shown or not."""
        rows = await self.page.locator(f"#{table} tr").all()
        return [await row.locator("th, td").all_text_contents() for row in rows]

    async def spills_sideways(self) -> bool:
        width: list[int] = await self.page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        return width[0] > width[1]

    def asked(self, path: str) -> int:
        """How many requests went to a path so far."""
        return sum(request.url.partition("?")[0].endswith(path) for request in self.requests)

    def _saw(self, request: Request) -> None:
        self.requests.append(request)

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)


@asynccontextmanager
async def dashboard(
    browser: Browser, root: str, *, width: int = 1100, has_own_clock: bool = False, **options: Any
) -> AsyncIterator[Dashboard]:
    """A fresh profile on the dashboard under `root`, with its script running.

    With `has_own_clock` the page's time also moves by `page.clock.fast_forward`.
    """
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, reduced_motion="reduce", **options
    )
    try:
        await context.add_init_script(WATCH_POLICY)
        page = await context.new_page()
        if has_own_clock:
            await page.clock.install()
        opened = Dashboard(page, f"{root}/dashboard")
        await page.goto(opened.url)
        await expect(page.get_by_label("API key")).to_be_focused()
        yield opened
    finally:
        await context.close()


def number(text: str) -> int:
    """12,345 as a number."""
    return int(text.replace(",", ""))
