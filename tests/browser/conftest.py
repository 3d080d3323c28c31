"""Chromium, for tests that look at pages as people do."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from page_watch import PageWatch
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from support.running_server import RunningServer

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""

# Milliseconds, of a machine that has much to do: what is waited for happens in a moment, or never.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncIterator[Browser]:
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium, or set CHROMIUM")
    async with async_playwright() as playwright:
        # Without its sandbox, because the tests may run as root in a container; they load no page but ours.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    context = await chromium.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(PATIENCE)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


@pytest.fixture
def watch(page: Page, server: RunningServer) -> PageWatch:
    """Notes what a page does that it should not."""
    return PageWatch(page, server.url)


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which finds what keeps people from using a page."""
    path = Path(__file__).parent.parent / "node" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.exists():
        pytest.skip("needs axe-core: make test installs it where npm is")
    return path.read_text()
