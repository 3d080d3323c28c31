"""The admin token and the shared secret: configured, kept, or made once."""

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import UUID

import pytest

from rpcshare.auth import secret_files
from rpcshare.auth.secret_files import (
    SecretFileError,
    admin_token,
    kept_shared_secret,
    shared_secret,
)
from support.narrowing import not_none

SECRET = UUID("8d0c7a4e-6a52-4b6c-9a07-6a1f3c1d9b10")
ROOT = Path(secret_files.__file__).parents[2]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def forbid(path: Path, mode: int, access: int) -> None:
    path.chmod(mode)
    if os.access(path, access):
        pytest.skip("this user may read and write whatever the permissions are")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_configured_counts_and_nothing_is_written(data_dir):
    assert admin_token("configured", data_dir) == "configured"
    assert shared_secret(SECRET, data_dir) == SECRET
    assert not data_dir.exists()


def test_what_is_configured_counts_before_what_is_kept(data_dir):
    admin_token(None, data_dir)
    shared_secret(None, data_dir)
    assert admin_token("configured", data_dir) == "configured"
    assert shared_secret(SECRET, data_dir) == SECRET


def test_a_token_is_made_once_and_kept(data_dir):
    token = admin_token(None, data_dir)
    assert admin_token(None, data_dir) == token
    assert (data_dir / "admin-token").read_text() == f"{token}\n"


def test_a_made_token_has_256_bits(data_dir):
    assert len(admin_token(None, data_dir)) == 43


def test_a_shared_secret_is_made_once_and_kept(data_dir):
    secret = shared_secret(None, data_dir)
    assert shared_secret(None, data_dir) == secret
    assert (data_dir / "shared-secret").read_text() == f"{secret}\n"


def test_two_servers_do_not_make_the_same_secrets(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    assert admin_token(None, one) != admin_token(None, other)
    assert shared_secret(None, one) != shared_secret(None, other)


def test_a_secret_that_an_operator_wrote_is_taken(data_dir):
    data_dir.mkdir()
    (data_dir / "admin-token").write_text(" correct-horse\r\n")
    (data_dir / "shared-secret").write_text(f"{{{str(SECRET).upper()}}}")
    assert admin_token(None, data_dir) == "correct-horse"
    assert shared_secret(None, data_dir) == SECRET


def test_reading_the_kept_shared_secret_makes_none(data_dir):
    assert kept_shared_secret(data_dir) is None
    assert not data_dir.exists()


def test_the_kept_shared_secret_can_be_read_alone(data_dir):
    secret = shared_secret(None, data_dir)
    assert kept_shared_secret(data_dir) == secret


def test_files_and_directory_are_their_owner_s_alone_whatever_the_umask(data_dir):
    before = os.umask(0)
    try:
        admin_token(None, data_dir)
        shared_secret(None, data_dir)
    finally:
        os.umask(before)
    assert mode(data_dir) == 0o700
    assert mode(data_dir / "admin-token") == 0o600
    assert mode(data_dir / "shared-secret") == 0o600


def test_a_directory_that_was_there_keeps_its_permissions(data_dir):
    data_dir.mkdir()
    data_dir.chmod(0o755)
    admin_token(None, data_dir)
    assert mode(data_dir) == 0o755


def test_no_draft_is_left_behind(data_dir):
    admin_token(None, data_dir)
    shared_secret(None, data_dir)
    assert {path.name for path in data_dir.iterdir()} == {"admin-token", "shared-secret"}


def test_threads_that_start_at_once_agree(data_dir):
    count = 16
    barrier = Barrier(count)

    def start(_: int) -> tuple[str, UUID]:
        barrier.wait()
        return admin_token(None, data_dir), shared_secret(None, data_dir)

    with ThreadPoolExecutor(count) as pool:
        assert len(set(pool.map(start, range(count)))) == 1


def test_processes_that_start_at_once_agree(data_dir):
    script = (
        "import sys; from pathlib import Path; sys.stdin.read()\n"
        "from rpcshare.auth.secret_files import admin_token\n"
        "print(admin_token(None, Path(sys.argv[1])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, data_dir],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        not_none(process.stdin).close()  # the starting shot
    tokens = set()
    for process in processes:
        with process:
            tokens.add(not_none(process.stdout).read())
    assert tokens == {f"{admin_token(None, data_dir)}\n"}


def test_whoever_loses_the_race_takes_the_winner_s_secret(data_dir, monkeypatch):
    data_dir.mkdir()

    def lose(_: int) -> str:
        (data_dir / "admin-token").write_text("the-winner-s\n")
        return "the-loser-s"

    monkeypatch.setattr(secret_files.secrets, "token_urlsafe", lose)
    assert admin_token(None, data_dir) == "the-winner-s"


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"\xff\x00", b"x" * 9000])
def test_a_garbled_token_is_refused_and_left_alone(data_dir, content):
    data_dir.mkdir()
    path = data_dir / "admin-token"
    path.write_bytes(content)
    with pytest.raises(SecretFileError, match="does not hold a token") as caught:
        admin_token(None, data_dir)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"not-a-uuid", f"{SECRET}x".encode(), b"\xff"])
@pytest.mark.parametrize("read", [lambda data_dir: shared_secret(None, data_dir), kept_shared_secret])
def test_a_garbled_shared_secret_is_refused_and_left_alone(data_dir, read, content):
    data_dir.mkdir()
    path = data_dir / "shared-secret"
    path.write_bytes(content)
    with pytest.raises(SecretFileError, match="does not hold a UUID") as caught:
        read(data_dir)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [f"{SECRET}x", f"x{str(SECRET)[1:]}"])
def test_a_refusal_does_not_quote_the_content(data_dir, content):
    data_dir.mkdir()
    (data_dir / "shared-secret").write_text(content)
    with pytest.raises(SecretFileError) as caught:
        shared_secret(None, data_dir)
    assert str(SECRET)[1:] not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_directory_in_place_of_the_file_is_named(data_dir):
    (data_dir / "admin-token").mkdir(parents=True)
    with pytest.raises(SecretFileError, match=f"cannot read {data_dir}/admin-token"):
        admin_token(None, data_dir)


def test_a_file_in_place_of_the_directory_is_named(data_dir):
    data_dir.write_text("")
    with pytest.raises(SecretFileError, match=f"cannot read {data_dir}/admin-token"):
        admin_token(None, data_dir)


def test_a_link_that_leads_nowhere_is_named(data_dir):
    data_dir.mkdir()
    (data_dir / "admin-token").symlink_to(data_dir / "missing")
    with pytest.raises(SecretFileError, match=f"{data_dir}/admin-token: a link"):
        admin_token(None, data_dir)


def test_an_unreadable_file_is_named(data_dir):
    admin_token(None, data_dir)
    forbid(data_dir / "admin-token", 0, os.R_OK)
    with pytest.raises(SecretFileError, match=f"cannot read {data_dir}/admin-token: Permission"):
        admin_token(None, data_dir)


def test_an_unwritable_directory_is_named(data_dir):
    data_dir.mkdir()
    forbid(data_dir, 0o500, os.W_OK)
    with pytest.raises(SecretFileError, match=f"cannot write {data_dir}/admin-token: Permission"):
        admin_token(None, data_dir)


def test_a_failure_to_write_is_reported_and_leaves_nothing(data_dir, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(secret_files.os, "fsync", full)
    with pytest.raises(SecretFileError, match=r"cannot write .*: No space left on device"):
        admin_token(None, data_dir)
    assert list(data_dir.iterdir()) == []
