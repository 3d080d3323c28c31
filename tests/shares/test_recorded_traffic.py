"""What a real opencode sent, replayed: see the note on its client."""

import json

import pytest

from rpcshare.errors import ShareError
from support.plain_merge import PlainShare, assert_same


@pytest.fixture
async def replayed(new_service, alice, recorded_requests):
    """Send every recorded request; return the service, and by share id what it must hold now."""
    service = new_service()
    shares: dict[str, PlainShare] = {}
    secrets: dict[str, str] = {}
    for request in recorded_requests:
        path, body = request["path"].split("/"), request["body"]
        if request["method"] == "DELETE":
            await service.delete(alice, path[3], secrets[path[3]])
            del shares[path[3]]
        elif path[-1] == "sync":
            count = await service.sync(alice, path[3], secrets[path[3]], body["data"])
            shares[path[3]].sync(body["data"])
            assert count == shares[path[3]].sync_count
        else:
            made = await service.create(alice, body["sessionID"])
            secrets[made.id] = made.secret
            shares.setdefault(made.id, PlainShare())
    return service, shares


async def test_shares_are_as_the_plain_merge_has_them(replayed, alice):
    service, shares = replayed
    assert len(shares) == 4
    for share_id, plain in shares.items():
        assert_same(await service.agent_session(alice, share_id), plain)


async def test_they_are_the_same_on_a_fresh_server(replayed, new_service, alice):
    service, shares = replayed
    await service.close()
    fresh = new_service()
    for share_id, plain in shares.items():
        assert_same(await fresh.agent_session(alice, share_id), plain)
        assert json.loads(await fresh.sync_data(alice, share_id)) == plain.sync_data()


async def test_they_are_listed_with_their_titles(replayed, new_service, alice):
    service, shares = replayed
    await service.close()
    page = await new_service().list_own(alice)
    assert {index.id: index.title for index in page.sessions} == {
        share_id: plain.session["title"] for share_id, plain in shares.items()
    }


async def test_the_share_that_was_removed_is_gone(replayed, alice):
    service, _ = replayed
    with pytest.raises(ShareError, match="Share not found"):
        await service.agent_session(alice, "vPeOjhe9")
