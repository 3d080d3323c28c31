"""The commands for operators, as they are typed: what they print, and how they end."""

import asyncio
import base64
import json
import os
import subprocess

import pytest
from click.testing import CliRunner

from rpcshare import connect_blocking
from rpcshare.cli import main
from rpcshare.shares.objects import IndexRow, encode_index
from rpcshare.shares.state import ShareState
from rpcshare.storage import IDENTITY_KEY, SERVED_WITH_KEY, SqliteStore
from support.older_shares import SECRET, put_older
from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow  # real servers, several of them at a time

ITEMS = [
    {"type": "session", "data": {"id": "ses_1", "title": "A title"}},
    {"type": "part", "data": {"id": "prt_1", "text": "half \ud83d"}},
]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments, status=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


def with_store(path, work):
    """Open the store in the file ``path``, call ``work`` with it, and return what that returns."""

    async def open_and_work():
        store = await SqliteStore.open(path)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(open_and_work())


OWN = (IDENTITY_KEY, SERVED_WITH_KEY)
"""What a store has of its own, which is not copied."""


def everything(path):
    async def read(store):
        return {found.key: found.body async for found in store.scan("") if found.key not in OWN}

    return with_store(path, read)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Return the data directory of a server that has made two shares, and stopped."""
    data_dir = tmp_path_factory.mktemp("stopped") / "data"
    with RunningServer(data_dir) as server:
        make_two_shares(server)
        server.stop()
    return data_dir


def make_two_shares(server):
    with connect_blocking(server.url, token=server.token) as client:
        for number in range(2):
            client.create_share(f"ses_{number:08d}", ITEMS)


@pytest.fixture
def data_dir(stopped, tmp_path):
    """Return a copy of it, to be worked on."""
    path = tmp_path / "data"
    path.mkdir()
    (path / "store.sqlite3").write_bytes((stopped / "store.sqlite3").read_bytes())
    return path


@pytest.fixture
def older_bucket(tmp_path):
    path = tmp_path / "older.sqlite3"
    with_store(path, put_older)
    return path


def break_a_share(data_dir):
    async def delete_entries(store):
        keys = [info.key async for info in store.list("share/00000000/")]
        await store.put(next(key for key in keys if "/log/" in key), b"?")

    with_store(data_dir / "store.sqlite3", delete_entries)


def leave_a_row_behind(data_dir):
    row = IndexRow(1, "0123456789abcdef", None, ShareState("00000000", "ses_1", 5).index())

    async def add_row(store):
        await store.put("index/00000000/0123456789abcdef", encode_index(row))

    with_store(data_dir / "store.sqlite3", add_row)


# doctor


def test_doctor_says_that_all_is_well(data_dir):
    result = run("doctor", "--data-dir", data_dir)
    assert result.stdout == "shares: 2, in the older layout: 0, fixed: 0, wrong: 0\n"


def test_doctor_says_what_is_wrong_and_fails(data_dir):
    break_a_share(data_dir)
    result = run("doctor", "--grace=0", "--data-dir", data_dir, status=1)
    assert "damaged" in result.stdout
    assert "shares: 1, in the older layout: 0, fixed: 0, wrong: 1" in result.stdout


def test_doctor_puts_right_what_can_be(data_dir):
    leave_a_row_behind(data_dir)
    run("doctor", "--grace=0", "--data-dir", data_dir, status=1)
    assert "fixed: 1, wrong: 0" in run("doctor", "--fix", "--grace=0", "--data-dir", data_dir).stdout
    run("doctor", "--data-dir", data_dir)


def test_doctor_reports_to_programs(data_dir):
    leave_a_row_behind(data_dir)
    report = json.loads(run("doctor", "--json", "--grace=0", "--data-dir", data_dir, status=1).stdout)
    (finding,) = report.pop("findings")
    assert report == {"ok": False, "shares": 2, "older": 0, "superfluous": 0}
    assert finding["place"].startswith("index/00000000/")
    assert (finding["problem"], finding["fixed"]) == ("leftover", False)


def test_doctor_looks_at_a_store_in_use(tmp_path):
    with (
        RunningServer(tmp_path / "data") as server,
        connect_blocking(server.url, token=server.token) as client,
    ):
        share = client.create_share("ses_12345678", ITEMS)
        client.sync_share(share.id, share.secret, ITEMS)
        run("doctor", "--data-dir", server.data_dir)
        client.sync_share(share.id, share.secret, ITEMS)
        assert client.get_share_metadata(share.id).sync_count == 3


# export, restore


def test_a_backup_of_a_stopped_server_brings_a_lost_store_back(data_dir, tmp_path):
    before = everything(data_dir / "store.sqlite3")
    assert run("export", tmp_path / "backup", "--data-dir", data_dir).stdout == (
        f"exported to {tmp_path / 'backup'}: 2\n"
    )
    (data_dir / "store.sqlite3").unlink()
    assert run("restore", tmp_path / "backup", "--data-dir", data_dir).stdout == (
        "restored: 2, there already: 0\n"
    )
    run("doctor", "--data-dir", data_dir)
    after = everything(data_dir / "store.sqlite3")
    assert {key for key in before if key.endswith("/head")} == {key for key in after if key.endswith("/head")}


def test_export_of_a_share_that_is_not_there_fails(data_dir, tmp_path):
    result = run("export", tmp_path / "backup", "unknown1", "--data-dir", data_dir, status=1)
    assert result.stderr == "not exported: unknown1: there is no such share\n"


def test_export_into_a_folder_with_something_in_it_fails(data_dir, tmp_path):
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "mine").touch()
    result = run("export", tmp_path / "backup", "--data-dir", data_dir, status=1)
    assert result.stderr == f"rpcshare: {tmp_path / 'backup'} is not empty\n"


def test_restore_leaves_what_differs_unless_told_otherwise(data_dir, tmp_path):
    run("export", tmp_path / "backup", "--data-dir", data_dir)
    break_a_share(data_dir)
    result = run("restore", tmp_path / "backup", "--data-dir", data_dir, status=1)
    assert "not restored: 00000000: the store has another (see --overwrite)" in result.stderr
    result = run("restore", "--overwrite", tmp_path / "backup", "--data-dir", data_dir)
    assert result.stdout == "restored: 1, there already: 1\n"


def test_restore_of_a_damaged_backup_fails(data_dir, tmp_path):
    run("export", tmp_path / "backup", "--data-dir", data_dir)
    path = tmp_path / "backup" / "sessions" / "00000000" / "parts.jsonl"
    path.write_bytes(b"{}\n")
    result = run("restore", tmp_path / "backup", "--data-dir", tmp_path / "new", status=1)
    assert result.stderr == f"rpcshare: {path} is not what it was: its checksum is another\n"


# migrate


def test_migrate_copies_a_store(data_dir, tmp_path):
    source, target = data_dir / "store.sqlite3", tmp_path / "target.sqlite3"
    count = len(everything(source))
    result = run("migrate", "--from", f"sqlite:///{source}", "--to", f"sqlite:///{target}")
    assert result.stdout == f"copied: {count}, there already: 0\n"
    assert everything(target) == everything(source)
    result = run("migrate", "--from", f"sqlite:///{source}", "--to", f"sqlite:///{target}")
    assert result.stdout == f"copied: 0, there already: {count}\n"


def test_migrate_says_what_it_did_not_copy_and_fails(data_dir, tmp_path):
    source, target = data_dir / "store.sqlite3", tmp_path / "target.sqlite3"
    with_store(target, lambda store: store.put("session/ses_00000000", b"another"))
    result = run("migrate", "--from", f"sqlite:///{source}", "--to", f"sqlite:///{target}", status=1)
    assert "not copied: session/ses_00000000: the target has another" in result.stderr


def test_migrate_to_the_same_store_makes_no_sense(data_dir):
    url = f"sqlite:///{data_dir / 'store.sqlite3'}"
    assert "name the same store" in run("migrate", "--from", url, "--to", url, status=2).stderr


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(base64.b64encode(bytes(range(32))).decode() + "\n")
    path.chmod(0o600)
    return path


def test_migrate_encrypts_and_decrypts_with_keys(data_dir, key_file, tmp_path):
    source, middle, back = (
        data_dir / "store.sqlite3",
        tmp_path / "middle.sqlite3",
        tmp_path / "back.sqlite3",
    )
    encrypting = ("migrate", "--from", f"sqlite:///{source}", "--to", f"sqlite:///{middle}")
    run(*encrypting, "--to-key-file", key_file)
    assert all(body.startswith(b"RPSE") for body in everything(middle).values())
    run("doctor", f"--store=sqlite:///{middle}", f"--encryption-key-file={key_file}")
    run("doctor", "--grace=0", f"--store=sqlite:///{middle}", status=2)
    decrypting = ("migrate", "--from", f"sqlite:///{middle}", "--to", f"sqlite:///{back}")
    run(*decrypting, "--from-key-file", key_file)
    assert everything(back) == everything(source)


def test_doctor_finds_encrypted_objects_that_have_changed_places(data_dir, key_file, tmp_path):
    path = tmp_path / "encrypted.sqlite3"
    source = f"sqlite:///{data_dir / 'store.sqlite3'}"
    run("migrate", "--from", source, "--to", f"sqlite:///{path}", "--to-key-file", key_file)
    entries = [key for key in everything(path) if "/log/" in key]
    with_store(path, lambda store: swap(store, *entries))
    doctor = ("doctor", "--grace=0", f"--store=sqlite:///{path}", f"--encryption-key-file={key_file}")
    report = json.loads(run(*doctor, "--json", status=1).stdout)
    assert [finding["problem"] for finding in report["findings"]] == ["damaged", "damaged"]
    assert all("has been changed or is another's" in finding["detail"] for finding in report["findings"])


async def swap(store, one, other):
    bodies = [(await store.get(key)).body for key in (one, other)]
    for key, body in zip((other, one), bodies, strict=True):
        await store.put(key, body)


# import-bucket


def test_import_bucket_brings_in_an_older_deployment(older_bucket, tmp_path):
    arguments = ("import-bucket", "--from", f"sqlite:///{older_bucket}", "--data-dir", tmp_path / "data")
    assert run(*arguments).stdout == ("imported: 1, there already: 0, deleted since: 0, skipped: 0\n")
    assert json.loads(run(*arguments, "--json").stdout) == {
        "imported": 0,
        "unchanged": 1,
        "deleted": 0,
        "given": 0,
        "skipped": [],
    }
    run("doctor", "--data-dir", tmp_path / "data")


def test_import_bucket_upgrades_a_store_in_place(older_bucket):
    url = f"sqlite:///{older_bucket}"
    assert run("import-bucket", "--from", url, "--store", url).stdout.startswith("imported: 1,")
    assert not any(SECRET.encode() in body for body in everything(older_bucket).values())


def test_import_bucket_lists_what_it_skips_and_fails(older_bucket, tmp_path):
    with_store(older_bucket, lambda store: store.put("share/broken12", b"?"))
    url = f"sqlite:///{older_bucket}"
    result = run("import-bucket", "--from", url, "--data-dir", tmp_path / "data", status=1)
    assert result.stderr == "skipped: share/broken12: share/broken12 is not JSON\n"
    assert result.stdout.startswith("imported: 1,")


def test_a_server_on_an_older_bucket_serves_it_and_goes_on_with_it(older_bucket, tmp_path):
    store = f"--store=sqlite:///{older_bucket}"
    with RunningServer(tmp_path / "data", store) as server:
        with connect_blocking(server.url, token=server.token) as client:
            assert client.get_share("12345678")["messages"][1]["cost"] == 0.25
            assert client.sync_share("12345678", SECRET, ITEMS) == 8
        server.stop()
    run("doctor", store)


# Stores that are not there

NAME_IT = " (name the server's data directory with --data-dir)"


@pytest.mark.parametrize(
    ("arguments", "option", "hint"),
    [
        (["doctor", "--data-dir", "nowhere"], "--store", NAME_IT),
        (["export", "backup", "--data-dir", "nowhere"], "--store", NAME_IT),
        (["migrate", "--from", "sqlite:///nowhere/store.sqlite3", "--to", "memory://"], "--from", ""),
        (["import-bucket", "--from", "sqlite:///nowhere/store.sqlite3"], "--from", ""),
    ],
)
def test_a_store_that_is_not_there_is_told_of_and_not_made(tmp_path, arguments, option, hint):
    result = run(*arguments, status=1)
    place = tmp_path / "nowhere" / "store.sqlite3"
    assert result.stderr == f"rpcshare: {option}: there is no store {place}{hint}\n"
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_store_is_a_usage_error(tmp_path):
    result = run("doctor", "--store", "ftp://host", status=2)
    assert "--store: not the URL of a store" in result.stderr


def test_a_key_file_that_holds_no_keys_is_a_usage_error(data_dir, tmp_path):
    (tmp_path / "keys").write_text("no key\n")
    (tmp_path / "keys").chmod(0o600)
    result = run("doctor", "--data-dir", data_dir, "--encryption-key-file", tmp_path / "keys", status=2)
    assert "line 1" in result.stderr
    assert "no key\n" not in result.stderr


def test_the_command_is_spelled_with_a_hyphen():
    command = [RPCSHARE, "import-bucket", "--help"]
    ran = subprocess.run(command, env=bare_environment(), stdout=subprocess.PIPE, check=True)
    assert b"older deployment" in ran.stdout
