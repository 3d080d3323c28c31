"""The file that encryption keys are kept in."""

import base64
import logging
from pathlib import Path

import pytest

from rpcshare.storage.encryption_keys import EncryptionKey, KeyFileError, KeyRing

ONE = base64.b64encode(b"1" * 32).decode()
TWO = base64.b64encode(b"2" * 32).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    return path


def test_a_line_is_a_key_and_the_first_is_the_one_that_encrypts(path: Path) -> None:
    path.write_text(f"# rotated in May\n2027:{ONE}\n\n2026: {TWO}\n")
    ring = KeyRing.read(path)
    assert ring.first.id == "2027"
    assert ring.find("2026") is not None
    assert ring.find("2025") is None


def test_a_key_without_an_id_keeps_its_own_wherever_it_stands(path: Path) -> None:
    path.write_text(ONE)
    alone = KeyRing.read(path).first.id
    path.write_text(f"{TWO}\n{ONE}\n")
    ring = KeyRing.read(path)
    assert ring.first.id != alone
    assert ring.find(alone) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        (f"{ONE}\nnot base64!\n", "line 2: not base64"),
        (f"{ONE[:-8]}\n", "line 1: "),
        (base64.b64encode(b"1" * 16).decode(), "line 1: a key is 32 bytes"),
        (f"\n:{ONE}", "line 2: a key's id is"),
        (f"two words:{ONE}", "line 1: a key's id is"),
        (f"a:{ONE}\nb:{TWO}\na:{TWO}", "line 3: a key above has the same id"),
        (f"{ONE}\n{ONE}", "line 2: a key above has the same id"),
        ("clé:" + ONE, "not ASCII"),
    ],
)
def test_an_error_names_file_and_line_and_never_the_key(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(KeyFileError, match=message) as failure:
        KeyRing.read(path)
    assert str(path) in str(failure.value)
    assert ONE[:10] not in str(failure.value)
    assert TWO[:10] not in str(failure.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"cannot read .*keys: No such file"):
        KeyRing.read(tmp_path / "keys")


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_a_file_that_others_may_open_is_warned_of(
    path: Path, mode: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(ONE)
    path.chmod(mode)
    KeyRing.read(path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warns


def test_a_key_does_not_show_itself() -> None:
    assert repr(EncryptionKey(b"1" * 32, "may")) == "EncryptionKey(id='may')"
