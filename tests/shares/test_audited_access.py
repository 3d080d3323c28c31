"""The audit log tells of changes of access settings, and of nothing else as one."""

from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from rpcshare.auth.caller import Caller, Scope
from rpcshare.broadcast import LocalBroadcaster
from rpcshare.errors import ShareError
from rpcshare.shares.service import ShareService
from rpcshare.shares.share_identity import Credentials
from rpcshare.storage import MemoryStore

ANN = Caller("ann", scopes=frozenset({Scope.CREATE}))


@pytest.fixture
async def service() -> AsyncIterator[ShareService]:
    service = ShareService(MemoryStore(), LocalBroadcaster(), Credentials(UUID(int=7), "http://s.example"))
    yield service
    await service.close()


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with capture_logs() as lines:
        yield lines


def told(log: list[Any]) -> list[tuple[str, str]]:
    return [(line["action"], line["outcome"]) for line in log if line["event"] == "audit"]


@pytest.mark.parametrize("options", [None, {}, {"visibility": "link"}, {"password": None}])
async def test_looking_at_settings_or_changing_nothing_is_no_update(
    service: ShareService, log: list[Any], options: object
) -> None:
    share = await service.create(ANN, "ses_of_the_audit_log_1")
    await service.update(ANN, share.id, share.secret, options)
    assert told(log) == [("share.create", "ok")]


async def test_a_change_is_an_update(service: ShareService, log: list[Any]) -> None:
    share = await service.create(ANN, "ses_of_the_audit_log_1")
    await service.update(ANN, share.id, share.secret, {"visibility": "private"})
    await service.create(ANN, "ses_of_the_audit_log_1", options={"visibility": "link"})
    assert [each for each in told(log) if each[0] == "share.update"] == [("share.update", "ok")] * 2


async def test_looking_without_a_right_to_is_a_refused_read(service: ShareService, log: list[Any]) -> None:
    share = await service.create(ANN, "ses_of_the_audit_log_1")
    for options, action in [(None, "share.read"), ({"visibility": "private"}, "share.update")]:
        with pytest.raises(ShareError):
            await service.update(Caller("bob"), share.id, None, options)
        assert told(log)[-1] == (action, "refused")
