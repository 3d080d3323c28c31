"""Servers and commands that have not the secrets that a store was used with."""

import base64
import subprocess
from pathlib import Path

import pytest

from support.running_server import RPCSHARE, RunningServer, bare_environment

pytestmark = pytest.mark.slow

SECRET = "--shared-secret=12345678-1234-5678-9234-567812345678"
WARNING = "The store was served with another shared secret"


@pytest.mark.parametrize("is_same", [True, False])
def test_a_server_warns_if_its_store_was_served_with_another_shared_secret(
    tmp_path: Path, is_same: bool
) -> None:
    store = f"--store=sqlite:///{tmp_path}/store.sqlite3"
    with RunningServer(tmp_path / "a", store, SECRET) as first:
        assert WARNING not in first.log.read_text()
        with RunningServer(tmp_path / "b", store, *([SECRET] if is_same else [])) as second:
            log = second.log.read_text()
    assert (WARNING in log) is not is_same
    assert "12345678-1234" not in log


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option that names a store, which was served with keys."""
    tmp_path = tmp_path_factory.mktemp("encrypted")
    (tmp_path / "keys").write_text(base64.b64encode(bytes(range(32))).decode())
    (tmp_path / "keys").chmod(0o600)
    store = f"--store=sqlite:///{tmp_path}/store.sqlite3"
    with RunningServer(tmp_path / "a", store, f"--encryption-key-file={tmp_path}/keys"):
        return store


@pytest.mark.parametrize(
    "words", [["doctor"], ["keys", "list"], ["token", "list-revoked"], ["export", "backup"]]
)
def test_a_command_without_the_keys_of_the_store_says_so(
    tmp_path: Path, encrypted: str, words: list[str]
) -> None:
    done = subprocess.run(
        [RPCSHARE, *words, encrypted],
        cwd=tmp_path,
        env=bare_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "the store is encrypted; --encryption-key-file must name" in done.stderr


def test_a_server_without_the_keys_of_the_store_says_so(tmp_path: Path, encrypted: str) -> None:
    with pytest.raises(RuntimeError, match="the store is encrypted; --encryption-key-file must name"):
        RunningServer(tmp_path / "b", encrypted)
