"""Certificates and keys that a server cannot start with: one line that names the file, and status 1."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from support.authorities import Authority
from support.running_server import RPCSHARE, bare_environment

pytestmark = pytest.mark.slow  # real servers, several of them at a time


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of files that the cases name."""
    directory = tmp_path_factory.mktemp("files")
    authority = Authority(directory)
    authority.issue_to_server().rename(directory / "server.pem")
    authority.issue_to_server().rename(directory / "other.pem")
    (directory / "crl.pem").write_bytes(authority.revocation_list())
    (directory / "foreign-crl.pem").write_bytes(Authority(directory / "other").revocation_list())
    (directory / "text.pem").write_text("not a certificate")
    (directory / "encrypted-key.pem").write_bytes(
        authority.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    return directory


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"tls-cert": "none.pem"}, "cannot read {files}/none.pem: No such file or directory"),
        ({"tls-key": "none.pem"}, "cannot read {files}/none.pem: No such file or directory"),
        (
            {"tls-key": "other.pem"},
            "{files}/other.pem is not the key of the certificate in {files}/server.pem",
        ),
        ({"tls-key": "encrypted-key.pem"}, "{files}/encrypted-key.pem is encrypted"),
        (
            {"tls-cert": "text.pem"},
            "{files}/text.pem and {files}/server.pem are not a certificate and its key",
        ),
        ({"tls-key": "crl.pem"}, "{files}/server.pem and {files}/crl.pem are not a certificate and its key"),
        ({"client-ca": "none.pem"}, "cannot read {files}/none.pem"),
        ({"client-ca": "text.pem"}, "{files}/text.pem does not hold certificates in PEM"),
        ({"client-crl": "none.pem"}, "cannot read {files}/none.pem"),
        ({"client-crl": "text.pem"}, "{files}/text.pem does not hold a revocation list in PEM"),
        (
            {"client-crl": "foreign-crl.pem"},
            "{files}/foreign-crl.pem holds a revocation list that none of the CAs",
        ),
    ],
)
def test_a_file_that_is_of_no_use_is_named(
    files: Path, tmp_path: Path, named: dict[str, str], said: str
) -> None:
    good = {"tls-cert": "server.pem", "tls-key": "server.pem", "client-ca": "ca.pem", "client-crl": "crl.pem"}
    options = [f"--{name}={files / file}" for name, file in {**good, **named}.items()]
    finished = subprocess.run(
        [RPCSHARE, "serve", "--port=0", f"--data-dir={tmp_path}", *options],
        env=bare_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.count("\n") == 1
    assert said.format(files=files) in finished.stderr
