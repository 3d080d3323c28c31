"""``rpcshare certs``: a private CA for one's own server, from making it to revoking what it issued."""

import datetime as dt
import json
import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID

from rpcshare.cli import main
from support.narrowing import not_none
from support.running_server import RunningServer

OPENSSL = "openssl"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith("RPCSHARE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)


def done(*arguments: object, **options: Any) -> str:
    result = run(*arguments, **options)
    assert result.exit_code == 0, result.output
    return result.stdout


def failed(status: int, *arguments: object) -> str:
    """Return the only line printed, which is on standard error."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("rpcshare: ")


@pytest.fixture
def certs() -> Path:
    """The directory of a CA that has been made."""
    done("certs", "init")
    return Path(".rpcshare/certs")


def load(path: Path | str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def issued(*arguments: object) -> x509.Certificate:
    return load(done("certs", "issue", *arguments).splitlines()[0])


def listed() -> list[dict[str, object]]:
    return json.loads(done("certs", "list", "--json"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- init ---------------------------------------------------------------------------------------


def test_the_keys_are_their_owner_s_alone(certs):
    assert mode(certs.parent) == mode(certs) == 0o700
    assert mode(certs / "ca-key.pem") == mode(certs / "server-key.pem") == 0o600


def test_the_ca_may_sign_certificates_and_no_other_cas(certs):
    certificate = load(certs / "ca.pem")
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.value, constraints.critical) == (x509.BasicConstraints(ca=True, path_length=0), True)
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (1, 1, 0)
    assert usage.critical


def test_the_server_s_certificate_is_for_this_machine_and_the_hosts_that_were_given():
    done("certs", "init", "--host", "share.example", "--host", "192.0.2.1")
    extensions = load(".rpcshare/certs/server.pem").extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "share.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "192.0.2.1"]
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_what_is_no_host_is_a_usage_error():
    assert "'not a host' is neither" in failed(2, "certs", "init", "--host", "not a host")


def test_a_second_init_changes_nothing(certs):
    before = {path: path.read_bytes() for path in certs.iterdir() if path.is_file()}
    result = run("certs", "init", "--host", "other.example")
    assert result.exit_code == 0
    assert "kept the CA" in result.stderr
    assert {path: path.read_bytes() for path in certs.iterdir() if path.is_file()} == before


def test_a_server_certificate_that_was_removed_is_made_again(certs):
    ca = (certs / "ca.pem").read_bytes()
    (certs / "server.pem").unlink()
    (certs / "server-key.pem").unlink()
    done("certs", "init", "--host", "other.example")
    names = load(certs / "server.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "other.example" in names.get_values_for_type(x509.DNSName)
    assert (certs / "ca.pem").read_bytes() == ca


# --- issue --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("build-1", x509.DNSName),
        ("build-1.example.com", x509.DNSName),
        ("me@example.com", x509.RFC822Name),
        ("https://example.com/machines/1", x509.UniformResourceIdentifier),
        ("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", x509.UniformResourceIdentifier),
    ],
)
@pytest.mark.usefixtures("certs")
def test_the_name_is_in_the_certificate_as_what_it_looks_like(name, kind):
    certificate = issued(name)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert names.get_values_for_type(kind) == [name]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert [certificate["name"] for certificate in listed()] == [name]


@pytest.mark.usefixtures("certs")
def test_a_name_of_no_kind_is_the_common_name():
    certificate = issued("Jörg's laptop")
    assert certificate.subject.rfc4514_string() == "CN=Jörg's laptop"
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.usefixtures("certs")
def test_it_is_valid_for_the_days_that_were_asked_for():
    certificate = issued("build-1", "--days", 3)
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=2, hours=23) < left <= dt.timedelta(days=3)
    assert certificate.not_valid_before_utc < dt.datetime.now(dt.UTC)


def test_no_certificate_outlives_the_ca(certs):
    certificate = issued("build-1", "--days", 36_500)
    assert certificate.not_valid_after_utc <= load(certs / "ca.pem").not_valid_after_utc


@pytest.mark.usefixtures("certs")
def test_the_key_is_its_owner_s_alone_wherever_it_is_written(tmp_path):
    certificate, key = done("certs", "issue", "build-1", "--out", tmp_path / "out").splitlines()
    assert (certificate, key) == (f"{tmp_path}/out/build-1.pem", f"{tmp_path}/out/build-1-key.pem")
    assert mode(Path(key)) == 0o600


@pytest.mark.usefixtures("certs")
def test_a_file_that_is_there_is_not_written_over():
    issued("build-1")
    assert "build-1.pem is there already" in failed(1, "certs", "issue", "build-1")
    assert len(listed()) == 1


@pytest.mark.usefixtures("certs")
def test_a_name_leads_to_no_other_directory():
    done("certs", "issue", "../../x/y z")
    assert Path(".rpcshare/certs/clients/x-y-z.pem").is_file()


@pytest.mark.usefixtures("certs")
@pytest.mark.parametrize("name", ["admin", "", " padded", "two\nlines", "x" * 257, "no kind of name " * 5])
def test_a_name_that_no_certificate_can_have_is_a_usage_error(name):
    assert "NAME" in failed(2, "certs", "issue", name)
    assert listed() == []


def p12_of(*arguments: object, **options: Any) -> pkcs12.PKCS12KeyAndCertificates:
    path = Path(done("certs", "issue", *arguments, **options).splitlines()[-1])
    assert mode(path) == 0o600
    return pkcs12.load_pkcs12(path.read_bytes(), b"correct horse")


def test_a_browser_gets_a_file_with_a_password(certs):
    asked = p12_of("one", "--p12", input="correct horse\ncorrect horse\n")
    given = p12_of("two", env={"RPCSHARE_P12_PASSWORD": "correct horse"})
    for p12, name in ((asked, b"one"), (given, b"two")):
        cert = not_none(p12.cert)
        assert cert.friendly_name == name
        assert isinstance(p12.key, ec.EllipticCurvePrivateKey)
        assert p12.key.public_key() == cert.certificate.public_key()
        assert [extra.certificate for extra in p12.additional_certs] == [load(certs / "ca.pem")]


def test_openssl_finds_nothing_wrong_with_the_certificates(certs):
    client = done("certs", "issue", "build-1").splitlines()[0]
    for purpose, path in (("sslclient", client), ("sslserver", certs / "server.pem")):
        verify = [OPENSSL, "verify", "-x509_strict", "-crl_check", "-purpose", purpose]
        subprocess.run(
            [*verify, "-CAfile", certs / "ca.pem", "-CRLfile", certs / "crl.pem", path],
            check=True,
            capture_output=True,
        )


# --- list and revoke ----------------------------------------------------------------------------


@pytest.mark.usefixtures("certs")
def test_a_list_tells_what_there_is():
    first = issued("one", "--days", 3)
    issued("two")
    done("certs", "revoke", "two")
    lines = [line.split() for line in done("certs", "list").splitlines()]
    assert [line[:2] for line in lines] == [["NAME", "STATE"], ["one", "valid"], ["two", "revoked"]]
    assert lines[1][-1] == f"{first.serial_number:x}"
    assert lines[1][-2] == f"{first.not_valid_after_utc:%Y-%m-%d}"


@pytest.mark.usefixtures("certs")
def test_all_certificates_of_a_name_are_revoked(tmp_path):
    for directory in ("a", "b"):
        issued("one", "--out", tmp_path / directory)
    issued("two")
    done("certs", "revoke", "one")
    assert [(c["name"], c["state"]) for c in listed()] == [
        ("one", "revoked"),
        ("one", "revoked"),
        ("two", "valid"),
    ]


@pytest.mark.usefixtures("certs")
def test_one_certificate_is_revoked_by_its_serial_number(tmp_path):
    keep, lose = (issued("one", "--out", tmp_path / directory) for directory in ("a", "b"))
    done("certs", "revoke", f"{lose.serial_number:X}")
    assert {(c["serial"], c["state"]) for c in listed()} == {
        (f"{keep.serial_number:x}", "valid"),
        (f"{lose.serial_number:x}", "revoked"),
    }


@pytest.mark.usefixtures("certs")
def test_revoking_twice_says_so_and_keeps_the_first_time():
    issued("one")
    done("certs", "revoke", "one")
    before = listed()
    assert "was revoked before" in done("certs", "revoke", "one")
    assert listed() == before


@pytest.mark.usefixtures("certs")
def test_revoking_what_was_never_issued_is_an_error():
    assert failed(5, "certs", "revoke", "nobody") == (
        "no client certificate of that name or serial number was issued"
    )


@pytest.mark.parametrize("command", [["issue", "x"], ["revoke", "x"], ["list"]])
def test_without_a_ca_it_is_said_how_to_make_one(command):
    assert failed(1, "certs", *command).endswith("'rpcshare certs init' makes one")


def test_a_ca_whose_files_are_spoilt_is_an_error_of_one_line(certs):
    (certs / "ca-key.pem").write_text("spoilt")
    assert "ca-key.pem does not hold a key" in failed(1, "certs", "issue", "x")


def test_a_revocation_list_of_somebody_else_is_not_signed_anew(certs, tmp_path):
    done("certs", "init", "--data-dir", tmp_path / "other")
    (certs / "crl.pem").write_bytes((tmp_path / "other/certs/crl.pem").read_bytes())
    issued_before = "crl.pem is not signed by the CA beside it"
    assert issued_before in failed(1, "certs", "list")


# --- all of it together -------------------------------------------------------------------------


def test_a_server_and_a_command_use_the_files_as_they_are(tmp_path):
    data_dir = tmp_path / "data"
    command, serve, *options = shlex.split(done("certs", "init", "--data-dir", data_dir))
    assert (command, serve) == ("rpcshare", "serve")
    certificate, key = done("certs", "issue", "build-1", "--data-dir", data_dir).splitlines()
    ca = data_dir / "certs/ca.pem"
    shown = ("--ca", ca, "--cert", certificate, "--cert-key", key)
    session = tmp_path / "session.json"
    session.write_text('[{"type": "message", "data": {"id": "msg_1"}}]')
    with RunningServer(data_dir, *options) as server:
        url = ("--url", server.url)
        done("push", session, "ses_with_a_certificate_1", *url, *shown)
        # Its own, and not the admin's, whose token is there too.
        assert "ificate_1"[-8:] in done("ls", *url, *shown)
        done("certs", "revoke", "build-1", "--data-dir", data_dir)
        while run("ls", *url, *shown).exit_code == 0:
            pass
        assert failed(4, "ls", *url, *shown).startswith("Unauthorized")
        assert "CERTIFICATE_VERIFY_FAILED" in failed(1, "ls", *url)
