"""The browser module in Chromium, against a real server."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

import rpcshare
from support.npm_packages import built, needs_packages
from support.running_server import RunningServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.node,
    needs_packages,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]

PAGE = """<!doctype html><script type="module">
import { watch } from "/module/index.js";
window.states = [];
window.begin = (link, options = {}) => {
  window.watching = watch(link, { ...options, onState: (state) => states.push(state) });
};
window.ready = true;
</script>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium does not know where a page comes from that a test has made up, and then distrusts loopback.
        options = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: RunningServer) -> Iterator[Page]:
    """A page of the server's own origin."""
    with opened(browser, server) as page:
        yield page


@contextmanager
def opened(browser: Browser, server: RunningServer) -> Iterator[Page]:
    page = browser.new_page()
    page.route(f"{server.url}/watching", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
    page.route(f"{server.url}/module/*", send_module)
    page.goto(f"{server.url}/watching")
    page.wait_for_function("window.ready")
    yield page
    page.close()


def send_module(route: Route) -> None:
    name = route.request.url.rpartition("/")[2]
    path = built() / "browser" / "dist" / name
    route.fulfill(path=path, content_type="text/javascript")


ITEMS = [
    {"type": "session", "data": {"id": "s", "title": "First"}},
    {"type": "message", "data": {"id": "m1"}},
    {"type": "part", "data": {"id": "p1", "text": "Hel"}},
]


@pytest.fixture
def share(
    server: RunningServer,
) -> Iterator[tuple[rpcshare.BlockingShareClient, rpcshare.ShareCredentials]]:
    with rpcshare.connect_blocking(server.url, token=server.token) as client:
        yield client, client.create_share(f"ses_{uuid4().hex}", ITEMS)


def test_the_object_is_kept_up_to_date(page: Page, share) -> None:
    client, made = share
    with page.expect_websocket() as opening:
        page.evaluate("link => begin(link)", made.url)
    page.wait_for_function("watching.state === 'live'")
    same = page.evaluate_handle("watching.share")
    assert page.evaluate("watching.share.session.title") == "First"
    client.sync_share(made.id, made.secret, [{"type": "part", "data": {"id": "p1", "text": "Hello"}}])
    page.wait_for_function("watching.share.parts[0].text === 'Hello'")
    assert page.evaluate("same => same === watching.share", same)
    held = client.get_share(made.id)
    seen = page.evaluate("watching.share")
    assert {name: seen[name] for name in ("session", "messages", "parts", "diffs", "models")} == {
        name: held[name] for name in ("session", "messages", "parts", "diffs", "models")
    }
    assert seen["syncCount"] == held["metadata"]["syncCount"]
    assert not opening.value.is_closed()


def test_it_goes_on_where_it_was_after_the_server_was_away(browser: Browser, tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server, opened(browser, server) as page:
        with rpcshare.connect_blocking(server.url, token=server.token) as client:
            made = client.create_share("ses_away", ITEMS)
        page.evaluate("link => begin(link)", made.url)
        page.wait_for_function("watching.state === 'live'")
        server.restart()
        with rpcshare.connect_blocking(server.url, token=server.token) as client:
            client.sync_share(made.id, made.secret, [{"type": "message", "data": {"id": "m2"}}])
        page.wait_for_function("watching.share.messages.length === 2")
        assert page.evaluate("states") == ["live", "connecting", "live"]


def test_it_ends_when_the_share_is_taken_down(page: Page, share) -> None:
    client, made = share
    page.evaluate("link => begin(link)", made.url)
    page.wait_for_function("watching.state === 'live'")
    client.delete_share(made.id)
    page.wait_for_function("watching.state === 'gone'")


def test_it_ends_at_once_where_there_is_no_share(page: Page, server: RunningServer) -> None:
    page.evaluate("link => begin(link)", f"{server.url}/share/nowhere0")
    page.wait_for_function("watching.state === 'gone'")


def test_it_uses_server_sent_events_where_websockets_do_not_get_through(page: Page, share) -> None:
    client, made = share
    page.evaluate(
        """link => {
          window.WebSocket = class extends EventTarget {
            constructor() { super(); setTimeout(() => this.onclose?.({ code: 1006 })); }
            close() {}
          };
          begin(link);
        }""",
        made.url,
    )
    page.wait_for_function("watching.state === 'live'")
    client.sync_share(made.id, made.secret, [{"type": "message", "data": {"id": "m2"}}])
    page.wait_for_function("watching.share.messages.length === 2")


def test_a_token_is_shown_in_the_handshake(page: Page, server: RunningServer, share) -> None:
    _, made = share
    with page.expect_websocket() as opening:
        page.evaluate("([link, token]) => begin(link, { token })", [made.url, server.token])
    page.wait_for_function("watching.state === 'live'")
    assert server.token not in opening.value.url


def test_a_watch_that_is_closed_stays_so(page: Page, share) -> None:
    client, made = share
    page.evaluate("link => begin(link)", made.url)
    page.wait_for_function("watching.state === 'live'")
    page.evaluate("watching.close()")
    client.sync_share(made.id, made.secret, [{"type": "message", "data": {"id": "m2"}}])
    assert page.evaluate("states") == ["live", "closed"]
    assert page.evaluate("watching.share.messages.length") == 1
