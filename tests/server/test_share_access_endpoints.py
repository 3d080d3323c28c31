"""Visibility, passwords, expiry and view tokens, as clients of a running server meet them."""

import asyncio
import time
from collections.abc import Awaitable, Iterator
from uuid import uuid4

import httpx
import pytest

import rpcshare
from rpcshare import ErrorCode, ShareError
from support.running_server import RunningServer

pytestmark = pytest.mark.slow  # real servers, several of them at a time

PASSWORD = "correct horse"
ITEMS = [{"type": "part", "data": {"id": "prt_1", "text": "hello"}}]


@pytest.fixture
def session_id() -> str:
    return f"ses_{uuid4().hex}"


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture
def owner(server: RunningServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {server.token}"}


async def code_of(awaitable: Awaitable[object]) -> str | None:
    with pytest.raises((ShareError, rpcshare.RpcError)) as refused:
        await awaitable
    assert isinstance(refused.value, ShareError | rpcshare.RpcError)
    return refused.value.code


# HTTP


def test_a_misspelt_setting_of_a_new_share_is_refused_and_other_members_are_ignored(
    http: httpx.Client, owner: dict[str, str], session_id: str
) -> None:
    body = {"sessionID": session_id, "title": "x"}
    refused = http.post("/api/share", headers=owner, json={**body, "visibilty": "private"})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert refused.json()["error"].startswith("visibilty: is not known")
    made = http.post("/api/share", headers=owner, json=body).json()
    refused = http.post(f"/api/share/{made['id']}/view-token", headers=owner, json={"expires_in": "1h"})
    assert refused.json()["error"].startswith("expires_in: is not known")


@pytest.mark.parametrize("what", ["", "/data", "/metadata"])
def test_basic_carries_the_password_of_a_share(
    http: httpx.Client, owner: dict[str, str], session_id: str, what: str
) -> None:
    made = http.post(
        "/api/share", headers=owner, json={"sessionID": session_id, "data": ITEMS, "password": PASSWORD}
    ).json()
    path = f"/api/share/{made['id']}{what}"
    without = http.get(path)
    assert (without.status_code, without.json()["code"]) == (401, "UNAUTHORIZED")
    challenge = 'Bearer, Basic realm="password of the share", charset="UTF-8"'
    assert without.headers["www-authenticate"] == challenge
    assert http.get(path, auth=("whoever", PASSWORD)).status_code == 200
    assert http.get(path, auth=("", PASSWORD)).status_code == 200
    wrong = http.get(path, auth=("whoever", "wrong"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "Unauthorized: the password is wrong")
    assert wrong.headers["www-authenticate"] == challenge
    assert http.get(path, headers=owner).status_code == 200


def test_basic_is_offered_only_where_a_password_would_help(
    http: httpx.Client, owner: dict[str, str], session_id: str
) -> None:
    private = {"sessionID": session_id, "visibility": "private"}
    made = http.post("/api/share", headers=owner, json=private).json()
    path = f"/api/share/{made['id']}"
    wrong = {"Authorization": "Bearer wrong"}
    refused = [http.get(path), http.get(path, auth=("", "a guess")), http.get(path, headers=wrong)]
    http.patch(path, headers=owner, json={"visibility": "link", "password": PASSWORD})
    refused += [http.post(f"{path}/unlock", json={"password": "wrong"})]
    assert [(answer.status_code, answer.headers["www-authenticate"]) for answer in refused] == [
        (401, "Bearer")
    ] * 4


def test_a_password_gives_no_right_but_to_read(
    http: httpx.Client, owner: dict[str, str], session_id: str
) -> None:
    made = http.post("/api/share", headers=owner, json={"sessionID": session_id, "password": PASSWORD}).json()
    path = f"/api/share/{made['id']}"
    guest = ("", PASSWORD)
    assert http.delete(path, auth=guest).status_code == 403
    assert http.post(f"{path}/sync", auth=guest, json={"data": ITEMS}).status_code == 403
    assert http.patch(path, auth=guest, json={"password": None}).status_code == 403
    assert http.get("/api/my-sessions", auth=guest).status_code == 401
    assert http.post("/rpc", auth=guest, content="").status_code == 401


def test_settings_are_read_and_changed_with_patch(
    http: httpx.Client, owner: dict[str, str], session_id: str
) -> None:
    made = http.post("/api/share", headers=owner, json={"sessionID": session_id}).json()
    path = f"/api/share/{made['id']}"
    secret = {"secret": made["secret"]}
    assert http.patch(path, json=secret).json() == {
        "visibility": "link",
        "hasPassword": False,
        "expiresAt": None,
    }
    before = time.time()
    changed = http.patch(path, json=secret | {"visibility": "private", "expiresIn": "1h"}).json()
    assert changed["visibility"] == "private"
    assert before + 3590 < changed["expiresAt"] / 1000 < time.time() + 3610
    assert http.get(path).status_code == 401
    assert http.patch(path, headers=owner, json={"visibility": "link", "expiresIn": None}).json() == {
        "visibility": "link",
        "hasPassword": False,
        "expiresAt": None,
    }
    refused = http.patch(path, json=secret | {"visiblity": "private"})
    assert (refused.status_code, refused.json()["code"]) == (400, "INVALID_ARGUMENT")
    assert http.patch(path, json={"visibility": "private"}).status_code == 403


def test_a_view_token_is_shown_like_any_token(
    http: httpx.Client, owner: dict[str, str], session_id: str
) -> None:
    options = {"visibility": "private"}
    made = http.post("/api/share", headers=owner, json={"sessionID": session_id, **options}).json()
    path = f"/api/share/{made['id']}"
    token = http.post(f"{path}/view-token", json={"secret": made["secret"], "expiresIn": 60}).json()
    assert set(token) == {"token", "expiresAt"}
    for name, value in (
        ("Authorization", f"Bearer {token['token']}"),
        ("x-opencode-share-key", token["token"]),
    ):
        assert http.get(path, headers={name: value}).status_code == 200
    http.patch(path, headers=owner, json={"password": PASSWORD})
    assert http.get(path, headers={"Authorization": f"Bearer {token['token']}"}).status_code == 401


def test_a_password_is_exchanged_for_a_view_token(
    http: httpx.Client, owner: dict[str, str], session_id: str
) -> None:
    made = http.post("/api/share", headers=owner, json={"sessionID": session_id, "password": PASSWORD}).json()
    path = f"/api/share/{made['id']}"
    assert http.post(f"{path}/unlock", json={"password": "wrong"}).status_code == 401
    token = http.post(f"{path}/unlock", json={"password": PASSWORD}).json()["token"]
    assert http.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_a_malformed_password_is_refused_whatever_is_asked(http: httpx.Client) -> None:
    for value in ("Basic", "Basic %", "Basic /w=="):
        answer = http.get("/api/share/00000001", headers={"Authorization": value})
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")


def test_nothing_that_was_shown_is_in_the_log(
    server: RunningServer, http: httpx.Client, owner: dict[str, str], session_id: str
) -> None:
    password = f"password-{uuid4().hex}"
    made = http.post("/api/share", headers=owner, json={"sessionID": session_id, "password": password}).json()
    path = f"/api/share/{made['id']}"
    token = http.post(f"{path}/unlock", json={"password": password}).json()["token"]
    http.get(path, auth=("", password))
    http.get(path, headers={"Authorization": f"Bearer {token}"})
    log = server.log.read_text()
    assert password not in log
    assert token not in log


# RPC


async def test_a_private_share_is_its_owners_and_a_view_token_opens_it(
    server: RunningServer, session_id: str
) -> None:
    async with rpcshare.ShareClient(server.url, token=server.token) as owner:
        share = await owner.create_share(session_id, ITEMS, visibility="private")
        other = await owner.create_share(f"{session_id}-other", ITEMS, visibility="private")
        assert (await owner.get_share_metadata(share.id)).part_count == 1
        view = await owner.create_view_token(share.id, expires_in=60)
        assert view.token not in repr(view)
        async with rpcshare.ShareClient(server.url, token=view.token) as guest:
            assert await guest.whoami() == rpcshare.Identity(None, [])
            assert (await guest.get_share_metadata(share.id)).part_count == 1
            assert await code_of(guest.get_share(other.id)) == ErrorCode.UNAUTHORIZED
            assert await code_of(guest.sync_share(share.id, None, ITEMS)) == ErrorCode.FORBIDDEN
            assert await code_of(guest.create_share("ses_of_a_guest")) == ErrorCode.UNAUTHORIZED
            assert await code_of(guest.list_shares()) == ErrorCode.UNAUTHORIZED
        guest_rpc = owner.api.authenticate(view.token)
        assert (await guest_rpc.getShareMetadata(share.id))["id"] == share.id


async def test_settings_over_rpc(server: RunningServer, session_id: str) -> None:
    async with rpcshare.ShareClient(server.url, token=server.token) as owner:
        share = await owner.create_share(session_id, password=PASSWORD, expires_in="1h")
        settings = await owner.update_share(share.id)
        assert (settings.visibility, settings.has_password) == ("link", True)
        assert settings.expires_at is not None
        view = await owner.unlock_share(share.id, PASSWORD)
        assert view.expires_at <= settings.expires_at
        assert await code_of(owner.unlock_share(share.id, "wrong")) == ErrorCode.UNAUTHORIZED
        settings = await owner.update_share(share.id, share.secret, password=None, expires_in=None)
        assert (settings.has_password, settings.expires_at) == (False, None)
        assert await code_of(owner.api.updateShare(share.id, None, {"secret": 1})) == "INVALID_ARGUMENT"


async def test_who_holds_a_share_reads_it_whatever_its_visibility(
    server: RunningServer, session_id: str
) -> None:
    async with rpcshare.ShareClient(server.url, token=server.token) as owner:
        share = await owner.create_share(session_id, ITEMS)
        stranger = owner.api.authenticate((await owner.create_view_token(share.id)).token)
        held = await stranger.openShare(share.id, share.secret)
        await owner.update_share(share.id, visibility="private", password=PASSWORD)
        events: asyncio.Queue[object] = asyncio.Queue()
        subscription = await held.subscribe(events.put_nowait)
        assert (await held.snapshot())["parts"] == [ITEMS[0]["data"]]
        await owner.update_share(share.id, password="another")
        await held.sync(ITEMS)
        async with asyncio.timeout(5):
            kinds = [(await events.get())["type"] for _ in range(2)]  # type: ignore[index]
        assert kinds == ["snapshot", "sync"]
        subscription.dispose()


async def test_a_subscriber_that_may_not_read_any_more_is_told_why(
    server: RunningServer, session_id: str
) -> None:
    async with rpcshare.ShareClient(server.url, token=server.token) as owner:
        share = await owner.create_share(session_id, ITEMS, visibility="private")
        view = await owner.create_view_token(share.id)
        async with rpcshare.ShareClient(server.url, token=view.token, reconnect=True) as guest:
            watched = await guest.api.watch(share.id)
            async with guest.subscribe(share.id) as events:
                assert (await anext(events)).type == "snapshot"
                assert (await anext(watched))["type"] == "snapshot"
                await owner.update_share(share.id, password=PASSWORD)
                async with asyncio.timeout(5):
                    assert await code_of(anext(events)) == ErrorCode.UNAUTHORIZED
                    assert await code_of(anext(watched)) == "UNAUTHORIZED"


async def test_a_share_expires_by_itself(server: RunningServer, session_id: str) -> None:
    async with rpcshare.ShareClient(server.url, token=server.token) as owner:
        share = await owner.create_share(session_id, ITEMS, expires_in=1)
        async with owner.subscribe(share.id) as events, asyncio.timeout(8):
            assert [event.type async for event in events] == ["snapshot", "deleted"]
        assert await code_of(owner.get_share(share.id)) == ErrorCode.SHARE_GONE
        assert await code_of(owner.sync_share(share.id, share.secret, ITEMS)) == ErrorCode.SHARE_GONE
        page = await owner.list_shares(query=session_id)
        assert page.sessions == []
    async with httpx.AsyncClient(base_url=server.url) as http:
        answer = await http.get(f"/api/share/{share.id}")
    assert (answer.status_code, answer.json()) == (410, {"error": "Share expired", "code": "SHARE_GONE"})


@pytest.mark.slow
def test_settings_outlive_the_server(tmp_path: object) -> None:
    with RunningServer(tmp_path / "data", "--anonymous-create") as server:  # type: ignore[operator]
        options = {"password": PASSWORD, "expiresIn": 1}
        kept = httpx.post(f"{server.url}/api/share", json={"sessionID": "ses_kept0001", "password": PASSWORD})
        made = httpx.post(f"{server.url}/api/share", json={"sessionID": "ses_gone0002", **options})
        assert server.stop() == 0
        time.sleep(1.1)  # its time is over by then
        server.restart()
        assert httpx.get(f"{server.url}/api/share/{kept.json()['id']}").status_code == 401
        path = f"{server.url}/api/share/{kept.json()['id']}"
        assert httpx.get(path, auth=("", PASSWORD)).status_code == 200
        assert httpx.get(f"{server.url}/api/share/{made.json()['id']}").status_code == 410
