"""Shares that nobody uses any more give their memory back, and are read again when somebody does."""

import asyncio

import pytest

from rpcshare.shares import share_cache

LARGE = [{"type": "part", "data": {"id": "p", "text": "x" * 40_000}}]


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(share_cache, "IDLE_AFTER", 0.01)
    monkeypatch.setattr(share_cache.ShareCache.__init__, "__defaults__", (50_000,))


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.01)


async def test_what_is_idle_is_let_go_of_beyond_its_budget(at_once, new_service, alice):
    service = new_service()
    made = [await service.create(alice, f"ses_{number}_idle", LARGE) for number in range(5)]
    await until(lambda: service.open_shares.footprint <= 50_000)
    assert len(service.open_shares) <= 1
    session = await service.agent_session(alice, made[0].id)
    assert b"x" * 40_000 in session


async def test_what_is_watched_stays(at_once, new_service, alice):
    service = new_service()
    share = (await service.create(alice, "ses_watched", LARGE)).id
    async with await service.subscribe(alice, share):
        await service.create(alice, "ses_other", LARGE)
        await until(lambda: len(service.open_shares) == 1)
        await asyncio.sleep(0.05)
        assert [log.share_id for log in service.open_shares.watched()] == [share]
