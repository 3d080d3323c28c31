"""The examples of proxies for a server below a path of its host, and what nginx logs."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx
import pytest

import rpcshare
from support.proxies import free_port, running_proxy
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow  # real servers, several of them at a time

TIMEOUT = 30


class Site(NamedTuple):
    """A server below ``/rpcshare`` behind a proxy."""

    host: str
    server: RunningServer
    directory: Path

    @property
    def url(self) -> str:
        return f"{self.host}/rpcshare"

    def shared(self) -> str:
        """Return the link of a new share, which the server has made."""
        body = {"sessionID": f"ses_{uuid4().hex}"}
        headers = {"Authorization": f"Bearer {self.server.token}"}
        return str(
            httpx.post(f"{self.url}/api/share", json=body, headers=headers, timeout=TIMEOUT).json()["url"]
        )


@pytest.fixture(scope="module", params=["nginx", "haproxy", "caddy"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    front = free_port()
    host, directory = f"http://127.0.0.1:{front}", tmp_path_factory.mktemp("proxy")
    options = [f"--public-url={host}/rpcshare", "--trusted-proxy=127.0.0.1"]
    with (
        RunningServer(tmp_path_factory.mktemp("below") / "data", *options) as server,
        running_proxy(request.param, directory, front, server.port, base_path=True),
    ):
        yield Site(host, server, directory)


def test_links_have_the_path_and_open(site: Site) -> None:
    link = site.shared()
    assert link.startswith(f"{site.url}/share/")
    page = httpx.get(link, timeout=TIMEOUT)
    assert page.status_code == 200
    for path in set(re.findall(r'(?:src|href)="(/[^"]+)"', page.text)):
        assert path.startswith("/rpcshare/")
        assert httpx.get(site.host + path, timeout=TIMEOUT, follow_redirects=True).status_code in (200, 401)


def test_redirects_stay_below_the_path(site: Site) -> None:
    for path in ("/rpcshare", "/rpcshare/"):
        answer = httpx.get(site.host + path, timeout=TIMEOUT, follow_redirects=True)
        assert answer.url.path == "/rpcshare/sessions"
    assert httpx.get(f"{site.host}/sessions", timeout=TIMEOUT).status_code == 404


def test_a_browser_signs_in_and_its_cookie_goes_nowhere_else(site: Site) -> None:
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as browser:
        form = browser.get(f"{site.url}/sessions")
        action = re.findall(r'<form[^>]*action="([^"]+)"', form.text)[0]
        answer = browser.post(
            httpx.URL(f"{site.url}/sessions").join(action),
            data={"token": site.server.token},
            headers={"Origin": site.host},
        )
        assert answer.status_code == 200
        assert answer.url.path == "/rpcshare/sessions"
        assert {cookie.path for cookie in browser.cookies.jar} == {"/rpcshare/"}


async def test_calls_pass(site: Site) -> None:
    async with rpcshare.connect(f"{site.url}/rpc", token=site.server.token) as api:
        assert await api.probeCallback(lambda word: f"{word}, heard") == "server-called, heard"


def test_commands_take_the_public_url(site: Site) -> None:
    command = [RPCSHARE, "pull", site.shared(), "--format=json"]
    env = bare_environment(RPCSHARE_TOKEN=site.server.token)
    finished = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert json.loads(finished.stdout)["messages"] == []


def test_events_pass_as_they_happen(site: Site) -> None:
    share_id = site.shared().rpartition("/")[2]
    headers = {"Authorization": f"Bearer {site.server.token}"}

    def sync() -> None:
        item = {"type": "message", "data": {"id": "msg_1"}}
        url = f"{site.url}/api/share/{share_id}/sync"
        httpx.post(url, json={"data": [item]}, headers=headers, timeout=TIMEOUT)

    kinds = []
    with httpx.stream("GET", f"{site.url}/api/share/{share_id}/events", timeout=TIMEOUT) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                kinds.append(json.loads(line.removeprefix("data: "))["type"])
                if kinds == ["snapshot"]:
                    threading.Thread(target=sync).start()
                else:
                    break
    assert kinds == ["snapshot", "sync"]


def test_a_link_without_the_path_is_what_opencode_import_needs(site: Site) -> None:
    """opencode takes ``https?://[^/]+/share/ID``, and fetches ``/api/share/ID/data`` from that host."""
    link = site.shared().replace("/rpcshare/share/", "/share/")
    assert re.fullmatch(r"https?://[^/]+/share/[a-zA-Z0-9_-]+", link)
    page = httpx.get(link, timeout=TIMEOUT, follow_redirects=True)
    assert (page.status_code, page.url.path.startswith("/rpcshare/share/")) == (200, True)
    for name in ("share", "shares"):
        data = httpx.get(link.replace("/share/", f"/api/{name}/") + "/data", timeout=TIMEOUT)
        assert [item["type"] for item in data.json()] == ["session"]


def test_nothing_else_of_the_server_is_at_the_root(site: Site) -> None:
    share_id = site.shared().rpartition("/")[2]
    headers = {"Authorization": f"Bearer {site.server.token}"}
    for method, path in [
        ("DELETE", f"/api/share/{share_id}"),
        ("POST", f"/api/share/{share_id}/data"),
        ("GET", "/metrics"),
        ("GET", f"/api/share/{share_id}/data/../../../../metrics"),
    ]:
        answer = httpx.request(method, site.host + path, headers=headers, timeout=TIMEOUT)
        assert answer.status_code in (400, 403, 404, 405, 501)
    assert httpx.get(f"{site.url}/api/share/{share_id}", timeout=TIMEOUT).status_code == 200


def test_a_key_in_a_path_is_in_no_log(site: Site) -> None:
    key = "rsk_this-is-no-key-0000000000"
    httpx.get(f"{site.url}/k/{key}/api/sessions?x=1", timeout=TIMEOUT)
    written = "".join(path.read_text("utf-8", "replace") for path in site.directory.glob("*log"))
    assert key not in written
    if (site.directory / "access.log").exists():
        assert '"GET /rpcshare/k/***/api/sessions?x=1"' in written
