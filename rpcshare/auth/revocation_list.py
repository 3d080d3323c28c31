"""Certificates that count no more before they expire (RFC 5280, sections 5 and 6.3)."""

from __future__ import annotations

import datetime as dt
import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID

from rpcshare.auth.certificate_files import (
    CertificateFileError,
    file_version,
    read_certificates,
    read_revocation_lists,
)

__all__ = ["RevocationList", "canonical_name"]

logger = logging.getLogger(__name__)

_MAX_AUTHORITIES = 1000  # that are learnt from clients


def canonical_name(name: x509.Name) -> tuple[frozenset[tuple[str, str]], ...]:
    """Return what is equal for names that RFC 5280, section 7.1, takes for the same.

    How a string is encoded, its case, and how much white space is in it make no difference.
    """
    return tuple(
        frozenset((attribute.oid.dotted_string, _canonical(attribute.value)) for attribute in rdn)
        for rdn in name.rdns
    )


def _canonical(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


_Name = tuple[frozenset[tuple[str, str]], ...]


class _Signer(NamedTuple):
    """A CA: several may have one name, and one key is one CA's."""

    name: _Name
    key: bytes

    @classmethod
    def of(cls, authority: x509.Certificate) -> _Signer:
        key = authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(canonical_name(authority.subject), key)


class _Scope(NamedTuple):
    """What a list is of: one takes the place of another only if both are of the same."""

    signer: _Signer
    part: bytes
    """The critical extensions that say which certificates the list is about; empty: all of the CA's."""
    is_delta: bool
    """Whether it has only what was revoked since another list."""

    @classmethod
    def of(cls, crl: x509.CertificateRevocationList, signer: _Signer) -> _Scope:
        deltas = [each for each in crl.extensions if each.oid == ExtensionOID.DELTA_CRL_INDICATOR]
        part = [
            each.oid.dotted_string.encode() + each.value.public_bytes()
            for each in crl.extensions
            if each.critical and each not in deltas
        ]
        return cls(signer, b"".join(sorted(part)), bool(deltas))


class RevocationList:
    """The lists in a PEM file, each signed by one of the CAs; read anew when the file has changed.

    A list that no known CA has signed is left out, and waits for a client to show the CA. A list that is
    older than one that was read before does not take its place. Lists of parts of what a CA has issued, and
    a list of what was revoked since another, count beside the others.

    Args:
        path: of the file.
        authorities: the CAs' certificates.

    Raises:
        CertificateFileError: the file cannot be read, holds no list, or none that a CA has signed.
    """

    def __init__(self, path: Path, authorities: Sequence[x509.Certificate]) -> None:
        self._path = path
        self._authorities = {_Signer.of(authority): authority for authority in authorities}
        self._lists: dict[_Scope, x509.CertificateRevocationList] = {}
        self._waiting: list[x509.CertificateRevocationList] = []  # signed by CAs that are not known
        self._revoked: frozenset[tuple[_Name, int]] = frozenset()
        self._version = file_version(path)
        self._read()
        self._tell_what_is_not_checked()

    @classmethod
    def of_files(cls, path: Path, authorities: Path) -> RevocationList:
        """Return the list in the file ``path``, of the CAs in the file ``authorities``."""
        return cls(path, read_certificates(authorities))

    def __contains__(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate, of a client or of a CA, has been revoked."""
        return (canonical_name(certificate.issuer), certificate.serial_number) in self._revoked

    @property
    def unchecked(self) -> list[str]:
        """The names (RFC 4514) of the CAs of which there is no list: what they issued cannot be checked."""
        return sorted(self._authorities[signer].subject.rfc4514_string() for signer in self._without_list())

    def chain_of(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...] | None:
        """Return the known CAs that vouch for a certificate, its issuer first; None if there are none.

        For a TLS session that is resumed, of which no chain is to be had.
        """
        chain: list[x509.Certificate] = []
        while True:
            last = chain[-1] if chain else certificate
            issuer = next(
                (authority for authority in self._authorities.values() if _has_issued(authority, last)), None
            )
            if issuer is None or issuer in chain:
                return tuple(chain) or None
            chain.append(issuer)

    def learn(self, authorities: Iterable[x509.Certificate]) -> None:
        """Take note of CAs that TLS has found valid; lists of theirs count from now on."""
        found = {_Signer.of(authority): authority for authority in authorities}
        new = {signer: authority for signer, authority in found.items() if signer not in self._authorities}
        if not new or len(self._authorities) + len(new) > _MAX_AUTHORITIES:
            return
        self._authorities.update(new)
        waiting, self._waiting = self._waiting, []
        self._take(waiting)
        self._tell_what_is_not_checked(new)

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
        self._read()
        return True

    def _read(self) -> None:
        lists = read_revocation_lists(self._path)
        taken = self._take(lists)
        if not taken:
            raise CertificateFileError(
                f"{self._path} holds a revocation list that none of the CAs has signed"
                if len(lists) == 1
                else f"{self._path} holds no revocation list that one of the CAs has signed"
            )
        for crl in self._waiting:
            logger.warning(
                "%s holds a revocation list of %r that no known CA has signed; it counts once a client shows "
                "that CA",
                self._path,
                crl.issuer.rfc4514_string(),
            )

    def _take(self, lists: Iterable[x509.CertificateRevocationList]) -> int:
        """Have ``lists`` count, each if its CA is known; return how many are of known CAs."""
        taken = 0
        waiting: list[x509.CertificateRevocationList] = []
        fresh = dict(self._lists)
        try:
            for crl in lists:
                signer = self._signer_of(crl)
                if signer is None:
                    waiting.append(crl)
                    continue
                taken += 1
                scope = _Scope.of(crl, signer)
                known = fresh.get(scope)
                if known is not None and _is_older(crl, known):
                    logger.warning(
                        "%s holds a revocation list of %r from %s, which is older than the one that was read "
                        "before; that one counts on",
                        self._path,
                        crl.issuer.rfc4514_string(),
                        crl.last_update_utc.isoformat(),
                    )
                    continue
                self._warn_if_overdue(crl)
                self._warn_if_indirect(crl)
                fresh[scope] = crl
            fresh = {scope: crl for scope, crl in fresh.items() if not _is_outdated(scope, fresh)}
            revoked = frozenset(
                (canonical_name(crl.issuer), serial_number)
                for scope, crl in fresh.items()
                for serial_number in _serial_numbers(scope, crl)
            )
        except ValueError:  # lists are parsed as they are looked at
            raise CertificateFileError(f"{self._path} holds a malformed revocation list") from None
        self._lists, self._revoked, self._waiting = fresh, revoked, waiting
        return taken

    def _signer_of(self, crl: x509.CertificateRevocationList) -> _Signer | None:
        name = canonical_name(crl.issuer)
        for signer, authority in self._authorities.items():
            if signer.name == name and _has_signed(authority, crl):
                return signer
        return None

    def _warn_if_overdue(self, crl: x509.CertificateRevocationList) -> None:
        if crl.next_update_utc is not None and crl.next_update_utc < dt.datetime.now(dt.UTC):
            logger.warning(
                "the revocation list in %s should have been renewed by %s; it counts all the same",
                self._path,
                crl.next_update_utc.isoformat(),
            )

    def _warn_if_indirect(self, crl: x509.CertificateRevocationList) -> None:
        if _is_indirect(crl):
            logger.warning(
                "%s holds an indirect revocation list of %r: its entries for other CAs do not count",
                self._path,
                crl.issuer.rfc4514_string(),
            )

    def _tell_what_is_not_checked(self, authorities: Iterable[_Signer] | None = None) -> None:
        told = set(self._authorities if authorities is None else authorities)
        for signer in self._without_list():
            if signer in told:
                logger.warning(
                    "%s holds no revocation list of the CA %r: what it has issued is not checked",
                    self._path,
                    self._authorities[signer].subject.rfc4514_string(),
                )

    def _without_list(self) -> list[_Signer]:
        listed = {scope.signer for scope in self._lists if not scope.is_delta}
        return [signer for signer in self._authorities if signer not in listed]


def _is_outdated(scope: _Scope, lists: Mapping[_Scope, x509.CertificateRevocationList]) -> bool:
    """Whether a list is of what was revoked before a whole list that there is."""
    whole = lists.get(scope._replace(is_delta=False))
    return scope.is_delta and whole is not None and _is_older(lists[scope], whole)


def _serial_numbers(scope: _Scope, crl: x509.CertificateRevocationList) -> Iterator[int]:
    """Yield the serial numbers of what the list's own CA has issued and revoked."""
    is_indirect = _is_indirect(crl)
    is_of_another = False
    for entry in crl:
        if is_indirect:  # such an entry, and those behind it, are of another CA
            is_of_another |= _has(entry, x509.CertificateIssuer)
        if is_of_another or (scope.is_delta and _is_taken_off(entry)):
            continue
        yield entry.serial_number


def _has(entry: x509.RevokedCertificate, kind: type[x509.ExtensionType]) -> bool:
    return any(isinstance(each.value, kind) for each in entry.extensions)


def _is_indirect(crl: x509.CertificateRevocationList) -> bool:
    try:
        point = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
    except x509.ExtensionNotFound:
        return False
    return point.value.indirect_crl


def _is_taken_off(entry: x509.RevokedCertificate) -> bool:
    """Whether an entry of a list of changes says that a certificate is good again.

    The list that it was on still has it, and counts until the next one.
    """
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return False
    return reason is x509.ReasonFlags.remove_from_crl


def _is_older(crl: x509.CertificateRevocationList, known: x509.CertificateRevocationList) -> bool:
    numbers = [_number_of(each) for each in (crl, known)]
    if numbers[0] is not None and numbers[1] is not None and numbers[0] != numbers[1]:
        return numbers[0] < numbers[1]
    return crl.last_update_utc < known.last_update_utc


def _number_of(crl: x509.CertificateRevocationList) -> int | None:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return None


def _has_signed(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        return crl.is_signature_valid(cast("CertificateIssuerPublicKeyTypes", authority.public_key()))
    except (UnsupportedAlgorithm, TypeError, ValueError):
        return False


def _has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    if canonical_name(authority.subject) != canonical_name(certificate.issuer):
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True
