"""The same on a bucket: a real server's where there is one, else moto's."""

import os

import pytest

from rpcshare import jsontext
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.exporting import export_shares
from rpcshare.maintenance.importing import import_bucket
from rpcshare.maintenance.migration import migrate
from rpcshare.maintenance.restoring import restore_shares
from rpcshare.storage import MemoryStore
from rpcshare.storage.s3 import S3Store
from support.older_shares import SECRET, older_share, put_older
from support.s3_server import ENDPOINT_VARIABLE, moto_server, real_server

PART = {"type": "part", "data": {"id": "prt_2", "text": "x" * 2000}}


@pytest.fixture(scope="module")
def server():
    with real_server() if os.environ.get(ENDPOINT_VARIABLE) else moto_server() as server:
        yield server


@pytest.fixture
async def bucket(server):
    store = await S3Store.open(server.location())
    yield store
    await store.close()


async def everything(store):
    return {found.key: found.body async for found in store.scan("")}


async def test_an_older_share_is_upgraded_by_its_first_write(bucket, new_service, bob):
    await put_older(bucket)
    service = new_service(bucket)
    assert await service.sync(bob, "12345678", SECRET, [PART]) == 8
    await service.close()
    assert (await examine(bucket, patience=0.0)).findings == []
    merged = jsontext.decode(await new_service(bucket).agent_session(bob, "12345678"))
    assert [part["id"] for part in merged["parts"]] == ["prt_1", "prt_2"]
    assert merged["messages"] == older_share()["messages"]


async def test_an_older_bucket_is_upgraded_in_place(bucket, new_service, bob):
    for share_id in ("00000000", "11111111"):
        await put_older(bucket, share_id)
    imported = await import_bucket(bucket, bucket)
    assert (imported.imported, imported.skipped) == (2, [])
    assert (await examine(bucket, patience=0.0)).findings == []
    service = new_service(bucket)
    assert await service.sync(bob, "11111111", SECRET, []) == 8
    await service.delete(bob, "00000000", SECRET)


async def test_a_store_moves_to_a_bucket_and_back(bucket, store, service, alice):
    made = await service.create(alice, "ses_12345678", [PART])
    await put_older(store, "older678")
    await service.sync(alice, made.id, None, [PART])
    await service.close()
    assert (await migrate(store, bucket)).differing == {}
    assert (await migrate(store, bucket)).copied == 0
    back = MemoryStore()
    assert (await migrate(bucket, back)).differing == {}
    assert await everything(back) == await everything(store)


async def test_a_backup_of_a_bucket_brings_it_back(bucket, server, new_service, alice, tmp_path):
    service = new_service(bucket)
    made = await service.create(alice, "ses_12345678", [PART])
    await service.close()
    await export_shares(bucket, tmp_path / "backup")
    other = await S3Store.open(server.location())
    assert (await restore_shares(other, tmp_path / "backup")).restored == 1
    restored = new_service(other)
    assert await restored.agent_session(alice, made.id) == await new_service(bucket).agent_session(
        alice, made.id
    )
    await restored.close()
    await other.close()
