"""The pages of workspaces: forms without a script, and files that stay text."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert(document.domain)</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("pages")
    (path / "repositories").mkdir(mode=0o755)
    options = ("--agents=local", "--agents-unsafe", f"--git-file-root={path / 'repositories'}")
    with RunningServer(path / "data", *options) as running:
        yield running


@pytest.fixture
def browser(server):
    headers = {"Authorization": f"Bearer {server.token}", "Origin": server.url}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def make(browser: httpx.Client, name: str, **fields: str) -> str:
    answer = browser.post("/workspaces", data={"name": name, **fields})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"].partition("?")[0].rpartition("/")[2]


def files_of(server: RunningServer, workspace: str) -> Path:
    return server.data_dir / "workspaces" / workspace / "files"


def test_a_form_makes_changes_and_removes_a_workspace(server, browser):
    made = make(browser, "site", hosts="a.example\nb.example", memory="128MiB")
    page = browser.get(f"/workspaces/{made}?notice=made").text
    assert "The workspace is made." in page
    assert "a.example, b.example" in page
    assert "128MiB" in page
    saved = browser.post(f"/workspaces/{made}", data={"name": "web", "hosts": "", "memory": "64MiB"})
    assert (saved.status_code, saved.headers["location"]) == (303, f"{made}?notice=saved")
    held = browser.get(f"/api/workspaces/{made}").json()
    assert (held["name"], held["hosts"], held["resources"]["memory"]) == ("web", [], 64 * 2**20)
    (files_of(server, made) / "a").write_text("kept")
    removed = browser.post(f"/workspaces/{made}/remove", data={"snapshot": "1"})
    assert (removed.status_code, removed.headers["location"]) == (303, "../../workspaces?notice=removed")
    assert [each.name for each in (server.data_dir / "workspace-snapshots").iterdir()] == [f"{made}.tar.zst"]
    assert browser.get(f"/workspaces/{made}").status_code == 404


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "no good"}, "name"),
        ({"name": "ok", "git": "ftp://a.example/x"}, "git"),
        ({"name": "ok", "git": "https://a.example/x", "ref": "-x"}, "ref"),
        ({"name": "ok", "ref": "main"}, "git"),
        ({"name": "ok", "hosts": "10.0.0.1"}, "hosts"),
        ({"name": "ok", "memory": "much"}, "memory"),
        ({"name": "ok", "cpu": "0"}, "cpu"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_and_what_was_entered_stays(browser, fields, field):
    answer = browser.post("/workspaces", data=fields)
    assert answer.status_code == 400
    assert f'aria-describedby="wrong-{field}"' in answer.text
    assert f'id="wrong-{field}"' in answer.text
    assert f'value="{fields["name"]}"' in answer.text
    assert all(each["name"] != "ok" for each in browser.get("/api/workspaces").json())


def test_a_repository_that_cannot_be_cloned_is_told_on_the_form(server, browser):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (server.data_dir.parent / "repositories" / "none").mkdir(exist_ok=True)
    url = f"file://{server.data_dir.parent}/repositories/none"
    answer = browser.post("/workspaces", data={"name": "none", "git": url})
    while answer.status_code == 303:  # of a machine that has much to do: it is being cloned
        answer = browser.get(answer.headers["location"])
        if answer.status_code == 200 and "data-poll" in answer.text:
            answer = browser.get(answer.url)
    assert answer.status_code == 502
    assert url in answer.text
    assert 'role="alert"' in answer.text


def test_another_sites_form_changes_nothing(server, browser):
    foreign = {"Origin": "https://other.example"}
    made = make(browser, "foreign")
    for path in ("/workspaces", f"/workspaces/{made}", f"/workspaces/{made}/remove"):
        assert browser.post(path, data={"name": "x"}, headers=foreign).status_code == 403
    assert browser.get(f"/api/workspaces/{made}").json()["name"] == "foreign"


def test_a_hostile_file_is_text_on_the_page_and_runs_nothing_as_a_download(server, browser):
    made = make(browser, "hostile")
    root = files_of(server, made)
    for name in ("a.html", "a.svg", 'a"><b>.xml'):
        (root / name).write_text(f"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'>{HOSTILE}</svg>")
    listing = browser.get(f"/workspaces/{made}/files").text
    assert "<b>" not in listing
    for name in ("a.html", "a.svg", 'a"><b>.xml'):
        page = browser.get(f"/workspaces/{made}/files", params={"path": name})
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "<svg xmlns=" not in page.text
        assert HOSTILE not in page.text
        file = browser.get(f"/workspaces/{made}/download", params={"path": name})
        assert HOSTILE in file.text
        assert file.headers["content-type"] == "application/octet-stream"
        assert file.headers["x-content-type-options"] == "nosniff"
        assert file.headers["content-security-policy"].startswith("sandbox;")
        assert file.headers["content-disposition"].startswith("attachment;")
    found = browser.get(f"/workspaces/{made}/files", params={"q": "domain"}).text
    assert HOSTILE not in found


def test_nothing_outside_the_workspace_is_shown(server, browser):
    made = make(browser, "inside")
    (files_of(server, made) / "link").symlink_to("/etc/passwd")
    (files_of(server, made) / "folder").symlink_to("/etc")
    listing = browser.get(f"/workspaces/{made}/files").text
    assert "symlink" in listing
    assert "path=link" not in listing
    for path in ("link", "folder/passwd", "../../admin-token", "/etc/passwd", "..", "a/../../x", "%2e%2e"):
        for page in ("files", "download"):
            answer = browser.get(f"/workspaces/{made}/{page}", params={"path": path})
            assert answer.status_code == 400, path
            assert "root:" not in answer.text


def test_a_directory_of_ten_thousand_files_is_shown_in_pages(server, browser):
    made = make(browser, "many")
    root = files_of(server, made)
    for number in range(10_000):
        (root / f"{number:05}").touch()
    first = browser.get(f"/workspaces/{made}/files").text
    assert first.count("<li>") == 500
    assert "5,000+ entries" in first
    assert "start=501" in first
    last = browser.get(f"/workspaces/{made}/files", params={"start": "4501"}).text
    assert last.count("<li>") == 500
    assert 'rel="next"' not in last
    assert len(first) < 150_000


def test_a_file_has_numbers_of_lines_and_search_leads_to_one(server, browser):
    made = make(browser, "lines")
    (files_of(server, made) / "a b.py").write_text("x = 1\n\n\ny = 'needle'\n")
    (files_of(server, made) / "empty").touch()
    (files_of(server, made) / "bin").write_bytes(b"\0\1")
    page = browser.get(f"/workspaces/{made}/files", params={"path": "a b.py"}).text
    assert 'id="L4"' in page
    assert '<span class="mi">1</span>' in page
    empty = browser.get(f"/workspaces/{made}/files", params={"path": "empty"}).text
    assert "There is nothing in it." in empty
    assert "It is no text" in browser.get(f"/workspaces/{made}/files", params={"path": "bin"}).text
    named = browser.get(f"/workspaces/{made}/files", params={"q": "A B", "by": "name"}).text
    assert "path=a%20b.py" in named
    if shutil.which("rg") is not None:
        found = browser.get(f"/workspaces/{made}/files", params={"q": "needle"}).text
        assert "path=a%20b.py#L4" in found
        assert "<mark>needle</mark>" in found


class AtLeisure(RunningServer):
    """A server that shows the page of what is being made at once."""

    command = (
        sys.executable,
        "-c",
        "import rpcshare.server.web.workspace_pages as pages; pages._AT_ONCE = 0.0;"
        "from rpcshare.cli import main; main(prog_name='rpcshare')",
    )


def test_a_clone_that_takes_long_has_a_page_that_leads_on_when_it_is_over(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "repositories" / "none").mkdir(parents=True)
    options = ("--agents=local", "--agents-unsafe", f"--git-file-root={tmp_path / 'repositories'}")
    with AtLeisure(tmp_path / "data", *options) as server:
        headers = {"Authorization": f"Bearer {server.token}", "Origin": server.url}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as browser:
            url = f"file://{tmp_path}/repositories/none"
            sent = browser.post("/workspaces", data={"name": "broken", "git": url})
            assert sent.headers["location"].startswith("workspaces/making/")
            place = f"/{sent.headers['location']}"
            while (page := browser.get(place)).status_code == 200:
                assert "broken is being made" in page.text
                assert 'data-poll="2000"' in page.text
            assert page.status_code == 502
            assert url in page.text
            sent = browser.post("/workspaces", data={"name": "good"})
            place = f"/{sent.headers['location']}"
            while (page := browser.get(place)).status_code == 200:
                pass
            assert page.status_code == 303
            assert page.headers["location"].startswith("../wsp_")
            # The page of somebody else's leads to one's own.
            key = make_key(server)
            other = httpx.get(f"{server.url}{place}", headers={"Authorization": f"ApiKey {key}"})
            assert (other.status_code, other.headers["location"]) == (303, "../../workspaces")
            assert (
                "good"
                not in httpx.get(f"{server.url}/workspaces", headers={"Authorization": f"ApiKey {key}"}).text
            )


def make_key(server: RunningServer) -> str:
    made = subprocess.run(
        [RPCSHARE, "keys", "create", "bob", "--json", f"--data-dir={server.data_dir}"],
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    key: str = json.loads(made.stdout)["key"]
    return key
