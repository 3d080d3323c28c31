"""The HTML pages, as a browser without JavaScript meets them."""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from uuid import uuid4

import httpx
import pytest

from support.drawing_shares import Document
from support.running_server import RPCSHARE, RunningServer, bare_environment
from support.sample_session import SAMPLE, message, part

SESSIONS = count()
PATHS = ["/share/{}", "/share/{}?view=changes&layout=split", "/share/{}/part/prt_0304"]


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx.Client]:
    """One that keeps cookies, follows links, and says where its forms come from."""
    with httpx.Client(base_url=server.url, headers={"Accept": "text/html"}) as client:
        yield client


@pytest.fixture
def owner(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.token}"}) as client:
        yield client


def share(owner: httpx.Client, data: list[dict[str, object]] | None = None) -> str:
    """Make a share and return its id."""
    session_id = f"ses_pages_{next(SESSIONS):08}"
    answer = owner.post(
        "/api/share", json={"sessionID": session_id, "data": SAMPLE if data is None else data}
    )
    assert answer.status_code == 200
    share_id: str = answer.json()["id"]
    return share_id


def sign_in(browser: httpx.Client, server: RunningServer, **fields: str) -> httpx.Response:
    return browser.post(
        "/sign-in", data={"token": server.token, "next": "sessions", **fields}, headers={"Origin": server.url}
    )


@pytest.mark.parametrize("path", PATHS)
def test_every_page_of_a_share_is_complete_html(
    browser: httpx.Client, owner: httpx.Client, path: str
) -> None:
    answer = browser.get(path.format(share(owner)))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Document(answer.text)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == tags.count("main") == 1
    assert "Totals of several currencies" in page.text


@pytest.mark.parametrize("path", ["/share/{}", "/sessions", "/share/nothing1", "/nowhere"])
def test_the_policy_lets_nothing_in(browser: httpx.Client, owner: httpx.Client, path: str) -> None:
    answer = browser.get(path.format(share(owner)))
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    page = Document(answer.text)
    assert not page.all("style")
    assert all(attributes.get("src") for tag, attributes in page.elements if tag == "script")
    assert "style" not in [tag for tag, _ in page.elements]


def test_what_pages_load_is_there_for_ever(browser: httpx.Client) -> None:
    page = Document(browser.get("/sessions").text)
    names = [name for name in page.all("href") + page.all("src") if "static/" in name]
    assert {name.rpartition(".")[2] for name in names} == {"css", "js", "svg"}
    for name in names:
        answer = browser.get(f"/{name}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert browser.get("/static/pages.css").status_code == 404


@pytest.mark.slow
def test_links_are_relative_and_hold_no_key(server: RunningServer, owner: httpx.Client) -> None:
    share_id = share(owner)
    for path in (f"/k/{server.token}/share/{share_id}", f"/k/{server.token}/sessions"):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200
        assert server.token not in answer.text
        page = Document(answer.text)
        links = [link for link in page.all("href") + page.all("src") + page.all("action") if link]
        own = [link for link in links if not link.startswith(("http", "data:", "#"))]
        assert own
        assert not [link for link in own if link.startswith("/")]
        for link in own:
            assert httpx.get(httpx.URL(server.url + path).join(link)).status_code in (200, 405)


def test_a_page_that_has_not_changed_is_not_sent_again(browser: httpx.Client, owner: httpx.Client) -> None:
    share_id = share(owner)
    first = browser.get(f"/share/{share_id}")
    again = browser.get(f"/share/{share_id}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert owner.post(f"/api/share/{share_id}/sync", json={"data": []}).status_code in (200, 403)


def test_a_link_preview_finds_what_it_needs(browser: httpx.Client, owner: httpx.Client) -> None:
    share_id = share(owner)
    page = Document(browser.get(f"/share/{share_id}").text)
    meta = {
        attributes.get("property") or attributes.get("name"): attributes.get("content")
        for tag, attributes in page.elements
        if tag == "meta"
    }
    assert meta["og:title"] == "Totals of several currencies are added up"
    assert meta["og:description"] == "A coding session: 10 messages with Example Sonnet in /home/dev/ledger."
    assert str(meta["og:url"]).endswith(f"/share/{share_id}")
    assert "robots" not in meta


def test_a_long_session_is_read_page_by_page(browser: httpx.Client, owner: httpx.Client) -> None:
    items = [message("m1", "user"), *(part("m1", f"p{index}", "text", text="x") for index in range(120))]
    address: str | None = f"/share/{share(owner, items)}"
    seen: list[str] = []
    while address:
        answer = browser.get(address)
        seen += re.findall(r'id="p-([^"]+)"', answer.text)
        link = re.search(r'href="([^"]+)" data-load="later"', answer.text)
        address = str(answer.url.join(link[1])) if link else None
    assert seen == [f"p{index}" for index in range(120)]


def test_an_unknown_share_and_an_unknown_address_are_explained(browser: httpx.Client) -> None:
    for path, said in (
        ("/share/nothing1", "There is no such session"),
        ("/share/nothing1/part/x", "There is no such session"),
        ("/no/such/page", "There is nothing here"),
    ):
        answer = browser.get(path)
        assert answer.status_code == 404
        assert said in answer.text
    plain = httpx.get(browser.base_url.join("/no/such/page"))
    assert plain.json()["code"] == "NOT_FOUND"


def test_a_part_that_is_not_there_is_not_found(browser: httpx.Client, owner: httpx.Client) -> None:
    assert browser.get(f"/share/{share(owner)}/part/nothing").status_code == 404


# Signing in


def test_the_list_asks_who_one_is(browser: httpx.Client) -> None:
    answer = browser.get("/sessions")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert 'name="token"' in answer.text


def test_signing_in_shows_the_list_and_signing_out_hides_it(
    browser: httpx.Client, server: RunningServer, owner: httpx.Client
) -> None:
    share(owner)
    answer = sign_in(browser, server)
    assert (answer.status_code, answer.headers["location"]) == (303, "sessions")
    cookie = answer.headers["set-cookie"]
    assert server.token not in cookie
    for attribute in ("HttpOnly", "SameSite=lax", "Path=/"):
        assert attribute in cookie
    assert "Totals of several currencies" in browser.get("/sessions").text
    browser.post("/sign-out", headers={"Origin": server.url})
    assert browser.get("/sessions").status_code == 401


def test_a_wrong_token_is_told_and_not_repeated(browser: httpx.Client, server: RunningServer) -> None:
    answer = sign_in(browser, server, token="wr0ng-token")
    assert answer.status_code == 401
    assert "That token is not valid." in answer.text
    assert "wr0ng" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/sessions/x/delete", "/share/x/unlock"])
def test_forms_of_other_sites_are_refused(
    browser: httpx.Client, server: RunningServer, path: str, origin: str | None
) -> None:
    sign_in(browser, server)
    headers = {"Origin": origin} if origin else {}
    answer = browser.post(path, data={"token": server.token}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil", "javascript:x", "../x"]
)
def test_signing_in_leads_nowhere_else(browser: httpx.Client, server: RunningServer, target: str) -> None:
    assert sign_in(browser, server, next=target).headers["location"] == "sessions"


def test_a_body_that_is_no_form_is_refused(browser: httpx.Client, server: RunningServer) -> None:
    answer = browser.post("/sign-in", json={"token": server.token}, headers={"Origin": server.url})
    assert answer.status_code == 400


# Shares that are not open to all


def closed_share(owner: httpx.Client, **options: object) -> str:
    body = {"sessionID": f"ses_pages_{next(SESSIONS):08}", "data": SAMPLE, **options}
    share_id: str = owner.post("/api/share", json=body).json()["id"]
    return share_id


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        ("gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.000, *;q=0", None),
        ("zstd, gzip", "zstd"),
        ("identity", None),
        ("*", "zstd"),
    ],
)
def test_a_page_has_the_coding_that_its_reader_prefers(
    server: RunningServer, accepts: str, coding: str | None
) -> None:
    with httpx.stream("GET", f"{server.url}/sessions", headers={"Accept-Encoding": accepts}) as answer:
        assert answer.headers.get("content-encoding") == coding
        assert "Accept-Encoding" in answer.headers["vary"]


def test_a_password_opens_a_share_for_this_browser(
    browser: httpx.Client, server: RunningServer, owner: httpx.Client
) -> None:
    share_id = closed_share(owner, password="open sesame")
    asked = browser.get(f"/share/{share_id}")
    assert asked.status_code == 401
    assert "This session has a password" in asked.text
    assert "Totals of several currencies" not in asked.text
    headers = {"Origin": server.url}
    wrong = browser.post(f"/share/{share_id}/unlock", data={"password": "0pen"}, headers=headers)
    assert wrong.status_code == 401
    assert "That password is not right." in wrong.text
    right = browser.post(f"/share/{share_id}/unlock", data={"password": "open sesame"}, headers=headers)
    assert (right.status_code, right.headers["location"]) == (303, f"../{share_id}")
    cookie = right.headers["set-cookie"]
    assert f"Path=/share/{share_id}" in cookie
    assert "HttpOnly" in cookie
    opened = browser.get(f"/share/{share_id}")
    assert "Totals of several currencies" in opened.text
    assert 'content="noindex, nofollow"' in opened.text


def test_a_password_opens_the_files_of_a_share_and_a_search_in_it_too(
    browser: httpx.Client, server: RunningServer, owner: httpx.Client
) -> None:
    share_id, other_id = closed_share(owner, password="open sesame"), closed_share(owner, password="another")
    files = f"/api/share/{share_id}/export?format=markdown"
    assert browser.get(files).status_code == 401
    searched = browser.get(f"/share/{share_id}?q=currencies&fragment=1")
    assert searched.status_code == 401
    assert "currencies" not in searched.text
    browser.post(
        f"/share/{share_id}/unlock", data={"password": "open sesame"}, headers={"Origin": server.url}
    )
    assert "currencies" in browser.get(files).text
    assert "<mark>currencies</mark>" in browser.get(f"/share/{share_id}?q=currencies&fragment=1").text
    assert browser.get(f"/api/share/{other_id}/export?format=markdown").status_code == 401


def test_the_scripts_of_a_page_load_each_other(browser: httpx.Client, owner: httpx.Client) -> None:
    page = Document(browser.get(f"/share/{closed_share(owner)}").text)
    seen, waiting = set[str](), [name.removeprefix("../") for name in page.all("src") if name.endswith(".js")]
    while waiting:
        name = waiting.pop()
        answer = browser.get(f"/{name}")
        assert answer.headers["content-type"].startswith("text/javascript")
        seen.add(re.sub(r"\.[0-9a-f]{12}\.", ".", name))
        waiting += [f"static/{each}" for each in re.findall(r'(?:from|import) "\./([^"]+)"', answer.text)]
    assert seen == {"static/theme.js", "static/pages.js", "static/reading.js", "static/clipboard.js"}


def test_a_password_that_has_changed_is_asked_for_again(
    browser: httpx.Client, server: RunningServer, owner: httpx.Client
) -> None:
    share_id = closed_share(owner, password="one")
    headers = {"Origin": server.url}
    browser.post(f"/share/{share_id}/unlock", data={"password": "one"}, headers=headers)
    assert browser.get(f"/share/{share_id}").status_code == 200
    owner.patch(f"/api/share/{share_id}", json={"password": "two"})
    assert browser.get(f"/share/{share_id}").status_code == 401


def test_a_private_share_asks_who_one_is_and_leads_back(
    browser: httpx.Client, server: RunningServer, owner: httpx.Client
) -> None:
    share_id = closed_share(owner, visibility="private")
    asked = browser.get(f"/share/{share_id}")
    assert asked.status_code == 401
    assert "This session is private" in asked.text
    assert f'name="next" value="share/{share_id}"' in asked.text
    assert "unlock" not in asked.text
    answer = sign_in(browser, server, next=f"share/{share_id}")
    landed = browser.get(answer.url.join(answer.headers["location"]))
    assert "Totals of several currencies" in landed.text


def test_an_expired_share_is_explained(browser: httpx.Client, owner: httpx.Client) -> None:
    share_id = closed_share(owner, expiresIn=0.05)
    for _ in range(200):
        answer = browser.get(f"/share/{share_id}")
        if answer.status_code != 200:
            break
    assert answer.status_code == 410
    assert "This session has expired" in answer.text


def test_who_is_no_admin_sees_their_own_list(
    browser: httpx.Client, server: RunningServer, owner: httpx.Client
) -> None:
    made = subprocess.run(
        [RPCSHARE, "keys", "create", "pages-reader", f"--data-dir={server.data_dir}"],
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    key = re.search(r"rsk_\S+", made.stdout)
    assert key
    share(owner)
    for _ in range(100):  # a server learns of a new key within seconds
        answer = sign_in(browser, server, token=key[0], next="")
        if answer.status_code == 303:
            break
        time.sleep(0.1)
    assert answer.headers["location"] == "my-sessions"
    for address in ("/sessions", "/my-sessions"):
        answer = browser.get(address)
        assert answer.status_code == 200
        assert "Your sessions" in answer.text
        assert "No session has been shared yet." in answer.text
    assert browser.get("/keys").status_code == 403


def test_a_key_is_made_once_and_shown_once(browser: httpx.Client, server: RunningServer) -> None:
    sign_in(browser, server)
    form = {"name": "made-on-a-page", "create": "1"}
    answer = browser.post("/keys", data=form, headers={"Origin": server.url})
    assert (answer.status_code, answer.headers["location"]) == (303, "keys")
    assert "rsk_" not in str(answer.headers) + answer.text
    pages = [browser.get("/keys").text for _ in range(2)]
    key = re.search(r"rsk_\w+", pages[0])
    assert key
    assert ["rsk_" in page for page in pages] == [True, False]
    assert pages[1].count(">made-on-a-page<") == 1
    rotated = re.search(r'action="(keys/[^"]+/rotate)"', pages[1])
    assert rotated
    answer = browser.post(f"/{rotated[1]}", headers={"Origin": server.url})
    assert (answer.status_code, answer.headers["location"]) == (303, "../../keys")
    assert ["rsk_" in browser.get("/keys").text for _ in range(2)] == [True, False]
    assert key[0] not in server.log.read_text()


def test_the_cookie_that_shows_a_key_signs_nobody_in(browser: httpx.Client, server: RunningServer) -> None:
    sign_in(browser, server)
    form = {"name": "in-a-cookie", "create": "1"}
    browser.post("/keys", data=form, headers={"Origin": server.url})
    sealed = browser.cookies["rpcshare_made_key"]
    assert httpx.get(f"{server.url}/keys", cookies={"rpcshare_session": sealed}).status_code == 401
    assert "rsk_" not in httpx.get(f"{server.url}/keys", cookies={"rpcshare_made_key": sealed}).text


# The list


def test_the_list_is_searched_and_turned_over(server: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.url, headers=headers) as owner:
        for number in range(35):
            session = {"id": "s", "title": f"Needle number {number}"}
            share(owner, [{"type": "session", "data": session}])
        first = owner.get("/sessions?q=needle+number")
        assert "35 sessions match “needle number”" in Document(first.text).text
        assert first.text.count("<li ") == 30
        link = re.search(r'href="([^"]+)" rel="next"', first.text)
        assert link
        second = owner.get(first.url.join(link[1].replace("&amp;", "&")))
        assert second.text.count("<li ") == 5
        assert "Nothing matches." in owner.get("/sessions?q=haystack-without").text
        refused = Document(owner.get("/sessions?q=needle+before:yesterday").text).text
        assert "could not be searched: query: before: must be a date such as" in refused
        assert "could not be searched" not in owner.get("/sessions?q=-").text
        assert "<html" not in owner.get("/sessions?fragment=1").text


def test_a_bad_cursor_is_explained(owner: httpx.Client) -> None:
    answer = owner.get("/sessions?cursor=nonsense")
    assert answer.status_code == 400
    assert "That cannot be done" in answer.text


def test_a_session_is_deleted_after_a_question(
    browser: httpx.Client, server: RunningServer, owner: httpx.Client
) -> None:
    share_id = share(owner)
    sign_in(browser, server)
    asked = browser.get(f"/sessions/{share_id}/delete")
    assert "Delete this session?" in asked.text
    assert browser.get(f"/share/{share_id}").status_code == 200
    done = browser.post(f"/sessions/{share_id}/delete", headers={"Origin": server.url})
    assert done.status_code == 303
    landed = browser.get(done.url.join(done.headers["location"]))
    assert "The session is deleted." in landed.text
    assert browser.get(f"/share/{share_id}").status_code == 404


def test_deleting_needs_a_name(browser: httpx.Client, server: RunningServer, owner: httpx.Client) -> None:
    share_id = share(owner)
    assert browser.get(f"/sessions/{share_id}/delete").status_code == 401
    answer = browser.post(f"/sessions/{share_id}/delete", headers={"Origin": server.url})
    assert answer.status_code == 401
    assert browser.get(f"/share/{share_id}").status_code == 200


# Live


@asynccontextmanager
async def updates(url: str, **headers: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """Yield the events of a page's stream, as (event, data)."""

    async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
        name = "message"
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))
                name = "message"

    async with httpx.AsyncClient(timeout=10) as client, client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


async def post(server: RunningServer, path: str, body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {server.token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
        return await client.post(path, json=body)


async def created(server: RunningServer) -> tuple[str, str]:
    body = {"sessionID": f"ses_pages_{next(SESSIONS):08}", "data": [message("m1", "user")]}
    answer = (await post(server, "/api/share", body)).json()
    return answer["id"], answer["secret"]


async def test_a_sync_reaches_the_page_as_html(server: RunningServer) -> None:
    share_id, secret = await created(server)
    async with updates(f"{server.url}/share/{share_id}/live?after=1") as events:
        assert await anext(events) == (
            "message",
            {"syncCount": 1, "messages": "", "summary": "", "prompts": "", "tabs": "", "isReset": False},
        )
        data = [part("m1", "p1", "text", text="Hello **there**")]
        await post(server, f"/api/share/{share_id}/sync", {"secret": secret, "data": data})
        _, update = await anext(events)
        assert update["syncCount"] == 2
        assert "Hello **there**" in update["messages"]
        assert 'id="t-m1"' in update["prompts"]


async def test_a_browser_that_was_away_gets_what_it_missed(server: RunningServer) -> None:
    share_id, secret = await created(server)
    url = f"{server.url}/share/{share_id}/live?after=1"
    async with updates(url) as events:
        await anext(events)
    for number in range(3):
        data = [part("m1", f"p{number}", "text", text=f"part {number}")]
        await post(server, f"/api/share/{share_id}/sync", {"secret": secret, "data": data})
    async with updates(url, **{"Last-Event-ID": "2"}) as events:
        _, update = await anext(events)
    assert update["syncCount"] == 4
    assert re.findall(r"part \d", update["messages"]) == ["part 1", "part 2"]


async def test_viewers_of_one_share_get_the_same(server: RunningServer) -> None:
    share_id, secret = await created(server)
    url = f"{server.url}/share/{share_id}/live?after=1"

    async def second_update() -> object:
        async with updates(url) as events:
            await anext(events)
            ready.release()
            return (await anext(events))[1]

    ready = asyncio.Semaphore(0)
    watching = [asyncio.create_task(second_update()) for _ in range(5)]
    for _ in watching:
        await ready.acquire()
    data = [part("m1", "p1", "text", text="for all")]
    await post(server, f"/api/share/{share_id}/sync", {"secret": secret, "data": data})
    seen = await asyncio.gather(*watching)
    assert all(update == seen[0] for update in seen)


async def test_the_end_of_a_share_ends_its_stream(server: RunningServer) -> None:
    share_id, secret = await created(server)
    async with updates(f"{server.url}/share/{share_id}/live?after=1") as events:
        await anext(events)
        async with httpx.AsyncClient(base_url=server.url) as client:
            await client.request("DELETE", f"/api/share/{share_id}", json={"secret": secret})
        assert await anext(events) == ("ended", {"reason": "deleted"})
        assert [event async for event in events] == []


@pytest.mark.slow
async def test_open_pages_do_not_hold_up_a_stop(tmp_path_factory: pytest.TempPathFactory) -> None:
    data_dir = tmp_path_factory.mktemp("stop") / "data"
    with RunningServer(data_dir) as server:
        share_id, _ = await created(server)
        async with updates(f"{server.url}/share/{share_id}/live?after=1") as events:
            await anext(events)
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            assert [event async for event in events] == []
            assert await stopping == 0
        assert "Traceback" not in server.log.read_text()


def test_the_list_may_have_those_first_that_changed_last(server: RunningServer) -> None:
    with httpx.Client(base_url=f"{server.url}/k/{server.token}") as client:
        title = f"Order {uuid4().hex}"
        data = [{"type": "session", "data": {"title": title}}]
        made = [
            client.post("/api/share", json={"sessionID": f"ses_{uuid4().hex}", "data": data}).json()
            for _ in range(2)
        ]
        client.post(f"/api/share/{made[0]['id']}/sync", json={"secret": made[0]["secret"], "data": []})
        newest = client.get("/sessions", params={"q": title}).text
        (link,) = [link for link in Document(newest).all("href") if link and "order=changed" in link]
        changed = client.get(f"/{link}").text
    assert changed.index(made[0]["id"]) < changed.index(made[1]["id"])
    assert "2 syncs" in changed
