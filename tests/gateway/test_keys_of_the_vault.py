"""The key of whoever runs the agent: which one is used, who is told of it, and until when."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway.gateway_fixtures import KEY, OWNER, Gateway, tables
from gateway.scripted_provider import Asked, ScriptedProvider, chunk, json_answer
from rpcshare.auth.caller import Caller, CallerUser, Role
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.database import DatabaseError, parse_location
from rpcshare.database.engine import Database
from rpcshare.database.schema_version import RECORDS
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.gateway import gateway as gateway_module
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.vault.entry import VaultOwner, organization_of, owner_of
from rpcshare.vault.vault import Vault
from support.waiting import eventually

WHOLE = {"choices": [{"message": {"content": "Hi"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    location = parse_location(f"sqlite:///{tmp_path}/records.sqlite3")
    records = await Database.open(location, schema=RECORDS)
    yield Vault(records, KeyRing([EncryptionKey(bytes(32), "one")]))
    await records.close()


@pytest.fixture
async def gateway(provider: ScriptedProvider, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A gateway whose table ``mine`` has no key of its own."""

    async def opened() -> Vault:
        return vault

    monkeypatch.setattr(gateway_module, "LOOK_EVERY", 0.1)
    provider.answers(json_answer(WHOLE))
    catalogue = tables(provider.url, mine={})
    async with Gateway(provider, tmp_path, monkeypatch, catalogue=catalogue, open_vault=opened) as gateway:
        yield gateway


async def ask(gateway: Gateway, **more: object):
    body = {"model": "large", "messages": [], **more}
    return await gateway.client.post(
        "/mine/v1/chat/completions", json=body, headers={"x-session-id": "ses_1"}
    )


def owner(caller: Caller) -> VaultOwner:
    found = owner_of(caller)
    assert found is not None
    return found


async def keep(vault: Vault, value: str, whose: VaultOwner | None = None, **more: Any) -> str:
    given = {"service": "mine", "name": repr(value), "value": value, **more}
    return (await vault.store(whose or owner(OWNER), given)).id


def used(provider: ScriptedProvider) -> str:
    return provider.asked[-1].headers["authorization"].removeprefix("Bearer ")


async def test_the_newest_key_of_the_service_that_is_called_as_the_table_is_used(gateway, vault, provider):
    await keep(vault, "sk-older")
    await keep(vault, "sk-mine")
    await keep(vault, "sk-other-service", service="acme")
    await keep(vault, "sk-of-others", VaultOwner(owner(OWNER).kind, "key:bob"))
    assert (await ask(gateway)).json() == WHOLE
    assert used(provider) == "sk-mine"


async def test_without_one_it_is_said_what_to_do(gateway, provider):
    response = await ask(gateway)
    assert response.status_code == 401
    message = "there is no key for mine: keep one in the vault, for the service mine"
    assert response.json()["error"]["message"] == message
    assert provider.asked == []
    assert (await gateway.sessions.usage()).tokens == 0


async def test_a_key_with_grants_is_used_for_what_they_name(gateway, vault, provider):
    await keep(vault, "sk-elsewhere", grants=["workspace:ws_2", "integration:ws_1"])
    assert (await ask(gateway)).status_code == 401
    await keep(vault, "sk-by-id", grants=["workspace:ws_1"])
    await ask(gateway)
    assert used(provider) == "sk-by-id"
    await keep(vault, "sk-by-name", grants=["workspace:site"])
    await ask(gateway)
    assert used(provider) == "sk-by-name"


async def test_the_own_key_comes_before_that_of_the_organization(gateway, vault, provider):
    user = CallerUser("usr_ada", "acme", Role.MEMBER)
    caller = Caller(subject="usr_ada", scopes=Role.MEMBER.scopes, user=user, source="user")
    gateway.sessions.caller = caller
    organization = organization_of(caller)
    assert organization is not None
    await keep(vault, "sk-by-name", organization, grants=["workspace:site"])
    assert (await ask(gateway)).status_code == 401
    await keep(vault, "sk-of-all", organization)
    await ask(gateway)
    assert used(provider) == "sk-of-all"
    await keep(vault, "sk-own", owner(caller))
    await ask(gateway)
    assert used(provider) == "sk-own"


async def test_a_key_that_has_expired_or_was_revoked_is_not_used(gateway, vault, provider):
    soon = int(time.time() * 1000) + 300
    await keep(vault, "sk-soon", expiresAt=soon)
    assert (await ask(gateway)).status_code == 200
    await asyncio.sleep(0.35)
    assert (await ask(gateway)).status_code == 401
    entry = await keep(vault, "sk-again")
    assert (await ask(gateway)).status_code == 200
    await vault.revoke([owner(OWNER)], entry)
    assert (await ask(gateway)).status_code == 401


async def test_a_key_that_no_header_can_carry_is_not_sent(gateway, vault, provider):
    await keep(vault, "sk-a\r\nHost: evil")
    response = await ask(gateway)
    assert response.status_code == 401
    assert "sk-a" not in response.text
    assert provider.asked == []


@pytest.mark.parametrize("way", ["revoked", "expired", "credential"])
async def test_what_is_under_way_ends_with_its_key(gateway, vault, provider, way):
    standing = CredentialValidity()
    gateway.sessions.caller = msgspec.structs.replace(OWNER, standing=standing)
    expires: dict[str, Any] = {"expiresAt": int(time.time() * 1000) + 1500} if way == "expired" else {}
    entry = await keep(vault, "sk-mine", **expires)

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + chunk("x" * 40))
        await asyncio.sleep(3600)

    provider.answers(script)
    asking = asyncio.create_task(ask(gateway, stream=True))
    await eventually(lambda: bool(provider.asked))
    await asyncio.sleep(0.3)
    assert not asking.done()
    if way == "revoked":
        await vault.revoke([owner(OWNER)], entry)
    elif way == "credential":
        standing.end()
    async with asyncio.timeout(5):
        response = await asking
    last = response.text.strip().rpartition("data: ")[2]
    assert msgspec.json.decode(last)["error"]["type"] == "authentication_error"
    usage = await gateway.sessions.usage()
    assert (usage.output, usage.is_estimated) == (10, True)
    assert gateway.it.counts.requests == {("mine/large", "ended"): 1}


async def test_a_vault_that_cannot_be_asked_ends_nothing_for_a_while(gateway, vault, provider, monkeypatch):
    await keep(vault, "sk-mine")
    asked = 0

    async def holds(_key: object) -> bool:
        nonlocal asked
        asked += 1
        raise DatabaseError("it is down")

    monkeypatch.setattr(gateway.it.keys, "holds", holds)

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + chunk("x" * 40))
        await asyncio.sleep(3600)

    provider.answers(script)
    asking = asyncio.create_task(ask(gateway, stream=True))
    await eventually(lambda: asked >= 3)
    assert not asking.done()
    monkeypatch.setattr(gateway_module, "_TRUST_WITHOUT_VAULT", 0.0)
    async with asyncio.timeout(30):
        assert "has been revoked" in (await asking).text


async def test_another_value_is_used_from_the_next_request_on(gateway, vault, provider):
    entry = await keep(vault, "sk-mine")
    await ask(gateway)
    await vault.rotate([owner(OWNER)], entry, "sk-rotated")
    await ask(gateway)
    assert used(provider) == "sk-rotated"


async def test_a_credential_that_is_over_uses_no_key(gateway, vault, provider):
    await keep(vault, "sk-mine")
    standing = CredentialValidity()
    standing.end()
    gateway.sessions.caller = msgspec.structs.replace(OWNER, standing=standing)
    assert (await ask(gateway)).status_code == 401
    assert (await gateway.chat()).status_code == 401  # nor the server's own
    assert provider.asked == []


async def test_a_vault_that_cannot_be_opened_is_tried_again_later(gateway, monkeypatch):
    async def opened():
        raise ShareError(ErrorCode.STORAGE_UNAVAILABLE, "the vault cannot be opened", retry_after=5.0)

    monkeypatch.setattr(gateway.it.keys, "_open_vault", opened)
    response = await ask(gateway)
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


async def test_the_audit_log_has_each_use_once_a_minute_and_never_the_value(gateway, vault):
    entry = await keep(vault, "sk-mine")
    with capture_logs() as logs:
        for _ in range(3):
            await ask(gateway)
    lines = [line for line in logs if line.get("action") == "vault.use"]
    assert [(line["entry"], line["workspace"], line["session"], line["subject"]) for line in lines] == [
        (entry, "ws_1", "ses_1", "ada")
    ]
    assert "sk-mine" not in str(logs)


async def test_a_file_is_read_again_when_it_changes(provider, tmp_path, monkeypatch):
    path = tmp_path / "key"
    path.write_text("sk-1\n")
    provider.answers(json_answer(WHOLE))
    catalogue = tables(provider.url, mine={"key_file": str(path), "key_header": "api-key"})
    async with Gateway(provider, tmp_path, monkeypatch, catalogue=catalogue) as gateway:
        await ask(gateway)
        path.write_text("sk-2\n")
        await ask(gateway)
        assert [asked.headers["api-key"] for asked in provider.asked] == ["sk-1", "sk-2"]
        assert "authorization" not in provider.asked[0].headers
        path.unlink()
        response = await ask(gateway)
        assert response.status_code == 503
        assert str(path) not in response.text


async def test_no_key_is_in_a_representation(gateway):
    key = await gateway.it.keys.find(gateway.it.catalogue.tables[0], OWNER, gateway.socket.key_for(None))
    assert key.value == KEY
    assert KEY not in repr(key)
