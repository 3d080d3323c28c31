"""The pages in Chromium: live, by keyboard, without JavaScript, and with hostile content."""

import asyncio
import json
import re
from itertools import count
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from page_watch import PageWatch
from playwright.async_api import Browser, BrowserContext, Page, expect

from support.hostile_strings import HOSTILE, hostile_session
from support.running_server import RunningServer
from support.sample_session import SAMPLE, message, part, tool

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

NUMBERS = count()


class Share:
    """A share on a server, as its owner sees it."""

    def __init__(self, server: RunningServer, data: list[dict[str, object]]) -> None:
        self._server = server
        self._headers = {"Authorization": f"Bearer {server.token}"}
        body = {"sessionID": f"ses_browser_{next(NUMBERS):08}", "data": data}
        made = self._call("POST", "/api/share", body)
        self.id, self.secret = made["id"], made["secret"]
        self.url = f"{server.url}/share/{self.id}"

    def sync(self, *data: dict[str, object]) -> None:
        self._call("POST", f"/api/share/{self.id}/sync", {"secret": self.secret, "data": list(data)})

    def delete(self) -> None:
        self._call("DELETE", f"/api/share/{self.id}", {"secret": self.secret})

    def _call(self, method: str, path: str, body: object) -> dict[str, str]:
        answer = httpx.request(method, self._server.url + path, json=body, headers=self._headers, timeout=200)
        assert answer.status_code == 200
        answered: dict[str, str] = answer.json()
        return answered


def long_session(messages: int) -> list[dict[str, object]]:
    items = []
    for number in range(messages):
        items.append(message(f"m{number:03}", "user" if number % 4 == 0 else "assistant"))
        text = f"Message {number}. " + "Some words to make it long. " * 12
        items.append(part(f"m{number:03}", f"p{number:03}", "text", text=text))
    return items


async def sign_in(page: Page, server: RunningServer) -> None:
    await page.goto(f"{server.url}/sessions")
    await page.fill("#token", server.token)
    await page.click(".stack button")
    await page.wait_for_selector("#list")


async def top_of(page: Page, selector: str) -> float:
    box = await page.locator(selector).bounding_box()
    assert box is not None
    return box["y"]


# Live


async def test_a_sync_appears_without_a_reload(page: Page, server: RunningServer, watch: PageWatch) -> None:
    share = Share(server, [message("m1", "user"), part("m1", "p1", "text", text="Hello")])
    await page.goto(share.url)
    await expect(page.locator("#live")).to_have_text("Live")
    await page.evaluate("window.isSame = true")
    share.sync(message("m2", "assistant"), part("m2", "p2", "text", text="An **answer**"))
    await expect(page.locator("#p-p2 strong")).to_have_text("answer")
    share.sync(part("m2", "p2", "text", text="A *better* answer"))
    await expect(page.locator("#p-p2 em")).to_have_text("better")
    share.sync({"type": "session", "data": {"id": "s", "title": "A new title"}})
    await expect(page.locator("h1")).to_have_text("A new title")
    share.sync(message("m3", "user"), part("m3", "p3", "text", text="And then?"))
    await expect(page.locator("#t-m3")).to_have_text("And then?")
    assert await page.evaluate("window.isSame")
    assert watch.problems == []


async def test_what_one_reads_stays_where_it_is(page: Page, server: RunningServer) -> None:
    share = Share(server, long_session(30))
    await page.goto(share.url)
    await expect(page.locator("#live")).to_have_text("Live")
    await page.locator("#m-m010").scroll_into_view_if_needed()
    await page.evaluate("document.getElementById('m-m010').scrollIntoView()")
    before = await top_of(page, "#m-m010")
    share.sync(part("m002", "p002", "text", text="Longer than before.\n\n" * 40))
    await expect(page.locator("#p-p002")).to_contain_text("Longer than before.")
    assert abs(await top_of(page, "#m-m010") - before) < 2


async def test_what_one_has_opened_stays_open(page: Page, server: RunningServer) -> None:
    read = tool("m1", "p1", "read", {"filePath": "a.py"}, "one")
    share = Share(server, [message("m1", "assistant"), read])
    await page.goto(share.url)
    await expect(page.locator("#live")).to_have_text("Live")
    await page.click("#p-p1 summary")
    share.sync(tool("m1", "p1", "read", {"filePath": "a.py"}, "one\ntwo"))
    await expect(page.locator("#p-p1 code")).to_contain_text("two")
    assert await page.locator("#p-p1 details").get_attribute("open") is not None


async def test_following_shows_the_end_and_scrolling_up_stops_it(page: Page, server: RunningServer) -> None:
    share = Share(server, long_session(20))
    await page.goto(share.url)
    await expect(page.locator("#live")).to_have_text("Live")
    assert await page.evaluate("window.scrollY") == 0
    share.sync(message("m1", "user"), part("m1", "p1", "text", text="not followed yet"))
    await expect(page.locator("#p-p1")).to_be_attached()
    assert await page.evaluate("window.scrollY") == 0
    await page.click("#follow")
    share.sync(message("m2", "assistant"), part("m2", "p2", "text", text="at the end"))
    await expect(page.locator("#p-p2")).to_be_in_viewport()
    await page.mouse.move(600, 400)
    await page.mouse.wheel(0, -2000)
    await expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")


def about(**fields: object) -> dict[str, object]:
    """Return what a session says of itself."""
    return {"type": "session", "data": {"id": "ses_1", "title": "Reverted", **fields}}


async def test_what_a_prompt_removed_after_a_revert_goes_from_the_page(
    page: Page, server: RunningServer
) -> None:
    share = Share(
        server,
        [
            about(),
            message("m1", "user"),
            part("m1", "p1", "text", text="The right one"),
            message("m2", "user"),
            part("m2", "p2", "text", text="The wrong one"),
        ],
    )
    await page.goto(share.url)
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.locator("#p-p2")).to_be_visible()
    share.sync(about(revert={"messageID": "m2"}))
    await expect(page.locator("#m-m2.taken-back")).to_be_attached()
    share.sync(about(), message("m3", "user"), part("m3", "p3", "text", text="A better one"))
    await expect(page.locator("#p-p3")).to_be_visible()
    await expect(page.locator("#m-m2")).not_to_be_attached()
    await expect(page.locator("#p-p1")).to_be_visible()
    await expect(page.locator("#toc")).not_to_contain_text("The wrong one")


async def test_the_mark_says_what_is_true(page: Page, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        share = Share(server, [message("m1", "user")])
        await page.goto(share.url)
        mark = page.locator("#live")
        await expect(mark).to_have_text("Live")
        server.stop()
        await expect(mark).to_have_text("Reconnecting")
        server.restart()
        share.sync(part("m1", "p1", "text", text="meanwhile"))
        await expect(mark).to_have_text("Live", timeout=60000)
        await expect(page.locator("#p-p1")).to_have_text("meanwhile")
        share.delete()
        await expect(mark).to_have_text("Ended: removed")


@pytest.mark.rare
async def test_more_pages_are_live_at_once_than_a_browser_has_connections(
    context: BrowserContext, server: RunningServer
) -> None:
    share = Share(server, [message("m1", "user")])
    pages = [await context.new_page() for _ in range(8)]
    for page in pages:
        await page.goto(share.url)
        await expect(page.locator("#live")).to_have_text("Live")
    share.sync(part("m1", "p1", "text", text="to all"))
    for page in pages:
        await expect(page.locator("#p-p1")).to_have_text("to all")


async def test_a_page_is_live_behind_a_proxy_that_passes_no_websockets(
    page: Page, server: RunningServer
) -> None:
    await page.add_init_script(
        "window.WebSocket = class { constructor() {"
        " setTimeout(() => this.onclose(new CloseEvent('close'))); } close() {} };"
    )
    share = Share(server, [message("m1", "user")])
    await page.goto(share.url)
    await expect(page.locator("#live")).to_have_text("Live")
    await expect(page.locator("#live")).to_have_attribute("title", re.compile("No WebSocket gets through"))
    share.sync(part("m1", "p1", "text", text="as a stream"))
    await expect(page.locator("#p-p1")).to_have_text("as a stream")


@pytest.mark.rare
async def test_a_page_that_missed_more_than_can_be_told_loads_it(page: Page, tmp_path: Path) -> None:
    items = long_session(90)
    with RunningServer(tmp_path / "data") as server:
        share = Share(server, items[:6])
        await page.goto(share.url)
        await expect(page.locator("#live")).to_have_text("Live")
        server.restart()
        share.sync(*items[6:])
        await expect(page.locator("#p-p040")).to_be_attached(timeout=60000)
        await scroll_down_to(page, "#p-p089")
        ids = await page.locator(".part").evaluate_all("parts => parts.map(part => part.id)")
        assert ids == [f"p-p{number:03}" for number in range(90)]
        share.sync(message("last", "user"), part("last", "last", "text", text="one more"))
        await expect(page.locator("#p-last")).to_have_text("one more")


async def test_changes_to_files_appear_too(page: Page, server: RunningServer) -> None:
    share = Share(server, SAMPLE)
    await page.goto(f"{share.url}?view=changes")
    await expect(page.locator("#live")).to_have_text("Live")
    share.sync(
        {
            "type": "session_diff",
            "data": [{"file": "new.txt", "before": "", "after": "fresh", "additions": 1}],
        }
    )
    await expect(page.locator("#changes")).to_contain_text("new.txt")


# Long sessions


async def scroll_down_to(page: Page, selector: str) -> None:
    """Turn the wheel until the page has ``selector``, which it loads as one scrolls."""
    async with asyncio.timeout(60):
        while not await page.locator(selector).count():
            await page.mouse.wheel(0, 4000)
            await asyncio.sleep(0.1)


async def test_the_rest_is_loaded_as_one_scrolls(page: Page, server: RunningServer, watch: PageWatch) -> None:
    share = Share(server, long_session(120))
    await page.goto(share.url)
    assert await page.locator(".part").count() < 120
    await scroll_down_to(page, "#p-p119")
    ids = await page.locator(".part").evaluate_all("parts => parts.map(part => part.id)")
    assert ids == [f"p-p{number:03}" for number in range(120)]
    assert watch.problems == []


async def test_scrolling_up_from_the_end_loads_what_was_before(page: Page, server: RunningServer) -> None:
    share = Share(server, long_session(120))
    await page.goto(f"{share.url}?end=1")
    await expect(page.locator("#p-p119")).to_be_attached()
    first = await page.locator(".part").first.get_attribute("id")
    await page.evaluate("window.scrollTo(0, 400)")
    before = await top_of(page, f"#{first}")
    await expect(page.locator(".part").first).not_to_have_id(first or "")
    assert abs(await top_of(page, f"#{first}") - before) < 420
    ids = await page.locator(".part").evaluate_all("parts => parts.map(part => part.id)")
    assert ids == sorted(ids)


async def test_all_of_a_cut_part_comes_in_its_place(page: Page, server: RunningServer) -> None:
    output = "\n".join(f"line {number}" for number in range(500))
    share = Share(server, [message("m1", "assistant"), tool("m1", "p1", "bash", {"command": "seq"}, output)])
    await page.goto(share.url)
    await page.click("#p-p1 .show-all")
    await expect(page.locator("#p-p1 code")).to_contain_text("line 499")
    assert page.url == share.url


# People


async def test_by_keyboard(page: Page, server: RunningServer) -> None:
    share = Share(server, long_session(12))
    await page.goto(share.url)
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    second = await page.evaluate("document.activeElement.id")
    await page.keyboard.press("k")
    assert [second, await page.evaluate("document.activeElement.id")] == ["m-m001", "m-m000"]


async def test_code_is_copied(context: BrowserContext, page: Page, server: RunningServer) -> None:
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    share = Share(server, [message("m1", "assistant"), part("m1", "p1", "text", text="```\nx = 1\n```")])
    await page.goto(share.url)
    await page.hover("#p-p1 .code")
    await page.click("#p-p1 .copy")
    await expect(page.locator("#p-p1 .copy")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == "x = 1"


async def test_code_is_copied_where_there_is_no_clipboard(page: Page, server: RunningServer) -> None:
    share = Share(server, [message("m1", "assistant"), part("m1", "p1", "text", text="```\nx = 1\n```")])
    # As on a page that came over plain HTTP from another machine.
    await page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    await page.goto(share.url)
    await page.hover("#p-p1 .code")
    await page.click("#p-p1 .copy")
    await expect(page.locator("#p-p1 .copy")).to_have_text("Copied")


async def test_an_answer_is_copied_as_markdown_and_a_command_alone_without_a_clipboard(
    page: Page, server: RunningServer
) -> None:
    shell = tool("m1", "p2", "bash", {"command": "make test"}, "output")
    share = Share(server, [message("m1", "assistant"), part("m1", "p1", "text", text="An **answer**"), shell])
    await page.add_init_script(
        """Object.defineProperty(navigator, "clipboard", { value: undefined });
        document.addEventListener("copy", () => (window.copied = String(getSelection())));"""
    )
    await page.goto(share.url)
    for part_id, copied in (("p1", "An **answer**"), ("p2", "make test")):
        await page.hover(f"#p-{part_id}")
        await page.click(f"#p-{part_id} .part-copy")
        await expect(page.locator(f"#p-{part_id} .part-copy")).to_have_attribute("data-said", "Copied")
        assert await page.evaluate("window.copied") == copied


async def test_search_finds_what_is_not_loaded_and_opens_what_is_folded(
    page: Page, server: RunningServer, watch: PageWatch
) -> None:
    reads = [tool("m199", f"r{n}", "read", {"filePath": f"file{n}.py"}, f"needle{n}") for n in range(4)]
    share = Share(server, [*long_session(200), *reads])
    await page.goto(share.url)
    await page.keyboard.press("/")
    await page.keyboard.type("needle2")
    await expect(page.locator("#find .hits a")).to_have_count(1)
    await page.keyboard.press("Enter")
    await page.keyboard.press("Enter")
    await expect(page.locator("#p-r2 code")).to_be_in_viewport()
    await page.keyboard.press("?")
    await expect(page.locator("#keys")).to_be_visible()
    await page.goto(f"{share.url}?view=changes")
    await page.keyboard.press("/")
    await expect(page.locator("#q")).to_be_focused()
    assert watch.problems == []


async def test_the_colours_that_one_chose_are_there_before_anything_is_drawn(
    page: Page, server: RunningServer
) -> None:
    share = Share(server, [message("m1", "user")])
    await page.goto(share.url)
    await page.click("#theme")
    await page.click("#theme")
    dark = await page.evaluate("getComputedStyle(document.body).color")
    # A script in the head that has run to its end by the time of the first element.
    await page.add_init_script(
        """new MutationObserver((_, observer) => {
          if (!document.body) return;
          window.first = document.documentElement.dataset.theme;
          observer.disconnect();
        }).observe(document, { childList: true, subtree: true });"""
    )
    await page.reload()
    assert await page.evaluate("window.first") == "dark"
    assert await page.evaluate("getComputedStyle(document.body).color") == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
@pytest.mark.rare
async def test_no_page_keeps_anybody_out(
    chromium: Browser, server: RunningServer, axe: str, scheme: str, width: int
) -> None:
    share = Share(server, SAMPLE)
    size = {"width": width, "height": 900}
    context = await chromium.new_context(color_scheme=scheme, viewport=size, bypass_csp=True)  # type: ignore[arg-type]
    try:
        page = await context.new_page()
        await page.goto(f"{server.url}/sessions")
        found = [await violations(page, axe)]
        await sign_in(page, server)
        addresses = [
            "/sessions",
            "/sessions?q=total",
            "/keys",
            "/vault",
            f"/sessions/{share.id}/delete",
            "/nowhere",
            f"/share/{share.id}",
        ]
        addresses += [f"/share/{share.id}?view=changes{layout}" for layout in ("", "&layout=split")]
        addresses += [f"/share/{share.id}?q=total"]
        for address in addresses:
            await page.goto(server.url + address, wait_until="load")
            await page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
            found.append(await violations(page, axe))
        for key in ("/", "?"):
            await page.goto(share.url)
            await page.keyboard.press(key)
            found.append(await violations(page, axe))
        assert [each for each in found if each] == []
    finally:
        await context.close()


async def violations(page: Page, axe: str) -> list[str]:
    await page.evaluate(axe)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{page.url}: {each['id']}: {each['nodes'][0]['html'][:200]} {each['nodes'][0]['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical", "moderate")
    ]


async def test_signing_in_searching_deleting(page: Page, server: RunningServer, watch: PageWatch) -> None:
    title: dict[str, object] = {"type": "session", "data": {"id": "s", "title": "Needle in a browser"}}
    share = Share(server, [title])
    await page.goto(f"{server.url}/sessions")
    await page.fill("#token", "wrong")
    await page.click(".stack button")
    await expect(page.locator("#problem")).to_have_text("That token is not valid.")
    watch.problems.clear()  # Chromium reports the 401 itself
    await sign_in(page, server)
    watch.problems.clear()
    await page.type("#q", "needle in a BROWSER")
    await expect(page.locator(".rows li")).to_have_count(1)
    await page.wait_for_url("**q=needle*")
    await page.click(".rows .danger")
    await page.click(".rows button:text('Undo')")
    await expect(page.locator(".rows .row-title")).to_have_text("Needle in a browser")
    await page.click(".rows .danger")
    await expect(page.locator(".rows li")).to_have_count(0, timeout=20_000)
    assert watch.problems == []
    await page.goto(share.url)
    await expect(page.locator("h1")).to_have_text("There is no such session")


async def test_the_list_stays_current(page: Page, server: RunningServer) -> None:
    await sign_in(page, server)
    Share(server, [{"type": "session", "data": {"id": "s", "title": "Just appeared"}}])
    await expect(page.locator("#list")).to_contain_text("Just appeared", timeout=60000)


async def test_everything_works_without_javascript(chromium: Browser, server: RunningServer) -> None:
    share = Share(
        server, [*long_session(80), {"type": "session", "data": {"id": "s", "title": "Plain needle"}}]
    )
    context = await chromium.new_context(java_script_enabled=False)
    try:
        page = await context.new_page()
        await page.goto(share.url)
        await page.click("text=Search")
        await page.fill("#q", "Message 70")
        await page.press("#q", "Enter")
        await page.click(".hits a")
        await expect(page.locator("#p-p070")).to_be_visible()
        await page.goto(share.url)
        await page.click("text=Later messages")
        await expect(page.locator(".part").first).to_have_id("p-p050")
        await page.click("text=Earlier messages")
        await expect(page.locator("#p-p000")).to_be_visible()
        await sign_in(page, server)
        await page.fill("#q", "plain needle")
        await page.click(".search button")
        await expect(page.locator(".rows li")).to_have_count(1)
        await page.click(".rows .danger")
        await page.click("button.danger")
        await expect(page.locator(".notice")).to_have_text("The session is deleted.")
    finally:
        await context.close()


# Hostile content


@pytest.mark.parametrize(
    "start",
    [pytest.param(start, marks=[pytest.mark.rare] if start else []) for start in range(0, len(HOSTILE), 20)],
)
async def test_nothing_in_a_session_runs_or_is_fetched(
    page: Page, server: RunningServer, watch: PageWatch, start: int
) -> None:
    share = Share(server, [message("m0", "user")])
    await page.goto(share.url)
    await expect(page.locator("#live")).to_have_text("Live")
    for number, text in enumerate(HOSTILE[start : start + 20], start):
        share.sync(*hostile_session(text, number))
        await expect(page.locator(f"#mf-msg_{number}a")).to_be_attached()
    await page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    await page.evaluate(
        "for (const each of document.querySelectorAll('#messages *'))"
        " for (const kind of ['mouseover', 'pointerover', 'focus', 'toggle', 'animationstart'])"
        "  each.dispatchEvent(new Event(kind, {bubbles: true}))"
    )
    # What is copied is data of the page, and what is looked for comes back in it.
    await page.evaluate("for (const each of document.querySelectorAll('.part-copy')) each.click()")
    await page.keyboard.press("/")
    await page.fill("#find-q", HOSTILE[start].partition("\n")[0])
    await expect(page.locator("#find .hits a").first).to_be_visible()
    assert await page.evaluate("window.__pwned") is None
    searched = f"?q={quote(HOSTILE[start])}"
    for address in ("", searched, "?view=changes", "?view=changes&layout=split", f"/part/prt_{start}_1"):
        await page.goto(share.url + address)
        await page.wait_for_load_state("load")
        assert await page.evaluate("window.__pwned") is None
    assert [problem for problem in watch.problems if "data:image/png" not in problem] == []
    assert json.dumps(watch.problems).count("evil.example") == 0
