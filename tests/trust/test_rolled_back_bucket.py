"""Somebody puts older objects back into the bucket of a real server, and takes newer ones away."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rpcshare.storage import open_store
from support.running_server import RunningServer
from support.s3_server import ENDPOINT_VARIABLE, S3Server, moto_server, real_server
from trust.copied_sites import CLOSED, Ended, Site, strangers_see

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A real server where there is one, else moto's."""
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as server:
        yield server


@pytest.fixture
def site(s3: S3Server, tmp_path: Path) -> Site:
    at = s3.location()
    url = f"s3://{at.bucket}/{at.prefix}?endpoint_url={at.endpoint_url}&region=us-east-1"
    return Site(tmp_path, "bucket", url, keeps_data=True)


async def contents(site: Site) -> dict[str, bytes]:
    store = await open_store(site.store)
    try:
        return {found.key: found.body async for found in store.scan("")}
    finally:
        await store.close()


async def put_back(site: Site, old: dict[str, bytes], *prefixes: str) -> None:
    """Have the bucket as it was, where keys begin with one of ``prefixes``."""
    new = await contents(site)
    store = await open_store(site.store)
    try:
        await store.delete([key for key in new if key not in old and key.startswith(prefixes)])
        for key, body in old.items():
            if key.startswith(prefixes) and new.get(key) != body:
                await store.put(key, body)
    finally:
        await store.close()


@pytest.mark.parametrize(
    "prefixes",
    [
        pytest.param(("",), id="all"),
        pytest.param(("share/", "auth/"), id="shares and credentials", marks=pytest.mark.rare),
        pytest.param(("auth/revoked/", "session/"), id="revocations and sessions", marks=pytest.mark.rare),
    ],
)
async def test_what_a_server_has_seen_ended_stays_ended(site: Site, prefixes: tuple[str, ...]) -> None:
    ended = Ended.made_in(site)
    old = await contents(site)
    ended.end_in(site)
    assert strangers_see(site, ended) == CLOSED
    await put_back(site, old, *prefixes)
    assert strangers_see(site, ended) == CLOSED


async def test_another_caller_does_not_get_a_secret_because_an_object_is_gone(site: Site) -> None:
    ended = Ended.made_in(site)
    key = site.run("keys", "create", "mallory").split()[0]
    owners = {"Authorization": f"Bearer {ended.credentials['rotated key']}"}
    others = {"Authorization": f"Bearer {key}"}
    with site.serve() as server:
        made = await created(server, owners)
        server.stop()
    await put_back(site, {}, "session/")
    with site.serve() as server:
        stolen, again = await created(server, others), await created(server, owners)
    assert stolen["secret"] != made["secret"]
    assert (again["id"], again["secret"]) == (made["id"], made["secret"])


async def created(server: RunningServer, headers: dict[str, str]) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
        answer = await client.post("/api/share", json={"sessionID": "ses_rolled_back_01"})
    made: dict[str, str] = answer.raise_for_status().json()
    return made
