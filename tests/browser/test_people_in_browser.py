"""Signing in with a provider in Chromium, from the button to the page; the pages of users."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.async_api import BrowserContext, Page, expect

from people.oidc_peer import NODE, OidcPeer, configured, table
from support.running_server import RunningServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        shutil.which("node") is None or not (NODE / "node_modules" / "oidc-provider").is_dir(),
        reason="needs node, and tests/node/node_modules as `make test` installs them",
    ),
]


@pytest.fixture(scope="module")
def peer() -> Iterator[OidcPeer]:
    with OidcPeer("ES256") as peer:
        yield peer


@pytest.fixture(scope="module")
def site(peer: OidcPeer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("site")
    text = table(peer, label='"Acme ID"', role_map='{ admins = "admin" }')
    with RunningServer(folder / "data", configured(folder, text)) as server:
        peer.knows(server)
        yield server


async def sign_in(page: Page, site: RunningServer, account: str) -> None:
    await page.goto(f"{site.url}/sessions")
    await page.get_by_role("link", name="Sign in with Acme ID").click()
    await page.get_by_role("link", name=f"Continue as {account}").click()
    await expect(page).to_have_url(f"{site.url}/sessions")


async def test_the_button_leads_to_the_provider_and_back(page: Page, site: RunningServer) -> None:
    await sign_in(page, site, "alice")
    await page.get_by_role("link", name="Profile").click()
    await expect(page.get_by_text("alice@acme.example").first).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("link", name="Sign in with Acme ID")).to_be_visible()


async def test_an_admin_gives_a_role_by_keyboard(
    page: Page, context: BrowserContext, site: RunningServer
) -> None:
    await sign_in(page, site, "bob")
    await context.clear_cookies()
    await sign_in(page, site, "alice")
    await page.goto(f"{site.url}/organization")
    await page.get_by_label("Role of Bob Example", exact=True).focus()
    await page.keyboard.type("viewer")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("The change is made.")
    await expect(page.get_by_label("Role of Bob Example", exact=True)).to_have_value("viewer")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_people_with_impairments_can_use_the_pages(
    page: Page, site: RunningServer, axe: str, scheme: str
) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await page.goto(f"{site.url}/sign-in")
    found = {"/sign-in": await faults(page, axe)}
    await sign_in(page, site, "alice")
    for path in ("/profile", "/organization", "/organization/audit", "/keys", "/vault", "/signed-out"):
        await page.goto(site.url + path)
        found[path] = await faults(page, axe)
    assert found == {path: [] for path in found}


@pytest.mark.parametrize(
    "path", ["/sign-in", "/profile", "/organization", "/organization/audit", "/signed-out"]
)
async def test_nothing_is_wider_than_a_phone(page: Page, site: RunningServer, path: str) -> None:
    await page.set_viewport_size({"width": 390, "height": 780})
    await sign_in(page, site, "alice")
    await page.goto(site.url + path)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def faults(page: Page, axe: str) -> list[str]:
    await page.evaluate(axe)
    result = await page.evaluate("axe.run()")
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in result["violations"]]
