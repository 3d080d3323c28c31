"""The pages of workspaces and agents in Chromium: with a script and without, on a phone, by keyboard."""

import asyncio
import re
from collections.abc import Iterator

import pytest
from page_watch import PageWatch
from playwright.async_api import Browser, FilePayload, Page, Request, ViewportSize, expect

from support.scripted_agents import ScriptedAgents

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PHONE = ViewportSize(width=360, height=740)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedAgents]:
    path = tmp_path_factory.mktemp("agents") / "data"
    with ScriptedAgents(path, "--agents=local", "--agents-unsafe") as running:
        yield running


async def sign_in(page: Page, server: ScriptedAgents) -> None:
    await page.goto(f"{server.url}/sign-in")
    await page.locator("input[name=token]").fill(server.token)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("link", name="Agents")).to_be_visible()


async def open_agents(page: Page, server: ScriptedAgents) -> None:
    """Sign in, and make a workspace unless there is one."""
    await sign_in(page, server)
    await page.get_by_role("link", name="Workspaces").click()
    if await page.locator(".rows").count() == 0:
        await page.get_by_label("Name").fill("site")
        await page.get_by_role("button", name="Make it").click()
        await expect(page.get_by_role("status").first).to_have_text("The workspace is made.")
        files = server.data_dir / "workspaces" / page.url.partition("?")[0].rpartition("/")[2] / "files"
        (files / "src").mkdir()
        (files / "src" / "a <b>.py").write_text("x = 'needle'\n" * 50)
    await page.goto(f"{server.url}/agents")


async def start(page: Page, prompt: str) -> None:
    details = page.locator("#start")
    if await details.get_attribute("open") is None:
        await details.locator(":scope > summary").click()
    await page.get_by_label("Prompt").fill(prompt)
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.locator("#agent")).to_be_visible()


async def test_an_agent_is_steered_without_leaving_its_page(page: Page, server: ScriptedAgents) -> None:
    watch = PageWatch(page, server.url)
    await open_agents(page, server)
    await start(page, "run make all")
    await expect(page.get_by_role("heading", name="May it run this?")).to_be_visible()
    await expect(page).to_have_title(re.compile(r"^\(1\) "))
    address = page.url
    # What is being written stays, whatever happens beside it.
    message = page.get_by_label("Message to the agent")
    await message.fill("half a sen")
    await page.get_by_role("button", name="Allow once").click()
    await expect(page.get_by_text("Answered: {'reply': 'once'}")).to_be_visible()
    await expect(page.locator("#agent .ask")).to_have_count(0)
    await expect(page.locator("#agent-state .state")).to_have_text("Idle")
    await expect(message).to_have_value("half a sen")
    await message.press("End")
    await message.type("tence")
    await message.press("Control+Enter")
    await expect(page.locator("#messages").get_by_text("half a sentence")).to_be_visible()
    await expect(message).to_have_value("")
    await expect(page.get_by_text("It is done.")).to_be_visible()
    assert page.url == address
    assert watch.problems == []


async def test_a_queue_grows_and_shrinks_live_and_a_refusal_is_told_in_place(
    page: Page, server: ScriptedAgents
) -> None:
    await open_agents(page, server)
    await start(page, "wait")
    message = page.get_by_label("Message to the agent")
    for text in ("first later", "second later"):
        await message.fill(text)
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".queue").get_by_text(text)).to_be_visible()
    await page.get_by_role("button", name="Take out of the queue: first later").click()
    await expect(page.locator(".queue").get_by_text("first later")).to_have_count(0)
    await page.locator("#agent-budget > summary").click()
    await page.locator("#agent-budget").get_by_label("Turns").fill("many")
    await page.get_by_role("button", name="Set", exact=True).click()
    await expect(page.locator("#agent-budget [role=alert]")).to_contain_text("must be a number")
    await page.get_by_role("button", name="Stop this turn").click()
    await expect(page.locator("#agent-state .state")).to_have_text("Idle")


async def test_all_of_it_works_without_a_script(chromium: Browser, server: ScriptedAgents) -> None:
    context = await chromium.new_context(java_script_enabled=False, viewport=PHONE)
    try:
        page = await context.new_page()
        await open_agents(page, server)
        await start(page, "question")
        while await page.locator(".ask").count() == 0:
            await page.reload()
        await page.get_by_label("PostgreSQL").check()
        await page.get_by_label("API").check()
        await page.get_by_label("Your answer").fill("a name")
        await page.get_by_role("button", name="Answer", exact=True).click()
        await expect(page.locator("#agent .notice")).to_have_text("It is answered.")
        while await page.get_by_text("Answered:").count() == 0:
            await page.reload()
        await page.get_by_label("Message to the agent").fill("and now")
        await page.locator("#files").set_input_files(
            FilePayload(name="a.txt", mimeType="text/plain", buffer=b"attached")
        )
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#agent .notice")).to_have_text("The message is sent.")
        await page.locator("#agent").get_by_role("link", name="Files", exact=True).click()
        await page.get_by_role("link", name="src/").click()
        await page.get_by_role("link", name="a <b>.py").click()
        await expect(page.locator(".file-view code")).to_contain_text("needle")
    finally:
        await context.close()


async def test_a_phone_answers_by_a_link_and_the_page_hears_of_it(
    page: Page, chromium: Browser, server: ScriptedAgents
) -> None:
    await open_agents(page, server)
    await start(page, "edit new")
    await page.get_by_role("button", name="Link to answer it from a phone").click()
    link = await page.locator("pre code").inner_text()
    assert link.startswith(f"{server.url}/approve/")
    await page.get_by_role("link", name="Back to the agent").click()
    await expect(page.locator(".ask")).to_have_count(1)
    phone = await chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    try:
        other = await phone.new_page()
        watch = PageWatch(other, server.url)
        await other.goto(link)
        await expect(other.get_by_role("heading", name="May it change this file?")).to_be_visible()
        button = other.get_by_role("button", name="Allow once")
        box = await button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        await button.tap()
        await expect(other.get_by_role("heading", name="It is allowed, once.")).to_be_visible()
        assert watch.problems == []
    finally:
        await phone.close()
    await expect(page.locator(".ask")).to_have_count(0)
    await expect(page.get_by_text("Answered: {'reply': 'once'}")).to_be_visible()


async def test_a_card_is_answered_by_keyboard(page: Page, server: ScriptedAgents) -> None:
    await open_agents(page, server)
    await start(page, "run ls")
    await page.get_by_label("A word to the agent, if you reject it").focus()
    await page.keyboard.type("not now")
    for _ in range(3):
        await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Reject")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Answered: {'reply': 'reject', 'note': 'not now'}")).to_be_visible()
    # Who listens hears of it, and goes on from there.
    await expect(page.locator("#agent-said")).to_have_text("Idle")
    assert await page.evaluate("document.activeElement.closest('#agent') !== null")


async def test_a_page_keeps_a_stream_only_while_it_is_looked_at(page: Page, server: ScriptedAgents) -> None:
    """A browser has six connections to a server over HTTP/1.1, and each stream takes one."""
    await open_agents(page, server)
    await start(page, "wait")
    state = "Object.defineProperty(document, 'visibilityState', {{value: '{}', configurable: true}});"
    tell = "document.dispatchEvent(new Event('visibilitychange'));"

    def is_stream(request: Request) -> bool:
        return re.search(r"/agents/ses_\w+/live$", request.url) is not None

    async with page.expect_event("requestfailed", is_stream):
        await page.evaluate(state.format("hidden") + tell)
    async with page.expect_request(is_stream):
        await page.evaluate(state.format("visible") + tell)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_people_with_impairments_can_use_the_pages_and_nothing_is_wider_than_a_phone(
    page: Page, server: ScriptedAgents, axe: str, scheme: str
) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.set_viewport_size(PHONE)
    await open_agents(page, server)
    await start(page, "run " + "x" * 400)
    await expect(page.locator(".ask")).to_have_count(1)
    run = page.url
    await page.get_by_role("button", name="Link to answer it from a phone").click()
    link = await page.locator("pre code").inner_text()
    await page.goto(f"{server.url}/agents")
    await start(page, "question")
    await expect(page.locator(".ask")).to_have_count(1)
    question = page.url
    diff = await page.locator("#agent").get_by_role("link", name="Diff").get_attribute("href")
    workspace = await page.locator("#agent .row-facts a").first.get_attribute("href")
    assert diff is not None
    assert workspace is not None
    at = f"{server.url}/{workspace.removeprefix('../')}"
    addresses = {
        "agents": f"{server.url}/agents",
        "run": run,
        "question": question,
        "diff": f"{server.url}/{diff.removeprefix('../')}",
        "link": link,
        "no link": f"{server.url}/approve/{'x' * 32}",
        "workspaces": f"{server.url}/workspaces",
        "workspace": at,
        "files": f"{at}/files",
        "file": f"{at}/files?path=src/a%20%3Cb%3E.py",
        "search": f"{at}/files?q=needle",
    }
    found: dict[str, list[str]] = {}
    for name, address in addresses.items():
        await page.goto(address)
        await page.evaluate("document.querySelectorAll('main details').forEach((each) => (each.open = true))")
        await page.evaluate(axe)
        result = await page.evaluate("axe.run()")
        faults = [f"{each['id']}: {each['nodes'][0]['html']}" for each in result["violations"]]
        if not await page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            faults.append("wider than a phone")
        found[name] = faults
    assert found == {name: [] for name in addresses}


async def test_a_stream_that_is_dead_without_knowing_is_replaced(page: Page, server: ScriptedAgents) -> None:
    """As of a phone that has slept: a new stream may never answer, and no event tells of it."""
    await open_agents(page, server)
    await page.add_init_script(
        """
        const Real = EventSource;
        window.opened = 0;
        window.EventSource = class extends Real {
          constructor(address) {
            window.opened += 1;
            super(window.opened === 1 ? "/static/none" : address);
            if (window.opened === 1) Object.defineProperty(this, "readyState", { value: Real.CONNECTING });
          }
          set onerror(handler) { if (window.opened > 1) super.onerror = handler; }
        };
        """
    )
    await start(page, "wait")
    async with asyncio.timeout(60):
        while await page.evaluate("window.opened") < 2:  # noqa: ASYNC110 -- a page's
            await asyncio.sleep(0.2)
    await page.get_by_role("button", name="Stop this turn").click()
    await expect(page.locator("#agent-state .state")).to_have_text("Idle")


async def test_a_page_whose_right_is_gone_says_so_and_keeps_what_was_written(
    page: Page, server: ScriptedAgents
) -> None:
    await open_agents(page, server)
    await start(page, "wait")
    await page.get_by_label("Message to the agent").fill("a long thought")
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#agent > .notice.wrong")).to_contain_text("not live any more")
    await expect(page.get_by_label("Message to the agent")).to_have_value("a long thought")
