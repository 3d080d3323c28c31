"""Pages of which more are asked for than can be drawn."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette

from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.config import Settings
from rpcshare.server.app import create_app
from rpcshare.server.web.render_queue import MAX_WAITING, MAX_WAITING_OF_ONE, DrawingQueue
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore

OWNER = Caller("alice", frozenset({Scope.CREATE}))
VISITOR, OTHER = "192.0.2.1", "192.0.2.2"


@pytest.fixture
async def service() -> AsyncIterator[ShareService]:
    credentials = Credentials(UUID(int=7), "http://share.example")
    service = ShareService(MemoryStore(), LocalBroadcaster(), credentials)
    yield service
    await service.close()


@pytest.fixture
async def page(service: ShareService) -> str:
    return f"/share/{(await service.create(OWNER, 'ses_busy_pages_01')).id}"


@pytest.fixture
async def app(service: ShareService) -> AsyncIterator[Starlette]:
    app, connections = create_app(Settings(), service, Authenticator([]), "http://share.example")
    yield app
    await connections.close()


@asynccontextmanager
async def waiting(app: Starlette, *addresses: str) -> AsyncIterator[None]:
    """Have a drawing wait for a visitor at each address, until the context ends."""
    drawings: DrawingQueue = app.state.pages.drawings
    end = threading.Event()
    tasks = [asyncio.create_task(drawings.draw(address, end.wait)) for address in addresses]
    try:
        await asyncio.sleep(0)  # each takes its place in its first step
        yield
    finally:
        end.set()
        await asyncio.gather(*tasks)


def browser(app: Starlette, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://share.example")


@pytest.mark.parametrize("path", ["{page}", "{page}/part/none", "/sessions", "/share/nothing1", "/nothing"])
async def test_who_asks_for_too_many_pages_at_once_is_told_when_to_come_again(
    app: Starlette, page: str, path: str
) -> None:
    async with browser(app, VISITOR) as client:
        async with waiting(app, *[VISITOR] * MAX_WAITING_OF_ONE):
            answer = await client.get(path.format(page=page), headers={"Accept": "text/html"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert answer.headers["cache-control"] == "no-store"
        assert (await client.get(page)).status_code == 200


async def test_others_are_drawn_pages_meanwhile(app: Starlette, page: str) -> None:
    async with browser(app, OTHER) as client:
        async with waiting(app, *[VISITOR] * MAX_WAITING_OF_ONE):
            asked = asyncio.create_task(client.get(page))
            while len(app.state.pages.drawings) == MAX_WAITING_OF_ONE and not asked.done():  # noqa: ASYNC110 -- there is no event
                await asyncio.sleep(0)
            assert not asked.done()
        assert (await asked).status_code == 200


async def test_there_is_a_bound_for_all_together(app: Starlette, page: str) -> None:
    async with browser(app, OTHER) as client:
        async with waiting(app, *(f"198.51.100.{number}" for number in range(MAX_WAITING))):
            assert (await client.get(page)).status_code == 503
        assert (await client.get(page)).status_code == 200


async def test_a_live_page_that_cannot_be_drawn_now_ends_so_that_its_browser_comes_back(
    app: Starlette, service: ShareService, page: str
) -> None:
    share_id = page.rpartition("/")[2]
    await service.sync(OWNER, share_id, None, [{"type": "part", "data": {"id": "prt_1"}}])
    async with browser(app, VISITOR) as client, waiting(app, *[VISITOR] * MAX_WAITING_OF_ONE):
        answer = await client.get(f"{page}/live?after=0")
    assert answer.text == "retry: 1500\n\n"
