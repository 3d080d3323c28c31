"""An agent that runs a real opencode, started, approved from a phone and watched in Chromium."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from page_watch import PageWatch
from playwright.async_api import Browser, Page, ViewportSize, expect

from agents.scripted_model import ScriptedModel
from opencode.opencode_runner import BINARY
from support.running_server import RunningServer

pytestmark = [
    pytest.mark.rare,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(BINARY is None, reason="needs the opencode of tests/opencode"),
]

PHONE = ViewportSize(width=360, height=740)

CONFIG = """
[models.fake]
kind = "openai"
base_url = "{url}"
key_env = "FAKE_KEY"
models = ["scripted"]
prices = {{ scripted = {{ input = 3.0, output = 15.0 }} }}
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningServer]:
    folder: Path = tmp_path_factory.mktemp("real")
    async with ScriptedModel() as model:
        (folder / "config.toml").write_text(CONFIG.format(url=model.url))
        options = (f"--config={folder / 'config.toml'}", "--agents=local", f"--opencode-bin={BINARY}")
        env = {"FAKE_KEY": "sk-fake-0123456789abcdef0123456789"}
        try:
            running = await asyncio.to_thread(RunningServer, folder / "data", *options, env=env)
        except RuntimeError as exc:
            pytest.skip(f"agents do not run here: {exc}")
        try:
            yield running
        finally:
            await asyncio.to_thread(running.stop)


async def open_agents(page: Page, server: RunningServer, name: str) -> None:
    await page.goto(f"{server.url}/sign-in")
    await page.locator("input[name=token]").fill(server.token)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("link", name="Workspaces").click()
    details = page.locator("#new")
    if await details.get_attribute("open") is None:
        await details.locator(":scope > summary").click()
    await page.get_by_label("Name").fill(name)
    await page.get_by_role("button", name="Make it").click()
    await page.get_by_role("link", name="Start an agent").click()
    details = page.locator("#start")
    if await details.get_attribute("open") is None:
        await details.locator(":scope > summary").click()


async def test_it_is_approved_from_a_phone_and_seen_to_finish(
    page: Page, chromium: Browser, server: RunningServer
) -> None:
    watch = PageWatch(page, server.url)
    await open_agents(page, server, "live")
    await page.get_by_label("Prompt").fill("Write it [scenario:ask]")
    await page.get_by_label("Permissions").select_option("ask")
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.get_by_role("heading", name="May it run this?")).to_be_visible()
    await expect(page.locator(".ask")).to_contain_text("echo permitted > permitted.txt")
    await page.get_by_role("button", name="Link to answer it from a phone").click()
    link = await page.locator("pre code").inner_text()
    await page.get_by_role("link", name="Back to the agent").click()
    phone = await chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    try:
        other = await phone.new_page()
        await other.goto(link)
        await expect(other.locator(".patterns, .about").first).to_contain_text("permitted.txt")
        await other.get_by_role("button", name="Allow once").tap()
        await expect(other.get_by_role("heading", name="It is allowed, once.")).to_be_visible()
    finally:
        await phone.close()
    await expect(page.get_by_text("That was permitted, or not.")).to_be_visible()
    await expect(page.locator("#agent-state .state")).to_have_text("Idle")
    await expect(page.locator("#agent .meters")).to_contain_text("$0.0")
    await page.locator("#agent").get_by_role("link", name="Files", exact=True).click()
    await page.get_by_role("link", name="permitted.txt").click()
    await expect(page.locator(".file-view code")).to_have_text("permitted")
    assert watch.problems == []


async def test_it_is_steered_without_a_script(chromium: Browser, server: RunningServer) -> None:
    context = await chromium.new_context(java_script_enabled=False, viewport=PHONE)
    try:
        page = await context.new_page()
        await open_agents(page, server, "plain")
        await page.get_by_label("Prompt").fill("Choose [scenario:question]")
        await page.get_by_role("button", name="Start", exact=True).click()
        await until(page, "Which colour?")
        await page.get_by_label("Blue").check()
        await page.get_by_role("button", name="Answer", exact=True).click()
        await expect(page.locator("#agent .notice")).to_have_text("It is answered.")
        await until(page, "So be it.")
        await page.get_by_label("Message to the agent").fill("And hello [scenario:hello]")
        await page.locator("#files").set_input_files(str(Path(__file__)))
        await page.get_by_role("button", name="Send").click()
        await until(page, "Hello from the scripted model.")
    finally:
        await context.close()


async def until(page: Page, text: str) -> None:
    """Load the page anew until it has a text."""
    async with asyncio.timeout(60):
        while await page.get_by_text(text).count() == 0:
            await asyncio.sleep(0.2)
            await page.reload()
