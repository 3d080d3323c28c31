"""A share service in this process, and who asks it: fixtures that a folder's conftest.py imports."""

import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rpcshare.auth.caller import ANONYMOUS, Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.shares import Credentials, ShareService
from rpcshare.shares.open_share import OpenShare
from rpcshare.storage import MemoryStore

__all__ = [
    "admin",
    "alice",
    "anonymous",
    "bob",
    "broadcaster",
    "credentials",
    "has_deleted",
    "new_service",
    "service",
    "shared_secret",
    "store",
    "using",
]


def has_deleted(service: ShareService) -> bool:
    """Whether nothing is left of what a service deletes later."""
    deletes = service._shares._delayed_deletes
    return not (deletes._waiting or deletes._running)


@asynccontextmanager
async def using(service: ShareService, share_id: str) -> AsyncIterator[OpenShare]:
    """Open a share, whatever is asked of it, and keep it open meanwhile."""
    share = await service.open_shares.take(share_id)
    try:
        yield share
    finally:
        service.open_shares.let_go(share_id)


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def alice():
    return Caller("alice", frozenset({Scope.CREATE}))


@pytest.fixture
def bob():
    return Caller("bob", frozenset({Scope.CREATE}))


@pytest.fixture
def admin():
    return Caller("admin", frozenset({Scope.ADMIN}))


@pytest.fixture
def anonymous():
    return ANONYMOUS


@pytest.fixture
def shared_secret():
    return uuid.UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8")


@pytest.fixture
def credentials(shared_secret):
    return Credentials(shared_secret, "https://share.example")


@pytest.fixture
def broadcaster():
    return LocalBroadcaster()


@pytest.fixture
async def new_service(store, broadcaster, credentials):
    """Return a function that makes a service, on the common store unless told otherwise."""
    ticks = itertools.count(1_700_000_000_000)
    made = []

    def make(on=None, hearing=None, **options):
        options.setdefault("clock", lambda: next(ticks))
        service = ShareService(on or store, hearing or broadcaster, credentials, **options)
        made.append(service)
        return service

    yield make
    for service in made:
        await service.close()


@pytest.fixture
def service(new_service):
    return new_service()
