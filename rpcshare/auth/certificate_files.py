"""Files with certificates, keys and revocation lists in them, and what goes wrong with those."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

__all__ = [
    "CertificateFileError",
    "FileVersion",
    "file_version",
    "read_certificates",
    "read_file",
    "read_revocation_lists",
    "replace_file",
    "write_new_file",
]

FileVersion = tuple[int, int, int]
"""What changes with a file: the time, the size, the inode."""

_MAX_FILE_SIZE = 64 * 1024**2

_REVOCATION_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class CertificateFileError(OSError):
    """A file of certificates or keys is of no use; the message has its path, and never a key."""


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, of which there is one at least.

    Raises:
        CertificateFileError: it cannot be read, or holds something else.
    """
    from cryptography import x509  # noqa: PLC0415 -- few servers read any, and it takes long to import

    try:
        return x509.load_pem_x509_certificates(read_file(path))
    except ValueError:
        raise CertificateFileError(f"{path} does not hold certificates in PEM") from None


def read_revocation_lists(path: Path) -> list[x509.CertificateRevocationList]:
    """Return the revocation lists in a PEM file, of which there is one at least.

    Raises:
        CertificateFileError: as for :func:`read_certificates`.
    """
    from cryptography import x509  # noqa: PLC0415 -- as above

    blocks = _REVOCATION_LIST.findall(read_file(path))
    try:
        if blocks:
            return [x509.load_pem_x509_crl(block) for block in blocks]
    except ValueError:
        pass  # told below
    raise CertificateFileError(f"{path} does not hold a revocation list in PEM")


def read_file(path: Path) -> bytes:
    """Return what a file holds.

    Raises:
        CertificateFileError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_SIZE)
    except OSError as exc:
        raise CertificateFileError(f"cannot read {path}: {exc.strerror}") from exc


def file_version(path: Path) -> FileVersion | None:
    """Return the version of a file; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def write_new_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that is not there yet; it is there with all of its content or not at all.

    Raises:
        CertificateFileError: it is there, or cannot be written.
    """
    with _draft_of(path, content, mode) as draft:
        path.hardlink_to(draft)  # which, unlike a rename, replaces nothing
        draft.unlink()


def replace_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file in the place of another; who reads it finds either of them, whole.

    Raises:
        CertificateFileError: it cannot be written.
    """
    with _draft_of(path, content, mode) as draft:
        draft.replace(path)


@contextmanager
def _draft_of(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # Whoever has to make the directory keeps it to itself.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123 -- a descriptor
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield draft
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise CertificateFileError(f"{path} is there already") from None
    except OSError as exc:
        raise CertificateFileError(f"cannot write {path}: {exc.strerror}") from exc
