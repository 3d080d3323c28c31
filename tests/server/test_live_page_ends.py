"""What live pages hold, and that they let go of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette

from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.rate_limits import CallerLimits
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.server.app import create_app
from rpcshare.shares.outline import Transcript
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore
from support.asgi import http_scope

OWNER = Caller("alice", frozenset({Scope.CREATE}))


@pytest.fixture
async def service() -> AsyncIterator[ShareService]:
    service = ShareService(
        MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://share.example")
    )
    yield service
    await service.close()


@pytest.fixture
async def path(service: ShareService) -> str:
    return f"/share/{(await service.create(OWNER, 'ses_live_pages_01')).id}/live"


@pytest.fixture
def limits() -> CallerLimits:
    return CallerLimits(connections=1)


@pytest.fixture
async def app(service: ShareService, limits: CallerLimits) -> AsyncIterator[Starlette]:
    app, connections = create_app(
        Settings(), service, Authenticator([]), "http://share.example", caller_limits=limits
    )
    yield app
    await connections.close()


async def leaves_at_once(app: Starlette, path: str) -> None:
    """Ask for ``path``, and be gone before the answer begins."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        """Take nothing."""
        await asyncio.Event().wait()

    await app(http_scope("GET", path), receive, send)


async def test_a_browser_that_leaves_before_its_live_page_begins_leaves_nothing(
    app: Starlette, service: ShareService, path: str
) -> None:
    await leaves_at_once(app, path)
    assert list(service.open_shares.watched()) == []


async def test_head_of_a_live_page_ends(app: Starlette, service: ShareService, path: str) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://share.example"
    ) as client:
        answer = await client.head(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert list(service.open_shares.watched()) == []


async def test_live_pages_count_among_the_connections_of_a_caller(
    app: Starlette, limits: CallerLimits, path: str
) -> None:
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://share.example") as client:
        with limits.connections.hold(Caller(None, address="192.0.2.1")):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
        assert (await client.head(path)).status_code == 200


async def test_a_share_that_is_deleted_while_its_page_is_drawn_is_told_as_deleted(
    app: Starlette, service: ShareService, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript = service.transcript

    async def deleted_before(caller: Caller, share_id: str) -> Transcript:
        await service.delete(OWNER, share_id, None)
        return await transcript(caller, share_id)

    monkeypatch.setattr(service, "transcript", deleted_before)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://share.example") as client:
        answer = await client.get(path)
    assert answer.text.endswith('event: ended\ndata: {"reason":"deleted"}\n\n')
