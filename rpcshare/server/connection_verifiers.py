"""Whom a connection itself stands for, as the settings have it: by certificate, or by a proxy's word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rpcshare.auth.authenticator import HeadVerifier
from rpcshare.auth.proxy_secret import ProxySecret, read_proxy_secret
from rpcshare.auth.trusted_proxies import ProxySubjectVerifier, TrustedProxies
from rpcshare.config import ConfigError, Settings
from rpcshare.structured_log import structlog

if TYPE_CHECKING:
    from rpcshare.auth.revocation_list import RevocationList

__all__ = ["head_verifiers", "proxy_secret", "warn_of_wide_networks"]

logger = structlog.get_logger("rpcshare.server")


@contextlib.contextmanager
def head_verifiers(
    settings: Settings, on_lists: Callable[[RevocationList], object] = lambda _lists: None
) -> Iterator[list[HeadVerifier]]:
    """Return who knows callers by their connections, up to date while the context lasts.

    Needs a running event loop. ``on_lists`` is given the revocation lists of client certificates, if any.

    Raises:
        CertificateFileError: the revocation list is of no use.
    """
    with contextlib.ExitStack() as stack:
        verifiers: list[HeadVerifier] = []
        if settings.proxy_subject_header is not None:
            scopes = frozenset(settings.proxy_scope)
            verifiers.append(ProxySubjectVerifier(settings.proxy_subject_header, scopes))
        if settings.client_ca is not None:
            # Few servers have any, and cryptography.x509 takes long to import.
            from rpcshare.auth.client_certificates import ClientCertificateVerifier  # noqa: PLC0415
            from rpcshare.auth.revocation_list import RevocationList  # noqa: PLC0415

            revoked = None
            if settings.client_crl is not None:
                revoked = RevocationList.of_files(settings.client_crl, settings.client_ca)
            certificates = ClientCertificateVerifier(frozenset(settings.client_cert_scope), revoked)
            if revoked is not None:
                on_lists(revoked)
            verifiers.append(certificates)
            watching = asyncio.get_running_loop().create_task(certificates.watch())
            stack.callback(watching.cancel)
        yield verifiers


def proxy_secret(settings: Settings) -> ProxySecret | None:
    """Return what a trusted proxy has to show, or None if its address is enough.

    Raises:
        ConfigError: the file with the secret is of no use.
    """
    if settings.proxy_secret is not None:
        return ProxySecret(settings.proxy_secret.get_secret_value(), settings.proxy_secret_header)
    path = settings.proxy_secret_file
    if path is None:
        return None
    try:
        return ProxySecret(read_proxy_secret(path), settings.proxy_secret_header)
    except OSError as exc:
        raise ConfigError(f"--proxy-secret-file: cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"--proxy-secret-file: {exc}") from None


def warn_of_wide_networks(settings: Settings) -> None:
    """Say in the log which networks of trusted proxies have room for many others, who are believed, too."""
    if settings.proxy_secret is not None or settings.proxy_secret_file is not None:
        return
    for network in TrustedProxies(settings.trusted_proxy).wide:
        logger.warning(
            "whoever is in this network of --trusted-proxy can choose the address that limits and the audit "
            "log see, and any subject of --proxy-subject-header: name the proxies' own addresses, or have "
            "them show a secret (--proxy-secret-file)",
            network=str(network),
        )
