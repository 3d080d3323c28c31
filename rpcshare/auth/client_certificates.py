"""Callers by their TLS client certificates (RFC 5280)."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Set as AbstractSet
from functools import lru_cache
from weakref import WeakValueDictionary

from cryptography import x509
from cryptography.x509.oid import NameOID

from rpcshare.auth.caller import Caller, Scope
from rpcshare.auth.certificate_files import CertificateFileError
from rpcshare.auth.credential_validity import CredentialValidity
from rpcshare.auth.request_head import ClientCertificate, RequestHead
from rpcshare.auth.revocation_list import RevocationList
from rpcshare.auth.subject_sources import Source
from rpcshare.auth.subjects import fault_of_subject
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["ClientCertificateVerifier", "name_in", "parse_client_certificate"]

logger = logging.getLogger(__name__)

# How often it is looked whether there is another revocation list. PROTOCOL.md promises 5 s.
CHECK_INTERVAL = 1.0


class ClientCertificateVerifier:
    """Knows the caller whom a client certificate names. That it is valid for its CA, TLS has checked.

    Args:
        scopes: of every caller with a certificate.
        revoked: which certificates count no more; None: all of them do until they expire.
    """

    def __init__(self, scopes: AbstractSet[Scope], revoked: RevocationList | None = None) -> None:
        self._scopes = frozenset(scopes)
        self._revoked = revoked
        # Those of callers that there are; a certificate has one, over all of its connections.
        self._standings: WeakValueDictionary[tuple[x509.Certificate, ...], CredentialValidity] = (
            WeakValueDictionary()
        )

    async def verify(self, head: RequestHead) -> Caller | None:
        """Return whom the certificate names, or None if there is none.

        Raises:
            ShareError: UNAUTHORIZED, for one that has been revoked or has expired, or a CA of which has, or
                that names nobody.
        """
        certificate = head.peer_certificate
        if certificate is None:
            return None
        chain = self._checked(certificate.chain)
        # A connection may be older than the expiry of what opened it.
        if certificate.expires_at <= time.time():
            raise _unauthorized("the client certificate has expired")
        fault = fault_of_subject(certificate.subject, self._scopes)
        if fault is not None:
            raise _unauthorized(f"the name in the client certificate {fault}")
        standing = self._standings.get(chain)
        # One that was only on hold has a new standing when it is taken from the list again.
        if standing is None or standing.is_over:
            standing = self._standings[chain] = CredentialValidity(certificate.expires_at)
        return Caller(certificate.subject, self._scopes, standing=standing, source=Source.CERTIFICATE)

    async def watch(self) -> None:
        """Read the revocation list whenever it changes, and end what revoked certificates have opened.

        Returns if there is no list; otherwise goes on until it is cancelled.
        """
        if self._revoked is None:
            return
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                has_changed = await asyncio.to_thread(self._revoked.read_if_changed)
            except CertificateFileError as exc:
                logger.warning("%s; the revocation list that was read before it counts", exc)
                continue
            if has_changed:
                for chain, standing in list(self._standings.items()):
                    if any(certificate in self._revoked for certificate in chain):
                        standing.end()

    def _checked(self, chain: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, ...]:
        """Return a client's certificate with all CAs that vouch for it, none of which has been revoked."""
        if self._revoked is None or not chain:
            return chain
        if len(chain) == 1:  # a TLS session that is resumed
            authorities = self._revoked.chain_of(chain[0])
            if authorities is None:
                raise _unauthorized("the CA of the client certificate is not known here; connect anew")
            chain += authorities
        self._revoked.learn(chain[1:])
        if chain[0] in self._revoked:
            raise _unauthorized("the client certificate has been revoked")
        if any(authority in self._revoked for authority in chain[1:]):
            raise _unauthorized("a CA of the client certificate has been revoked")
        return chain


# A connection shows the same certificate with each of its requests.
@lru_cache(maxsize=1024)
def parse_client_certificate(*pems: str) -> ClientCertificate:
    """Return what counts of a certificate that TLS has accepted, and of the CAs that vouch for it."""
    try:
        chain = tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in pems)
    except ValueError:
        # OpenSSL is more lenient. It names nobody, and so it is refused.
        return ClientCertificate(subject="", expires_at=math.inf)
    return ClientCertificate(
        subject=name_in(chain[0]),
        expires_at=min(each.not_valid_after_utc.timestamp() for each in chain),
        chain=chain,
    )


def name_in(certificate: x509.Certificate) -> str:
    """Return the first URI, e-mail address or DNS name of ``certificate``, else its CN, else ``""``."""
    try:
        for name in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value:
            if isinstance(name, x509.UniformResourceIdentifier | x509.RFC822Name | x509.DNSName):
                return name.value
    except x509.ExtensionNotFound:
        pass
    except (x509.DuplicateExtension, ValueError):
        return ""  # what cannot be read is no reason to take another name
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        return attribute.value if isinstance(attribute.value, str) else ""
    return ""


def _unauthorized(reason: str) -> ShareError:
    return ShareError(ErrorCode.UNAUTHORIZED, f"Unauthorized: {reason}")
