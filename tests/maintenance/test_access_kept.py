"""Who may read a share, and until when, is kept by what moves it, and looked over by doctor."""

import pytest

from rpcshare.auth.caller import ANONYMOUS, Caller
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.exporting import export_shares
from rpcshare.maintenance.migration import migrate
from rpcshare.maintenance.restoring import restore_shares
from rpcshare.shares import objects
from rpcshare.storage import MemoryStore

OPTIONS = {"visibility": "link", "password": "correct horse", "expiresIn": "1d"}


async def code_of(call):
    with pytest.raises(ShareError) as caught:
        await call
    return caught.value.code


async def restored(store, tmp_path):
    target = MemoryStore()
    await export_shares(store, tmp_path / "backup")
    assert (await restore_shares(target, tmp_path / "backup")).refused == []
    assert (await restore_shares(target, tmp_path / "backup")).unchanged == 1
    return target


async def migrated(store, _tmp_path):
    target = MemoryStore()
    assert (await migrate(store, target)).differing == {}
    return target


@pytest.mark.parametrize("moved", [restored, migrated])
async def test_a_share_that_was_moved_is_as_closed_as_before(new_service, store, alice, moved, tmp_path):
    now = 1_700_000_000_000
    before = new_service(clock=lambda: now)
    share = await before.create(alice, "ses_12345678", [{"type": "part", "data": {"id": "a"}}], OPTIONS)
    settings = await before.update(alice, share.id, None, {"expiresIn": "2d"})
    await before.close()
    target = await moved(store, tmp_path)
    after = new_service(target, clock=lambda: now)
    assert await after.update(alice, share.id, None) == settings
    assert await code_of(after.metadata(ANONYMOUS, share.id)) is ErrorCode.UNAUTHORIZED
    assert (await after.metadata(Caller(None, password="correct horse"), share.id)).part_count == 1
    now += 2 * 86_400_000
    await after.remove_expired()
    assert await code_of(after.metadata(alice, share.id)) is ErrorCode.SHARE_GONE
    assert [key async for key, *_ in target.list("share/")] != []
    assert [key async for key, *_ in target.list("index/")] == []


async def test_doctor_finds_nothing_wrong_with_settings(new_service, store, alice):
    service = new_service()
    share = await service.create(alice, "ses_12345678", None, OPTIONS)
    await service.update(alice, share.id, None, {"visibility": "private", "expiresIn": "2d"})
    await service.close()
    assert (await examine(store, patience=0)).findings == []


async def test_doctor_puts_back_what_an_expiry_is_found_by(new_service, store, alice):
    now = 1_700_000_000_000
    service = new_service(clock=lambda: now)
    share = await service.create(alice, "ses_12345678", None, OPTIONS)
    await service.close()
    key = objects.expiry_key(share.id, now + 86_400_000)
    await store.delete([key])
    (finding,) = (await examine(store, fix=True, patience=0, grace=0)).findings
    assert (finding.place, finding.fixed) == (key, True)
    assert (await examine(store, patience=0)).findings == []
