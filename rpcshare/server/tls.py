"""TLS as the settings have it: the server's certificate, and what it asks of its clients."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from rpcshare.auth.certificate_files import CertificateFileError, file_version, read_certificates, read_file
from rpcshare.config import Settings
from rpcshare.structured_log import structlog

__all__ = ["ServerTls"]

logger = structlog.get_logger("rpcshare.server")

# How often, in seconds, it is looked whether the certificate has been renewed.
RENEWAL_INTERVAL = 2.0


class ServerTls:
    """How connections are encrypted.

    Workers are forked with the one that they share: a session that one has begun, another resumes.

    Raises:
        CertificateFileError: a file is of no use.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._loaded = self._versions()
        self.context = _made(certificate, key, client_ca)

    @classmethod
    def of_settings(cls, settings: Settings) -> ServerTls | None:
        """Return what the settings have; None: connections are not encrypted."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key, settings.client_ca)

    @contextlib.contextmanager
    def renewing(self) -> Iterator[None]:
        """Show a certificate that is renewed to whoever connects after that. Needs a running event loop."""
        self._renew()  # it may have been before this process was there
        watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_INTERVAL)
            self._renew()

    def _renew(self) -> None:
        found = self._versions()
        if found == self._loaded:
            return
        self._loaded = found
        try:
            # Elsewhere first: a context that is given another's key has none.
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._certificate, self._key)
            _load(self.context, self._certificate, self._key)
        except CertificateFileError as exc:
            logger.warning("the server goes on with the certificate that it has", reason=str(exc))
        else:
            logger.info("the server shows another certificate")

    def _versions(self) -> tuple[object, object]:
        return file_version(self._certificate), file_version(self._key)


def _made(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Who is at the other end is settled once.
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load(context, certificate, key)
    if client_ca is not None:
        read_certificates(client_ca)
        context.load_verify_locations(client_ca)
        # Whoever shows none is asked for a credential; a certificate of another CA ends the handshake.
        context.verify_mode = ssl.CERT_OPTIONAL
        # What is named is trusted, be it an intermediate CA.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have ``context`` show a certificate.

    Raises:
        CertificateFileError: a file is of no use, or the key is another's.
    """

    def refuse() -> NoReturn:
        # Without this, OpenSSL would ask for the password on the terminal.
        raise CertificateFileError(f"{key} is encrypted; a server needs its key without a password")

    for path in (certificate, key):
        read_file(path)
    try:
        context.load_cert_chain(certificate, key, refuse)
    except CertificateFileError:
        raise
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise CertificateFileError(f"{key} is not the key of the certificate in {certificate}") from None
        reason = (exc.reason or "no certificate there").lower().replace("_", " ")
        raise CertificateFileError(
            f"{certificate} and {key} are not a certificate and its key, in PEM: {reason}"
        ) from None
