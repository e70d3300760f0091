"""A real browser over the real API, with a cluster in memory. Skipped where there is no browser.

Tests of a module share the browser, and a context, since the first page of a context takes a second of a core. Each
has a page of its own and begins without cookies and storage; one that needs options has a context of its own. So tests
share an event loop, too: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    ViewportSize,
    async_playwright,
    expect,
)

from tests.support.api import Api
from tests.support.dashboard_cluster import Shape, dashboard_over
from tests.support.served_cluster import programs
from tests.unit.coordinator.test_adding import Discord, discord_api

__all__ = ["programs"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 390, "height": 780}
PATIENT_MS = 60_000
"""For everything that is waited for: what a busy machine may take decides no test."""
expect.set_options(timeout=PATIENT_MS)


@dataclass
class Visit:
    """A browser's page on the dashboard. `faults`: errors of scripts, refusals of the policy, requests to elsewhere."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)
    served: Api | None = None
    _responses: list[Response] = field(default_factory=list)

    @property
    def api(self) -> Api:
        """The API behind the page, of `dashboard_over`."""
        assert self.served is not None
        return self.served

    async def open(self, path: str) -> None:
        """Go to an address, and wait for what is shown there."""
        await self.page.goto(self.url + path)
        await self.page.wait_for_selector("h1")

    async def read(self) -> str:
        """Everything that the API has sent to this page as JSON, streams aside."""
        found = [one for one in self._responses if "json" in one.headers.get("content-type", "")]
        return "\n".join([await one.text() for one in found])

    async def has(self, text: str | re.Pattern[str]) -> None:
        """Wait until the page shows a text."""
        await self.page.get_by_text(text).first.wait_for()

    async def click(self, name: str, *, exact: bool = True) -> None:
        """Click the button or link with this name."""
        buttons = self.page.get_by_role("button", name=name, exact=exact)
        links = self.page.get_by_role("link", name=name, exact=exact)
        await buttons.or_(links).first.click()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        shared = await found.new_context(viewport=DESKTOP)
        # As long as one of its pages is open, the next one gets a process that runs.
        await shared.new_page()
        yield found
        await found.close()


@asynccontextmanager
async def visit(browser: Browser, api: Api | str, **options: Any) -> AsyncIterator[Visit]:
    """A new page on `api`, or on a node's address; with `options`, of a new browser context that has these."""
    shared = browser.contexts[0]
    context = await browser.new_context(**{"viewport": DESKTOP, **options}) if options else shared
    page = await context.new_page()
    page.set_default_timeout(PATIENT_MS)
    found = Visit(page, api) if isinstance(api, str) else Visit(page, api.url, served=api)
    own = urlsplit(found.url).netloc

    def on_console(message: ConsoleMessage) -> None:
        # What the API refuses is shown on the page; the browser notes it as well.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            found.faults.append(message.text)

    def on_request(request: Request) -> None:
        if urlsplit(request.url).netloc != own:
            found.faults.append(f"a request to {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: found.faults.append(str(error)))
    page.on("request", on_request)
    page.on("response", lambda response: found._responses.append(response))
    try:
        yield found
    finally:
        if context is shared:
            await _emptied(context, page, found.url)
        else:
            await context.close()


async def _emptied(context: BrowserContext, page: Page, url: str) -> None:
    """Nothing of a visit is left in its context."""
    session = await context.new_cdp_session(page)
    await session.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    for each in context.pages[1:]:
        await each.close()
    await context.clear_cookies()
    await context.set_offline(False)


@pytest_asyncio.fixture(loop_scope="module")
async def sick(browser: Browser) -> AsyncIterator[Visit]:
    """The dashboard of a cluster with much that is wrong."""
    async with dashboard_over(Shape(healthy=False)) as api, visit(browser, api) as found:
        yield found
        assert found.faults == []


@pytest_asyncio.fixture(loop_scope="module")
async def well(browser: Browser) -> AsyncIterator[Visit]:
    """The dashboard of a cluster where all is well."""
    async with dashboard_over(Shape()) as api, visit(browser, api) as found:
        yield found
        assert found.faults == []


@pytest_asyncio.fixture(loop_scope="module")
async def discord() -> AsyncIterator[Discord]:
    """A Discord that knows bots by their tokens."""
    async with discord_api() as found:
        yield found
