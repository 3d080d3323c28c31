"""Whom a connection itself stands for, as the settings have it: by certificate, or by a proxy's word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from rpcshare.auth.client_certificates import ClientCertificateVerifier
from rpcshare.auth.handshake import HeadVerifier
from rpcshare.auth.revocation_list import RevocationList
from rpcshare.auth.trusted_proxies import ProxySubjectVerifier
from rpcshare.config import Settings

__all__ = ["head_verifiers"]


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
