"""Entries of the vault in the database of records: what is kept, what a row is good for, the key ring."""

import asyncio
import base64
import zlib
from typing import Any

import pytest
from sqlalchemy import select, text, update

from rpcshare.database.records import vault_entries as entries
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.vault.entry import OwnerKind, VaultOwner
from rpcshare.vault.envelope import VaultIntegrityError
from rpcshare.vault.vault import Vault

ALICE, BOB = VaultOwner(OwnerKind.USER, "usr_alice"), VaultOwner(OwnerKind.USER, "usr_bob")
VALUE = "sk-example-0123456789-ÄÖÜ-" + "x" * 40


def key(**fields: Any) -> dict[str, Any]:
    return {"service": "openai", "name": "work", "value": VALUE, **fields}


async def change(records, entry_id, **values):
    statement = update(entries).where(entries.c.id == entry_id).values(values)
    await records.write(lambda connection: connection.execute(statement))


async def row(records, entry_id):
    query = select(entries).where(entries.c.id == entry_id)
    return await records.read(lambda connection: connection.execute(query).one()._asdict())


async def test_what_was_stored_can_be_retrieved(vault):
    stored = await vault.store(ALICE, key(scopes=["read"]))
    entry, value = await vault.retrieve([ALICE], stored.id)
    assert (value, entry.service, entry.name, entry.scopes) == (VALUE, "openai", "work", ["read"])


async def test_the_list_has_no_values(vault):
    await vault.store(ALICE, key())
    [entry] = await vault.list([ALICE])
    assert VALUE not in repr(entry)
    assert VALUE not in repr(entry.described())


async def test_the_entries_of_others_are_as_if_they_were_not_there(vault):
    stored = await vault.store(ALICE, key())
    assert await vault.list([BOB]) == []
    for attempt in (vault.retrieve([BOB], stored.id), vault.rotate([BOB], stored.id, "x")):
        with pytest.raises(ShareError, match="there is no such entry"):
            await attempt
    with pytest.raises(ShareError, match="there is no such entry"):
        await vault.revoke([BOB], stored.id)
    assert (await vault.retrieve([ALICE], stored.id))[1] == VALUE


async def test_names_of_owners_of_different_kinds_are_different_owners(vault):
    stored = await vault.store(VaultOwner(OwnerKind.SUBJECT, "usr_alice"), key())
    with pytest.raises(ShareError):
        await vault.retrieve([ALICE], stored.id)


async def test_an_owner_may_have_any_name(vault):
    owner = VaultOwner(OwnerKind.SUBJECT, "jwt\0https://id.example\0Zoë %00")
    stored = await vault.store(owner, key())
    assert (await vault.retrieve([owner], stored.id))[1] == VALUE


async def test_a_second_key_of_a_name_is_refused_and_the_first_stays(vault):
    stored = await vault.store(ALICE, key())
    with pytest.raises(ShareError, match="rotate or revoke"):
        await vault.store(ALICE, key(value="another"))
    assert (await vault.retrieve([ALICE], stored.id))[1] == VALUE


async def test_of_two_keys_of_a_name_that_are_stored_at_once_one_is_refused(vault):
    results = await asyncio.gather(*(vault.store(ALICE, key()) for _ in range(4)), return_exceptions=True)
    assert [type(each) for each in results].count(ShareError) == 3
    assert len(await vault.list([ALICE])) == 1


async def test_a_rotated_value_takes_the_place_of_the_one_before(vault, records):
    stored = await vault.store(ALICE, key())
    before = await row(records, stored.id)
    rotated = await vault.rotate([ALICE], stored.id, "another value")
    assert (await vault.retrieve([ALICE], stored.id))[1] == "another value"
    assert rotated.rotated_at is not None
    after = await row(records, stored.id)
    assert after["wrapped_key"] != before["wrapped_key"]


async def test_what_is_revoked_has_no_row(vault, records):
    stored = await vault.store(ALICE, key())
    await vault.revoke([ALICE], stored.id)
    assert await vault.list([ALICE]) == []
    count = text("SELECT count(*) FROM vault_entries")
    assert await records.read(lambda connection: connection.execute(count).scalar()) == 0


async def test_what_has_expired_is_used_no_longer(records, ring):
    now = 1000.0
    vault = Vault(records, ring, clock=lambda: now)
    stored = await vault.store(ALICE, key(expiresAt=1_001_000))
    assert await vault.use([ALICE], "openai", "workspace:w") is not None
    now = 1001.0
    assert await vault.use([ALICE], "openai", "workspace:w") is None
    with pytest.raises(ShareError, match="expired"):
        await vault.retrieve([ALICE], stored.id)


async def test_a_grant_names_who_may_use_it(vault):
    await vault.store(ALICE, key(grants=["workspace:one"]))
    found = await vault.use([ALICE], "openai", "workspace:one")
    assert found is not None
    assert found[1] == VALUE
    assert await vault.use([ALICE], "openai", "workspace:two") is None
    assert await vault.use([ALICE], "anthropic", "workspace:one") is None
    assert await vault.use([BOB], "openai", "workspace:one") is None


async def test_one_s_own_key_is_used_before_the_organization_s(vault):
    acme = VaultOwner(OwnerKind.ORGANIZATION, "acme")
    await vault.store(acme, key(value="of all"))
    await vault.store(ALICE, key(value="of alice"))
    found = await vault.use([ALICE, acme], "openai", "workspace:w")
    assert found is not None
    assert found[1] == "of alice"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (None, "expected"),
        ({"service": "openai", "name": "n"}, "value"),
        (key(value=5), "value"),
        (key(value=""), "value"),
        (key(value="\ud800"), "value"),
        (key(service="open ai"), "service"),
        (key(service=""), "service"),
        (key(name=""), "name"),
        (key(name=" n"), "name"),
        (key(name="n\n"), "name"),
        (key(name="n" * 201), "name"),
        (key(scopes="read"), "scopes"),
        (key(scopes=["x"] * 101), "scopes"),
        (key(grants=["everything"]), "grants"),
        (key(expiresAt=1), "expiresAt"),
        (key(expiresAt="tomorrow"), "expiresAt"),
        (key(expiresAt=2**53), "expiresAt"),
        (key(expires=5), "expires"),
        (key(owner="everybody"), "owner"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name_and_never_quoted(vault, given, named):
    with pytest.raises(ShareError, match=named) as caught:
        await vault.store(ALICE, given)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert VALUE not in caught.value.message
    assert await vault.list([ALICE]) == []


async def test_a_value_may_be_64_kib_and_not_more(vault):
    stored = await vault.store(ALICE, key(value="v" * 65_536))
    with pytest.raises(ShareError) as caught:
        await vault.rotate([ALICE], stored.id, "v" * 65_537)
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE


async def test_nothing_of_a_value_is_in_the_database(vault, records, tmp_path):
    stored = await vault.store(ALICE, key())
    dumped = repr(await row(records, stored.id)).encode()
    dumped += b"".join(file.read_bytes() for file in tmp_path.iterdir())
    raw = VALUE.encode()
    hidden = (raw, base64.b64encode(raw)[:32], raw.hex().encode(), zlib.compress(raw)[2:20], raw[:12])
    assert [form for form in hidden if form in dumped] == []


COLUMNS = ("value", "wrapped_key", "key_id")


async def test_two_rows_cannot_be_swapped(vault, records):
    one, two = await vault.store(ALICE, key()), await vault.store(BOB, key(value="of bob"))
    taken = await row(records, two.id)
    await change(records, one.id, **{name: taken[name] for name in COLUMNS})
    with pytest.raises(VaultIntegrityError, match=one.id):
        await vault.retrieve([ALICE], one.id)


@pytest.mark.parametrize(
    "fields",
    [
        {"owner": "user:usr_bob"},
        {"name": "play"},
        {"service": "other"},
        {"expires_at": None},
        {"grants": None},
        {"grants": '["workspace:other"]'},
        {"scopes": "{"},
        {"created_at": -1, "version": 2},
    ],
)
async def test_a_row_cannot_be_given_to_another_or_made_to_last_longer(vault, records, fields):
    stored = await vault.store(ALICE, key(expiresAt=2**52, grants=["workspace:one"]))
    await change(records, stored.id, **fields)
    with pytest.raises(VaultIntegrityError):
        await vault.retrieve([ALICE, BOB], stored.id)


async def test_one_damaged_row_takes_no_other_out_of_the_list(vault, records):
    stored = [await vault.store(ALICE, key(name=str(n))) for n in range(3)]
    await change(records, stored[1].id, scopes="{")
    assert [entry.id for entry in await vault.list([ALICE])] == [stored[0].id, stored[2].id]


async def test_a_replaced_value_cannot_come_back_beside_the_newer_row(vault, records):
    stored = await vault.store(ALICE, key())
    before = await row(records, stored.id)
    await vault.rotate([ALICE], stored.id, "newer")
    await change(records, stored.id, **{name: before[name] for name in COLUMNS})
    with pytest.raises(VaultIntegrityError):
        await vault.retrieve([ALICE], stored.id)


@pytest.mark.parametrize("column", ["value", "wrapped_key"])
@pytest.mark.parametrize("kept", [0, 5, 12, -1])
async def test_a_truncated_row_is_refused(vault, records, column, kept):
    stored = await vault.store(ALICE, key())
    whole = (await row(records, stored.id))[column]
    await change(records, stored.id, **{column: whole[:kept]})
    with pytest.raises(VaultIntegrityError, match="changed"):
        await vault.retrieve([ALICE], stored.id)
    assert len(await vault.check()) == 1


async def test_without_its_key_a_row_says_which_one_is_missing(vault, records):
    stored = await vault.store(ALICE, key())
    other = Vault(records, KeyRing([EncryptionKey(b"k" * 32, "third")]))
    with pytest.raises(VaultIntegrityError, match="'old'"):
        await other.retrieve([ALICE], stored.id)
    assert (await vault.retrieve([ALICE], stored.id))[1] == VALUE


async def test_a_new_key_of_the_ring_wraps_all_without_touching_values(vault, records, next_ring):
    stored = [await vault.store(ALICE, key(name=f"key {n}", value=f"value {n}")) for n in range(3)]
    before = [(await row(records, entry.id))["value"] for entry in stored]
    done, faults = await Vault(records, next_ring).rewrap()
    assert (done, list(faults)) == (3, [])
    assert [(await row(records, entry.id))["value"] for entry in stored] == before
    newest = Vault(records, KeyRing(next_ring.keys[:1]))
    assert [(await newest.retrieve([ALICE], entry.id))[1] for entry in stored] == [
        "value 0",
        "value 1",
        "value 2",
    ]


async def test_rewrapping_goes_on_past_a_row_that_was_changed(vault, records, next_ring):
    stored = [await vault.store(ALICE, key(name=str(n))) for n in range(3)]
    await change(records, stored[1].id, wrapped_key=b"nonsense")
    done, [fault] = await Vault(records, next_ring).rewrap()
    assert done == 2
    assert stored[1].id in fault


async def test_rewrapping_under_load_loses_nothing(vault, records, next_ring):
    """Values are rotated, stored and revoked by servers with the old ring and the new one meanwhile."""
    newer = Vault(records, next_ring)
    stored = [await vault.store(ALICE, key(name=str(n), value="0")) for n in range(30)]
    newest = dict.fromkeys((entry.id for entry in stored), "0")

    async def rotate(used: Vault, chosen: list[Any]) -> None:
        for number in range(1, 6):
            for entry in chosen:
                await used.rotate([ALICE], entry.id, str(number))
                newest[entry.id] = str(number)

    async def wrap() -> None:
        for _ in range(5):
            _, faults = await newer.rewrap()
            assert list(faults) == []

    await asyncio.gather(rotate(newer, stored[:10]), rotate(newer, stored[10:20]), wrap(), wrap())
    await newer.rewrap()
    only_new = Vault(records, KeyRing(next_ring.keys[:1]))
    for entry in stored:
        assert (await only_new.retrieve([ALICE], entry.id))[1] == newest[entry.id]
