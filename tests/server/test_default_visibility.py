"""Who may read a share whose creator does not say: as the server, or the key, has it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from rpcshare import ShareClient
from support.running_server import RunningServer

ITEMS = [{"type": "message", "data": {"id": "msg_1"}}]


@pytest.fixture(scope="module")
def private_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RunningServer(tmp_path_factory.mktemp("private") / "data", "--default-visibility=private") as server:
        yield server


def create(server: RunningServer, session_id: str, token: str | None = None, **options: Any) -> str:
    headers = {"Authorization": f"Bearer {token or server.token}"}
    body = {"sessionID": session_id, "data": ITEMS, **options}
    return str(
        httpx.post(f"{server.url}/api/share", json=body, headers=headers).raise_for_status().json()["id"]
    )


def status(server: RunningServer, share_id: str) -> int:
    """Return what who has only the link gets."""
    return httpx.get(f"{server.url}/api/share/{share_id}").status_code


def test_a_share_is_private_where_the_server_s_default_is(private_server: RunningServer) -> None:
    assert status(private_server, create(private_server, "ses_of_default_0001")) == 401


def test_who_asks_for_a_link_gets_one(private_server: RunningServer) -> None:
    assert status(private_server, create(private_server, "ses_of_default_0002", visibility="link")) == 200


def test_creating_again_changes_no_visibility(private_server: RunningServer) -> None:
    share_id = create(private_server, "ses_of_default_0003", visibility="link")
    assert create(private_server, "ses_of_default_0003") == share_id
    assert status(private_server, share_id) == 200


@pytest.mark.parametrize(("default", "expected"), [("private", 401), ("link", 200), (None, 200)])
async def test_a_key_has_a_default_of_its_own(
    server: RunningServer, default: str | None, expected: int
) -> None:
    options = {"scopes": ["create"], **({"defaultVisibility": default} if default else {})}
    async with ShareClient(server.url, token=server.token) as client:
        made = await client.api.keys().create(f"default-{default}", options)
    assert made.get("defaultVisibility") == default
    share_id = create(server, f"ses_of_key_{default}_1", made["key"])
    assert status(server, share_id) == expected


async def test_a_key_s_default_counts_before_the_server_s(private_server: RunningServer) -> None:
    async with ShareClient(private_server.url, token=private_server.token) as client:
        made = await client.api.keys().create("open", {"defaultVisibility": "link"})
        again = await client.api.keys().rotate(made["id"])
    assert status(private_server, create(private_server, "ses_of_default_0004", again["key"])) == 200


def test_a_server_with_another_default_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match="--default-visibility: must be 'link', 'private' or 'organization'"
    ):
        RunningServer(tmp_path / "data", "--default-visibility=public")
