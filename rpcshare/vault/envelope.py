"""Envelope encryption: each value has a data key of its own, which the key ring wraps.

Both are AES-256-GCM with a random nonce of 12 bytes in front. The associated data name the row: its id, its
owner, its service and name, how often the value was changed, when it ends and who may use it. So neither a
value nor a key can be put into another row, a value that was replaced cannot come back beside the newer row,
and nobody who can write to the database makes a key last longer or serve others.

Source: NIST SP 800-38D (AES-GCM); NIST SP 800-57 part 1, 6.2 (keys that wrap keys).
"""

from __future__ import annotations

import json
import secrets
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rpcshare.storage.encryption_keys import KeyRing

__all__ = ["Place", "Sealed", "VaultIntegrityError", "open_sealed", "rewrapped", "seal"]

_NONCE_SIZE = 12  # bytes
_KEY_SIZE = 32  # bytes


class VaultIntegrityError(Exception):
    """A row is not what was written there, or not with a key that is known here. Nothing of it is told."""


class Place(NamedTuple):
    """The row that a value belongs to."""

    id: str
    owner: str
    service: str
    name: str
    version: int
    expires_at: int | None
    grants: tuple[str, ...] | None

    def associated_data(self, of: str) -> bytes:
        """Return what binds a ciphertext to this row: ``of`` is ``key`` or ``value``."""
        return json.dumps(["rpcshare vault 1", of, *self], ensure_ascii=True).encode()


class Sealed(NamedTuple):
    """A value as it is kept."""

    key_id: str
    """Of the key of the ring that wraps the data key."""
    wrapped_key: bytes
    value: bytes


def seal(keys: KeyRing, place: Place, value: str) -> Sealed:
    """Encrypt a value for the row that it is written to."""
    data_key = secrets.token_bytes(_KEY_SIZE)
    return Sealed(
        keys.first.id,
        _encrypt(keys.first.cipher, data_key, place.associated_data("key")),
        _encrypt(AESGCM(data_key), value.encode(), place.associated_data("value")),
    )


def open_sealed(keys: KeyRing, place: Place, sealed: Sealed) -> str:
    """Return the value.

    Raises:
        VaultIntegrityError: the row was changed, is another's, or the ring lacks its key.
    """
    data_key = _unwrapped(keys, place, sealed)
    return _decrypt(AESGCM(data_key), sealed.value, place.associated_data("value"), place).decode()


def rewrapped(keys: KeyRing, place: Place, sealed: Sealed) -> Sealed:
    """Return the same with its data key wrapped by the first key of the ring. The value is not touched.

    Raises:
        VaultIntegrityError: as :func:`open_sealed` does.
    """
    data_key = _unwrapped(keys, place, sealed)
    wrapped = _encrypt(keys.first.cipher, data_key, place.associated_data("key"))
    return sealed._replace(key_id=keys.first.id, wrapped_key=wrapped)


def _unwrapped(keys: KeyRing, place: Place, sealed: Sealed) -> bytes:
    key = keys.find(sealed.key_id)
    if key is None:
        raise VaultIntegrityError(
            f"the vault's entry {place.id} is under a key that the key ring lacks: {sealed.key_id!r}"
        )
    data_key = _decrypt(key.cipher, sealed.wrapped_key, place.associated_data("key"), place)
    if len(data_key) != _KEY_SIZE:
        raise VaultIntegrityError(f"the vault's entry {place.id} has been changed")
    return data_key


def _encrypt(cipher: AESGCM, plain: bytes, associated: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_SIZE)
    return nonce + cipher.encrypt(nonce, plain, associated)


def _decrypt(cipher: AESGCM, sealed: bytes, associated: bytes, place: Place) -> bytes:
    try:
        return cipher.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], associated)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        message = f"the vault's entry {place.id} has been changed, or is another's"
        raise VaultIntegrityError(message) from None
