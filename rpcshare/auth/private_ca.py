"""A CA of one's own, for one server and the machines that may use it (RFC 5280).

It is a directory::

    ca.pem          what clients trust, and what --client-ca names
    ca-key.pem      its key, for its owner alone
    crl.pem         which certificates count no more: --client-crl
    server.pem      the server's certificate and key: --tls-cert, --tls-key
    server-key.pem
    issued/         each client certificate that was issued, by serial number; no keys
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rpcshare.auth.certificate_files import (
    CertificateFileError,
    read_certificates,
    read_file,
    read_revocation_lists,
    replace_file,
    write_new_file,
)
from rpcshare.auth.client_certificates import name_in

__all__ = ["IssuedCertificate", "KeyPair", "PrivateCA", "server_names"]

CA_DAYS = 3650
# Apple's systems take no server certificate of more, whosever the CA is (support.apple.com/103769).
SERVER_DAYS = 825

# Clocks differ: what is made here may be used at once on a machine that is late.
BACKDATED = dt.timedelta(hours=1)

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

# X.520: the upper bound of a common name.
MAX_COMMON_NAME = 64

_PRIVATE, _PUBLIC = 0o600, 0o644

_DNS_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", re.ASCII)
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+", re.ASCII)


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        """Return a form without the key."""
        return f"KeyPair({self.certificate.serial_number:x})"

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, in PEM, not encrypted."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


class IssuedCertificate(msgspec.Struct, frozen=True):
    """What there is to be told of a client certificate."""

    name: str
    serial: int
    issued_at: dt.datetime
    expires_at: dt.datetime
    revoked_at: dt.datetime | None


class PrivateCA:
    """A CA that has been made already, in ``directory``.

    Raises:
        CertificateFileError: there is none, or its files are of no use.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own = self._read()

    @classmethod
    def make(cls, directory: Path) -> PrivateCA:
        """Make a CA in ``directory``.

        Raises:
            CertificateFileError: one is there, or it cannot be written.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        # Two of the same name could not be told apart where both are trusted.
        name = _common_name(f"rpcshare private CA {secrets.token_hex(4)}")
        certificate = (
            _builder(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        own = KeyPair(certificate, key)
        # The certificate last: where it is, all is.
        write_new_file(directory / "ca-key.pem", own.key_pem, mode=_PRIVATE)
        write_new_file(directory / "crl.pem", _signed_list(own, (), number=1), mode=_PUBLIC)
        write_new_file(directory / "ca.pem", own.certificate_pem, mode=_PUBLIC)
        return cls(directory)

    @staticmethod
    def is_in(directory: Path) -> bool:
        """Whether there is a CA in ``directory``, or what is left of one."""
        return (directory / "ca.pem").exists() or (directory / "ca-key.pem").exists()

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's own."""
        return self._own.certificate

    def issue_to_server(self, names: Sequence[x509.GeneralName]) -> KeyPair:
        """Return a certificate for a server of these :func:`server_names`."""
        days = min(SERVER_DAYS, self._days_left())
        return self._issue("rpcshare server", names, ExtendedKeyUsageOID.SERVER_AUTH, days)

    def issue_to_client(self, name: str, days: int) -> KeyPair:
        """Return a certificate for the caller ``name``, for so many days but no more than the CA has.

        Raises:
            ValueError: no certificate can have that name.
            CertificateFileError: it cannot be noted down.
        """
        names = _alternative_names(name)
        if not names and len(name) > MAX_COMMON_NAME:
            raise ValueError(f"a name of more than {MAX_COMMON_NAME} characters must be a URI or a DNS name")
        pair = self._issue(
            name[:MAX_COMMON_NAME], names, ExtendedKeyUsageOID.CLIENT_AUTH, min(days, self._days_left())
        )
        # Before anybody has it, so that none is in use that could not be revoked by name.
        path = self._directory / "issued" / f"{pair.certificate.serial_number:x}.pem"
        write_new_file(path, pair.certificate_pem, mode=_PUBLIC)
        return pair

    def issued(self) -> list[IssuedCertificate]:
        """Return the client certificates that were issued, oldest first.

        Raises:
            CertificateFileError: a file is of no use.
        """
        revoked = {entry.serial_number: entry.revocation_date_utc for entry in self._revocation_list()}
        certificates = [
            certificate
            for path in (self._directory / "issued").glob("*.pem")
            for certificate in read_certificates(path)
        ]
        found = [
            IssuedCertificate(
                name_in(certificate),
                certificate.serial_number,
                certificate.not_valid_before_utc + BACKDATED,
                certificate.not_valid_after_utc,
                revoked.get(certificate.serial_number),
            )
            for certificate in certificates
        ]
        return sorted(found, key=lambda one: (one.issued_at, one.name, one.serial))

    def revoke(self, serials: Iterable[int]) -> None:
        """Add certificates to the revocation list, which servers read again when it changes.

        Raises:
            CertificateFileError: the list cannot be read or written.
        """
        old = self._revocation_list()
        added = [
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_now()).build()
            for serial in dict.fromkeys(serials)
            if old.get_revoked_certificate_by_serial_number(serial) is None
        ]
        number = old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        crl = _signed_list(self._own, [*old, *added], number + 1)
        replace_file(self._directory / "crl.pem", crl, mode=_PUBLIC)

    def _issue(
        self, common_name: str, names: Sequence[x509.GeneralName], usage: x509.ObjectIdentifier, days: int
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        own = self._own.certificate
        builder = (
            _builder(_common_name(common_name), own.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_authority(own), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return KeyPair(builder.sign(self._own.key, hashes.SHA256()), key)

    def _days_left(self) -> int:
        return (self._own.certificate.not_valid_after_utc - _now()).days

    def _read(self) -> KeyPair:
        (certificate, *_) = read_certificates(self._directory / "ca.pem")
        path = self._directory / "ca-key.pem"
        try:
            key = serialization.load_pem_private_key(read_file(path), None)
        except (ValueError, TypeError):
            raise CertificateFileError(f"{path} does not hold a key in PEM without a password") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CertificateFileError(f"{path} is not the key of the CA beside it")
        return KeyPair(certificate, key)

    def _revocation_list(self) -> x509.CertificateRevocationList:
        path = self._directory / "crl.pem"
        (crl, *_) = read_revocation_lists(path)
        if not crl.is_signature_valid(self._own.key.public_key()):
            raise CertificateFileError(f"{path} is not signed by the CA beside it")
        return crl


def _signed_list(own: KeyPair, revoked: Iterable[x509.RevokedCertificate], number: int) -> bytes:
    """Return a revocation list of the CA ``own``, in PEM."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(own.certificate.subject)
        .last_update(_now())
        # Nobody renews it but who revokes: it is due when there is no CA any more.
        .next_update(own.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority(own.certificate), critical=False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(own.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _authority(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return how what a CA signs names its key."""
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def server_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    """Return the names under which a server is reached: this machine's own, and ``hosts``.

    Raises:
        ValueError: one is neither a host's name nor an address.
    """
    return [_host(host) for host in dict.fromkeys((*LOCAL_HOSTS, *hosts))]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = _now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative_names(name: str) -> list[x509.GeneralName]:
    """Return ``name`` as the kind that it looks like; none if it is only fit for a common name."""
    if _URI.fullmatch(name):
        return [x509.UniformResourceIdentifier(name)]
    if _EMAIL.fullmatch(name):
        return [x509.RFC822Name(name)]
    if _DNS_NAME.fullmatch(name):
        return [x509.DNSName(name)]
    return []


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass  # then it is a name
    if not _DNS_NAME.fullmatch(text.removeprefix("*.")):
        raise ValueError(f"{text!r} is neither a host's name nor an address")
    return x509.DNSName(text)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
