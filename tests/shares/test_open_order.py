"""Syncs that arrive while a share is being opened take effect in their order."""

import asyncio
import json
from uuid import uuid4

from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from support.share_stores import WrappedStore


class DistantStore(WrappedStore):
    """A store whose every answer takes a few turns of the loop."""

    async def call(self, name, arguments, run):
        for _ in range(5):
            await asyncio.sleep(0)
        return await run()


OWNER = Caller("owner", frozenset({Scope.CREATE}))


def service_on(store: DistantStore) -> ShareService:
    return ShareService(store, LocalBroadcaster(), Credentials(uuid4(), "http://localhost"))


async def test_no_sync_overtakes_another_on_a_share_that_is_not_open_yet() -> None:
    store = DistantStore()
    first = service_on(store)
    share = await first.create(OWNER, "ses_order_0000000001")
    await first.close()
    service = service_on(store)

    async def sync(number: int) -> int:
        for _ in range(number):
            await asyncio.sleep(0)  # each arrives one turn of the loop behind the one before
        part = {"type": "part", "data": {"id": "prt_1", "number": number}}
        return await service.sync(OWNER, share.id, None, [part])

    counts = await asyncio.gather(*(sync(number) for number in range(24)))
    assert counts == list(range(1, 25))
    (part,) = json.loads(await service.agent_session(OWNER, share.id))["parts"]
    assert part["number"] == 23
    await service.close()


async def test_who_gives_up_waiting_does_not_stop_the_others() -> None:
    store = DistantStore()
    first = service_on(store)
    share = await first.create(OWNER, "ses_order_0000000002")
    await first.close()
    service = service_on(store)
    callers = [asyncio.create_task(service.metadata(OWNER, share.id)) for _ in range(5)]
    await asyncio.sleep(0)
    callers[0].cancel()
    callers[2].cancel()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(o, asyncio.CancelledError) for o in outcomes] == [True, False, True, False, False]
    await service.close()
