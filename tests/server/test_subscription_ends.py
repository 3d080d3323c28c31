"""Subscriptions that are given up before their first event leave nothing behind on the server."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

import rpcshare
from rpcshare.auth.admin_token import ADMIN, AdminTokenVerifier
from rpcshare.auth.authenticator import Authenticator
from rpcshare.auth.caller import Caller
from rpcshare.broadcast.local import LocalBroadcaster
from rpcshare.rpc import Connection, RpcTarget
from rpcshare.rpc.transport import memory_pair
from rpcshare.server.share_rpc import ShareRpc
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.shares.subscriptions import Subscription
from rpcshare.storage.memory import MemoryStore
from support.running_server import RunningServer

SHARE_ID = "00000001"


class ObservedService(ShareService):
    """Tells of the subscriptions that it has given out, and can be made slow to give one."""

    def __init__(self) -> None:
        credentials = Credentials(UUID(int=7), "http://share.example")
        super().__init__(MemoryStore(), LocalBroadcaster(), credentials)
        self.given: list[Subscription] = []
        self.may_give = asyncio.Event()
        self.may_give.set()
        self.asked = asyncio.Event()

    async def subscribe(
        self, caller: Caller, share_id: object, from_sync_count: object = None
    ) -> Subscription:
        self.asked.set()
        await self.may_give.wait()
        self.given.append(await super().subscribe(caller, share_id, from_sync_count))
        return self.given[-1]


@pytest.fixture
async def service() -> AsyncIterator[ObservedService]:
    service = ObservedService()
    await service.create(ADMIN, "ses_subscription_00000001")
    yield service
    await service.close()


def connected(service: ShareService) -> tuple[Connection, Connection]:
    """Return the server's side of a connection, to be run, and the client's."""
    one, other = memory_pair()
    api: RpcTarget = ShareRpc(service, Authenticator([AdminTokenVerifier("token")]), ADMIN)
    return Connection(one, api), Connection(other)


async def ended(subscription: Subscription) -> bool:
    """Whether what consumed ``subscription`` has let go of it."""
    async with asyncio.timeout(2):
        return [event async for event in subscription] == []


async def test_one_disposed_of_before_it_was_answered_ends(service: ObservedService) -> None:
    server, client = connected(service)
    running = asyncio.create_task(server.run())
    async with client:
        client.remote_main.subscribe(SHARE_ID, print, 0).dispose()
        await service.asked.wait()
        await client.remote_main.whoami()
        assert await ended(service.given[0])
    await running


async def test_one_unsubscribed_in_the_same_round_trip_ends(service: ObservedService) -> None:
    server, client = connected(service)
    running = asyncio.create_task(server.run())
    async with client:
        await client.remote_main.subscribe(SHARE_ID, print, 0).unsubscribe()
        assert await ended(service.given[0])
    await running


async def test_one_whose_connection_was_lost_before_it_began_ends(service: ObservedService) -> None:
    server, client = connected(service)
    running = asyncio.create_task(server.run())
    service.may_give.clear()
    async with client:
        subscribing = client.remote_main.subscribe(SHARE_ID, print, 0)
        await service.asked.wait()
    service.may_give.set()
    await running
    subscribing.dispose()
    assert await ended(service.given[0])


async def test_a_watch_that_cannot_begin_is_refused_by_the_call(server: RunningServer) -> None:
    async with rpcshare.connect(server.url, token=server.token) as api:
        share = await api.createShare("ses_watch_refused_01")
        for arguments, code in [
            ((share["id"], -1), "INVALID_ARGUMENT"),
            (("nowhere0",), "SHARE_NOT_FOUND"),
        ]:
            with pytest.raises(rpcshare.RpcError) as refused:
                await api.watch(*arguments)
            assert refused.value.code == code
