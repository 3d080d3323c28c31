"""What a command trusts and shows where the server speaks TLS."""

import ssl
from pathlib import Path

import click
import msgspec

__all__ = ["TlsFiles", "client_context", "tls_files"]


class TlsFiles(msgspec.Struct, frozen=True):
    """The files, all of them PEM, that the user has named."""

    ca: Path | None = None
    """CAs to trust beside the system's."""
    cert: Path | None = None
    """The client certificate to show."""
    cert_key: Path | None = None
    """Its key; None: it is in the same file."""

    def without_certificate(self) -> "TlsFiles":
        """Return what is left for a server that is not to see the certificate."""
        return TlsFiles(self.ca)


def tls_files(ca: Path | None, cert: Path | None, cert_key: Path | None) -> TlsFiles:
    """Return the files.

    Raises:
        click.UsageError: there is a key, and no certificate.
    """
    if cert_key is not None and cert is None:
        raise click.UsageError("--cert-key: needs --cert too")
    return TlsFiles(ca, cert, cert_key)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return how to connect.

    Raises:
        click.ClickException: a file holds something else.
        OSError: one cannot be read.
    """
    context = ssl.create_default_context()
    for path in (files.ca, files.cert, files.cert_key):
        _require_readable(path)
    if files.ca is not None:
        try:
            context.load_verify_locations(files.ca)
        except ssl.SSLError:
            raise click.ClickException(f"--ca: {files.ca} does not hold certificates in PEM") from None
    if files.cert is not None:
        try:
            context.load_cert_chain(files.cert, files.cert_key)
        except ssl.SSLError:
            raise click.ClickException(
                f"--cert: {files.cert} does not hold a certificate in PEM of which "
                f"{files.cert_key or 'it'} holds the key"
            ) from None
    return context


def _require_readable(path: Path | None) -> None:
    if path is not None:
        with path.open("rb"):
            pass
