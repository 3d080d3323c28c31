"""The secrets of a server that nobody configured: made once, kept in the data directory."""

import base64
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

from rpcshare.auth.credential import Credential, CredentialKind

__all__ = [
    "ADMIN_TOKEN_FILE",
    "SHARED_SECRET_FILE",
    "SIGNING_KEY_FILE",
    "VAULT_KEY_FILE",
    "SecretFileError",
    "admin_token",
    "kept_shared_secret",
    "shared_secret",
    "signing_key",
    "vault_key",
]

ADMIN_TOKEN_FILE = "admin-token"  # noqa: S105 -- a file's name
SHARED_SECRET_FILE = "shared-secret"  # noqa: S105 -- a file's name
SIGNING_KEY_FILE = "signing-key"
VAULT_KEY_FILE = "vault-key"

_MAX_FILE_SIZE = 16 * 1024


class SecretFileError(Exception):
    """A secret can be neither read nor kept. The message names the path and never its content."""


def admin_token(configured: str | None, data_dir: Path) -> str:
    """Return the admin token: as ``configured``, else as kept in ``data_dir``, else a new one.

    A new one is kept. Processes that start at once agree on one. The file is its owner's alone
    (mode 0600), and so is the directory if it had to be made (0700); one that was there is left
    as it is.

    Raises:
        SecretFileError: it cannot be read, makes no sense, or cannot be written.
    """
    if configured is not None:
        return configured
    return _token(*_keep(data_dir / ADMIN_TOKEN_FILE, lambda: secrets.token_urlsafe(32)))


def shared_secret(configured: UUID | None, data_dir: Path) -> UUID:
    """Return the shared secret, which is configured, kept or made as the admin token is.

    Raises:
        SecretFileError: as for :func:`admin_token`.
    """
    if configured is not None:
        return configured
    return _uuid(*_keep(data_dir / SHARED_SECRET_FILE, lambda: str(uuid4())))


def kept_shared_secret(data_dir: Path) -> UUID | None:
    """Return the shared secret kept in ``data_dir``, or None if there is none.

    Raises:
        SecretFileError: it cannot be read, or makes no sense.
    """
    path = data_dir / SHARED_SECRET_FILE
    text = _read(path)
    return None if text is None else _uuid(path, text)


def signing_key(configured: Path | None, data_dir: Path, make: Callable[[], str]) -> tuple[Path, str]:
    """Return the file with the key that tokens are signed with, and its content.

    It is the file ``configured``, which has to be there, or one in ``data_dir``, whose content is made as the
    admin token is, by ``make``.

    Raises:
        SecretFileError: it cannot be read, or cannot be written.
    """
    if configured is None:
        return _keep(data_dir / SIGNING_KEY_FILE, make)
    text = _read(configured)
    if text is None:
        raise SecretFileError(f"there is no signing key {configured}")
    return configured, text


def vault_key(data_dir: Path) -> Path:
    """Return the file with the key of the vault, made as the admin token is: one line, as a key file has it.

    Raises:
        SecretFileError: it cannot be read, or cannot be written.
    """
    path, _ = _keep(data_dir / VAULT_KEY_FILE, lambda: base64.b64encode(secrets.token_bytes(32)).decode())
    return path


def _token(path: Path, text: str) -> str:
    if not Credential(CredentialKind.TOKEN, text).is_well_formed:
        raise SecretFileError(
            f"{path} does not hold a token (one line of visible ASCII): "
            "restore it, or remove it to have a new one made"
        )
    return text


def _uuid(path: Path, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        # Raised anew, without its cause, which quotes the content.
        raise SecretFileError(
            f"{path} does not hold a UUID: restore it; removing it makes a new one, "
            "but then the secrets of all shares change"
        ) from None


def _keep(path: Path, make: Callable[[], str]) -> tuple[Path, str]:
    text = _read(path)
    if text is None:
        _write_if_absent(path, make())
        # Another process may have been first, and then it is its secret that counts.
        text = _read(path)
    if text is None:
        raise SecretFileError(f"cannot keep a secret in {path}: a link there leads nowhere")
    return path, text


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_SIZE)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise SecretFileError(
            f"cannot read {path}: {exc.strerror}; the data directory must be this user's own"
        ) from exc
    return content.decode("ascii", "replace").strip()


def _write_if_absent(path: Path, text: str) -> None:
    """Write ``path``, unless it is there already, so that nobody ever sees half of it."""
    # Written aside and then linked: a link, unlike a rename, never replaces what is there.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 -- a descriptor
                file.write(text + "\n")
                file.flush()
                os.fsync(descriptor)
            with suppress(FileExistsError):
                path.hardlink_to(draft)
        finally:
            draft.unlink()
        _sync_directory(path.parent)
    except OSError as exc:
        raise SecretFileError(
            f"cannot write {path}: {exc.strerror}; the data directory must be this user's own"
        ) from exc


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
