"""Certificates that count no more before they expire (RFC 5280, section 5)."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

from rpcshare.auth.certificate_files import (
    CertificateFileError,
    file_version,
    read_certificates,
    read_revocation_lists,
)

__all__ = ["RevocationList"]

logger = logging.getLogger(__name__)


class RevocationList:
    """The lists in a PEM file, each signed by one of the CAs; read anew when the file has changed.

    Args:
        path: of the file.
        authorities: the CAs' certificates.

    Raises:
        CertificateFileError: the file cannot be read, holds no list, or one that no CA has signed.
    """

    def __init__(self, path: Path, authorities: Sequence[x509.Certificate]) -> None:
        self._path = path
        self._authorities = tuple(authorities)
        self._version = file_version(path)
        self._revoked = self._read()

    @classmethod
    def of_files(cls, path: Path, authorities: Path) -> RevocationList:
        """Return the list in the file ``path``, of the CAs in the file ``authorities``."""
        return cls(path, read_certificates(authorities))

    def __contains__(self, key: tuple[bytes, int]) -> bool:
        """Whether the certificate of an issuer's name, in DER, and a serial number has been revoked."""
        return key in self._revoked

    def read_if_changed(self) -> bool:
        """Read the file if it is not the one that was read last, and return whether it was.

        A file that is of no use is told of once, and what was read before it stays.

        Raises:
            CertificateFileError: as when this was made.
        """
        version = file_version(self._path)
        if version == self._version:
            return False
        # Noted first, or a bad file would be told of each time that somebody looks.
        self._version = version
        self._revoked = self._read()
        return True

    def _read(self) -> frozenset[tuple[bytes, int]]:
        try:
            return frozenset(
                (crl.issuer.public_bytes(), entry.serial_number)
                for crl in map(self._checked, read_revocation_lists(self._path))
                for entry in crl
            )
        except ValueError:  # lists are parsed as they are looked at
            raise CertificateFileError(f"{self._path} holds a malformed revocation list") from None

    def _checked(self, crl: x509.CertificateRevocationList) -> x509.CertificateRevocationList:
        signed = [
            authority
            for authority in self._authorities
            if authority.subject == crl.issuer and _has_signed(authority, crl)
        ]
        if not signed:
            raise CertificateFileError(
                f"{self._path} holds a revocation list that none of the CAs has signed"
            )
        if crl.next_update_utc is not None and crl.next_update_utc < dt.datetime.now(dt.UTC):
            logger.warning(
                "the revocation list in %s should have been renewed by %s; it counts all the same",
                self._path,
                crl.next_update_utc.isoformat(),
            )
        return crl


def _has_signed(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        return crl.is_signature_valid(cast("CertificateIssuerPublicKeyTypes", authority.public_key()))
    except (UnsupportedAlgorithm, TypeError, ValueError):
        return False
