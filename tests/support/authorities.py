"""CAs for tests, which issue what a sane one would not: expired certificates, nameless ones, odd lists."""

import datetime as dt
import ssl
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority", "client_context"]

DAY = dt.timedelta(days=1)

_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


class Authority:
    """A CA whose files are in ``directory``: ``ca.pem``, and what it is asked for."""

    def __init__(self, directory: Path, name: str = "test CA") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            self._builder(common_name(name), common_name(name), self.key, now() - DAY, now() + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS, critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.path = directory / "ca.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        cn: str = "",
        *names: x509.GeneralName,
        expires: dt.datetime | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> x509.Certificate:
        """Return a certificate, having written it and its key to ``SERIAL.pem``: see :meth:`pem`."""
        key = ec.generate_private_key(ec.SECP256R1())
        expires = expires or now() + DAY
        builder = self._builder(
            common_name(cn), self.certificate.subject, key, expires - 2 * DAY, expires
        ).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        # From Python 3.13 on, ssl wants what RFC 5280 wants.
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(by, critical=False)
        if names:
            # Likewise: critical, where the subject says nothing.
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not cn)
        certificate = builder.sign(self.key, hashes.SHA256())
        self.pem(certificate).write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate

    def issue_to_server(self) -> Path:
        """Return the file with a certificate for the loopback, and its key."""
        names = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))
        return self.pem(self.issue("server", *names, usage=ExtendedKeyUsageOID.SERVER_AUTH))

    def pem(self, certificate: x509.Certificate) -> Path:
        return self.directory / f"{certificate.serial_number:x}.pem"

    def revocation_list(
        self, revoked: Iterable[x509.Certificate] = (), *, due: dt.datetime | None = None
    ) -> bytes:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(now() - 2 * DAY).next_update(due or now() + DAY)
        for certificate in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now())
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    @staticmethod
    def _builder(
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        begins: dt.datetime,
        expires: dt.datetime,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(expires)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def client_context(authority: Authority, pem: Path | None = None) -> ssl.SSLContext:
    """Return how a client connects that trusts ``authority`` and shows the certificate in ``pem``."""
    context = ssl.create_default_context(cafile=authority.path)
    if pem is not None:
        context.load_cert_chain(pem)
    return context
