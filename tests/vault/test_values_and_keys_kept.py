"""What other vaults have lost or given away: values changed on their way, keys rotated, databases broken."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from rpcshare.database import DatabaseError, parse_location
from rpcshare.database.engine import Database
from rpcshare.database.records import vault_entries
from rpcshare.database.schema_version import RECORDS
from rpcshare.errors import ShareError
from rpcshare.storage.encryption_keys import EncryptionKey, KeyRing
from rpcshare.vault.entry import OwnerKind, VaultOwner
from rpcshare.vault.envelope import VaultIntegrityError
from rpcshare.vault.vault import Vault
from support.running_server import RPCSHARE, RunningServer, bare_environment

ALICE = VaultOwner(OwnerKind.USER, "usr_alice")
OLD, NEW = EncryptionKey(bytes(32), "old"), EncryptionKey(bytes(range(32)), "new")

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
VALUES = {
    "a newline at the end": "key\n",
    "spaces around": "  key  ",
    "several lines": PEM,
    "lines of Windows": PEM.replace("\n", "\r\n"),
    "backslashes": "\\u0142u\\n\\",
    "quotes and markup": "\"a' <b>&amp;%00${x}",
    "not ASCII": "\u0142u\u017c\U0001f511",
    "NUL": "a\x00b",
    "a number": "462780441594822687",
    "what JSON has": "null",
    "a dash": "-",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("vault") / "data") as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def command(server: RunningServer, *arguments: str, given: str = "") -> str:
    environment = bare_environment(RPCSHARE_URL=server.url, RPCSHARE_TOKEN=server.token)
    done = subprocess.run(
        [RPCSHARE, "vault", *arguments],
        input=given.encode(),
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


# Values come back as they were given


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_over_http_a_value_comes_back_as_it_was_given(client: httpx.Client, name: str) -> None:
    value = VALUES[name]
    made = client.post("/api/keys", json={"service": "http", "name": name, "value": value}).json()
    assert client.get(f"/api/keys/{made['id']}").json()["value"] == value
    client.post(f"/api/keys/{made['id']}/rotate", json={"value": value + value})
    assert client.get(f"/api/keys/{made['id']}").json()["value"] == value + value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["several lines", "lines of Windows", "backslashes", "not ASCII"])
def test_on_the_command_line_a_file_comes_back_as_it_was_given(server: RunningServer, name: str) -> None:
    told = json.loads(command(server, "set", name, "--service", "cli", "--json", given=VALUES[name]))
    got = command(server, "get", told["id"])
    assert got.rstrip("\n") == VALUES[name].rstrip("\n")
    if "\n" in VALUES[name]:
        assert got == VALUES[name]


@pytest.mark.slow
def test_a_line_from_echo_has_no_newline_in_it(server: RunningServer, client: httpx.Client) -> None:
    told = json.loads(command(server, "set", "echo", "--service", "cli", "--json", given="sk-key\n"))
    assert client.get(f"/api/keys/{told['id']}").json()["value"] == "sk-key"


@pytest.mark.slow
def test_a_key_of_several_lines_is_not_kept_without_them(client: httpx.Client, server: RunningServer) -> None:
    one_line = PEM.replace("\n", "")  # what a browser makes of it in a field of one line
    form = {"service": "page", "name": "pem", "value": one_line}
    answer = client.post("/vault", data=form, headers={"Origin": server.url})
    assert answer.status_code == 400
    assert "a key of several lines" in answer.text
    assert "MIIEvQIBADANBgkq" not in answer.text
    assert not [each for each in client.get("/api/keys").json() if each["service"] == "page"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"service": "a", "name": "n", "value": ""},
        {"service": "a", "name": "", "value": "v"},
        {"service": "", "name": "n", "value": "v"},
        {"service": "a", "name": " ", "value": "v"},
        {"service": "a", "name": "n"},
    ],
    ids=range(5),
)
def test_what_is_empty_is_refused_and_spoils_nothing(client: httpx.Client, given: dict[str, str]) -> None:
    client.post("/api/keys", json={"service": "kept", "name": "kept", "value": "v"})
    assert client.post("/api/keys", json=given).json()["code"] == "INVALID_ARGUMENT"
    assert "kept" in [each["name"] for each in client.get("/api/keys").json()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"service": "a", "name": "n", "value": {"key": "sk-typed-wrong-0001"}},
        {"service": "a", "name": "n", "value": ["sk-typed-wrong-0001"]},
        {"service": {"x": "sk-typed-wrong-0001"}, "name": "n", "value": "v"},
        {"service": "a", "name": "n", "value": "v", "grants": "sk-typed-wrong-0001"},
        {"service": "a", "name": "n", "value": "v", "expiresAt": "sk-typed-wrong-0001"},
        {"service": "sk-typed-wrong-0001 in the wrong place", "name": "n", "value": "v"},
        {"service": "a", "name": "n", "value": "v", "sk-typed-wrong-0001": 1},
        ["sk-typed-wrong-0001"],
        "sk-typed-wrong-0001",
    ],
    ids=range(9),
)
def test_what_has_the_wrong_type_is_quoted_nowhere(
    client: httpx.Client, server: RunningServer, body: object
) -> None:
    answer = client.post("/api/keys", json=body)
    assert answer.status_code == 400
    assert "sk-typed" not in answer.text
    assert "sk-typed" not in server.log.read_text()


# Rotation of the ring


async def stored(vault: Vault, name: str, value: str = "value") -> str:
    return (await vault.store(ALICE, {"service": "s", "name": name, "value": value})).id


async def test_rotating_without_the_old_key_changes_nothing(records: Database) -> None:
    before = Vault(records, KeyRing([OLD]))
    ids = [await stored(before, f"{number}") for number in range(5)]
    rows = await records.read(lambda connection: list(connection.execute(select(vault_entries))))
    done, faults = await Vault(records, KeyRing([NEW])).rewrap()
    assert (done, len(faults)) == (0, 5)
    assert all("'old'" in fault for fault in faults)  # which key is missing
    assert await records.read(lambda connection: list(connection.execute(select(vault_entries)))) == rows
    assert [(await before.retrieve([ALICE], each))[1] for each in ids] == ["value"] * 5


async def test_after_rotating_the_old_key_opens_nothing_and_is_not_needed(records: Database) -> None:
    entry_id = await stored(Vault(records, KeyRing([OLD])), "n")
    assert await Vault(records, KeyRing([NEW, OLD])).rewrap() == (1, [])
    assert (await Vault(records, KeyRing([NEW])).retrieve([ALICE], entry_id))[1] == "value"
    with pytest.raises(VaultIntegrityError, match="'new'"):
        await Vault(records, KeyRing([OLD])).retrieve([ALICE], entry_id)
    stolen = EncryptionKey(bytes(32), "new")  # the old key, under the name of the new one
    with pytest.raises(VaultIntegrityError):
        await Vault(records, KeyRing([stolen])).retrieve([ALICE], entry_id)


async def test_rotating_again_and_again_is_the_same(records: Database) -> None:
    entry_id = await stored(Vault(records, KeyRing([OLD])), "n")
    ring = Vault(records, KeyRing([NEW, OLD]))
    assert [await ring.rewrap() for _ in range(3)] == [(1, []), (0, []), (0, [])]
    assert (await ring.retrieve([ALICE], entry_id))[1] == "value"


async def test_rotating_back_and_forth_while_half_is_done_loses_nothing(records: Database) -> None:
    ids = []
    for number in range(6):
        ring = KeyRing([OLD, NEW] if number % 2 else [NEW, OLD])
        ids.append(await stored(Vault(records, ring), f"{number}"))
    for first, second in ((OLD, NEW), (NEW, OLD)):
        vault = Vault(records, KeyRing([first, second]))
        assert await vault.rewrap() in ((3, []), (6, []))
        assert await vault.check() == []
    assert len({(await vault.retrieve([ALICE], each))[1] for each in ids}) == 1


# Expiry


@pytest.mark.parametrize(
    ("expires_at", "is_over"),
    [
        ("2000-01-01T02:30:00", True),  # without a zone: UTC
        ("2000-01-01T03:30:00+03:00", True),
        ("2000-01-01T02:30:00-03:00", False),
        ("2000-01-01T06:00:00Z", False),
    ],
)
async def test_an_end_is_of_its_zone_and_kept(records: Database, expires_at: str, is_over: bool) -> None:
    now = [946_684_800.0]  # the begin of 2000, UTC
    vault = Vault(records, KeyRing([OLD]), clock=lambda: now[0])
    given = {"service": "s", "name": "n", "value": "v", "expiresAt": expires_at}
    entry_id = (await vault.store(ALICE, given)).id
    now[0] += 3 * 3600
    if is_over:
        with pytest.raises(ShareError, match="has expired"):
            await vault.retrieve([ALICE], entry_id)
        assert await vault.use([ALICE], "s", "workspace:w") is None
    else:
        assert (await vault.retrieve([ALICE], entry_id))[1] == "v"


# A broken database


async def test_a_database_with_broken_pages_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite3"
    location = parse_location(f"sqlite:///{path}")
    database = await Database.open(location, schema=RECORDS)
    vault = Vault(database, KeyRing([OLD]))
    for number in range(100):
        await stored(vault, f"{number}", "x" * 500)
    await database.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xa5" * 8192
    path.write_bytes(content)
    with pytest.raises(DatabaseError, match=r"is broken\. It holds the users of this server"):
        await Database.open(location, schema=RECORDS)
