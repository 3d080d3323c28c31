import itertools
import uuid

import pytest

from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.shares import Credentials, ShareService
from rpcshare.storage import MemoryStore


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
async def new_service(store):
    """Return a function that makes a service, on the common store unless told otherwise."""
    ticks = itertools.count(1_700_000_000_000)
    credentials = Credentials(uuid.UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8"), "https://share.example")
    made = []

    def make(on=None, **options):
        options.setdefault("clock", lambda: next(ticks))
        service = ShareService(on or store, LocalBroadcaster(), credentials, **options)
        made.append(service)
        return service

    yield make
    for service in made:
        await service.close()


@pytest.fixture
def service(new_service):
    return new_service()
