"""Encryption at rest: what reaches the store inside can be neither read nor moved without the keys.

An object is::

    b"RPSE"  magic
    1 byte   version, 1
    1 byte   length of the key's id, in bytes
    n bytes  the key's id, ASCII
    12 bytes nonce, random
    …        AES-256-GCM of the body, its 16-byte tag behind it

with the object's key as associated data, so that one object cannot be put in the place of another. What
can go unnoticed is that an object has been removed, or replaced by an older one of the same key.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

from cryptography.exceptions import InvalidTag

from rpcshare.storage.encryption_keys import KeyRing
from rpcshare.storage.missing_keys import ENCRYPTED_MAGIC
from rpcshare.storage.store import (
    ObjectInfo,
    ObjectStore,
    Put,
    StoredObject,
    StoreError,
)
from rpcshare.storage.store_wrapper import StoreWrapper

__all__ = ["EncryptedStore", "IntegrityError"]

_MAGIC = ENCRYPTED_MAGIC
_VERSION = 1
_NONCE_SIZE = 12  # bytes
_LARGE = 512 * 1024  # bytes that are not worked on in the event loop


class IntegrityError(StoreError):
    """An object is not what was written at its key, or not with a key that is known here."""


class EncryptedStore(StoreWrapper):
    """An :class:`~rpcshare.storage.ObjectStore` that encrypts what ``inner`` keeps.

    Keys and etags are those of the store inside, and so are the sizes in listings.
    """

    def __init__(self, inner: ObjectStore, keys: KeyRing, *, allow_plain: bool = False) -> None:
        """Encrypt what ``inner`` keeps; closing this closes ``inner``.

        Args:
            inner: where objects are kept.
            keys: with which they are encrypted.
            allow_plain: whether to read objects that are not encrypted, as long as there are some.
                Whoever can write to ``inner`` can then make any.
        """
        super().__init__(inner)
        self._keys = keys
        self._allow_plain = allow_plain

    async def get(self, key: str) -> StoredObject | None:
        """Return the object at ``key``, or None if there is none.

        Raises:
            IntegrityError: the object has been changed, or cannot be decrypted.
        """
        found = await self._inner.get(key)
        return None if found is None else await self._opened(found)

    async def put(
        self, key: str, body: bytes, *, if_absent: bool = False, if_match: str | None = None
    ) -> str:
        """Write ``body`` at ``key`` if the conditions hold, and return its etag."""
        sealed = await _run(lambda: self._encrypt(key, body), len(body))
        return await self._inner.put(key, sealed, if_absent=if_absent, if_match=if_match)

    async def apply(self, puts: Sequence[Put], deleted: Sequence[str]) -> None:
        """Write ``puts`` and remove the objects at ``deleted``, all or none, as the store inside does."""
        sealed = [put._replace(body=self._encrypt(put.key, put.body)) for put in puts]
        await super().apply(sealed, deleted)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects at ``keys``; one that is not there is no error."""
        await self._inner.delete(keys)

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is stored under ``prefix``, in key order, from behind ``start_after``."""
        return self._inner.list(prefix, start_after=start_after)

    async def scan(self, prefix: str, *, start_after: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects under ``prefix`` with their bodies, in key order.

        Raises:
            IntegrityError: the next object has been changed, or cannot be decrypted.
        """
        async for found in self._inner.scan(prefix, start_after=start_after):
            held = [await self._opened(found)]
            del found  # it may be large, and whoever takes it knows for how long
            yield held.pop()

    async def _opened(self, found: StoredObject) -> StoredObject:
        body = await _run(lambda: self._decrypt(found.key, found.body), len(found.body))
        return StoredObject(found.key, body, found.etag)

    def _encrypt(self, key: str, body: bytes) -> bytes:
        first = self._keys.first
        key_id = first.id.encode()
        nonce = secrets.token_bytes(_NONCE_SIZE)
        header = _MAGIC + bytes((_VERSION, len(key_id))) + key_id + nonce
        return header + first.cipher.encrypt(nonce, body, key.encode())

    def _decrypt(self, key: str, sealed: bytes) -> bytes:
        if not sealed.startswith(_MAGIC):
            if self._allow_plain:
                return sealed
            raise IntegrityError(f"the object at {key} is not encrypted")
        version, id_end = sealed[4:5], 6 + int.from_bytes(sealed[5:6])
        if version != bytes((_VERSION,)):
            raise IntegrityError(f"the object at {key} is encrypted in a way that is not known here")
        name = sealed[6:id_end].decode("ascii", "replace")
        encryption_key = self._keys.find(name)
        if encryption_key is None:
            raise IntegrityError(f"the object at {key} is encrypted with a key that is not listed: {name!r}")
        nonce_end = id_end + _NONCE_SIZE
        try:
            nonce, rest = sealed[id_end:nonce_end], memoryview(sealed)[nonce_end:]
            return encryption_key.cipher.decrypt(nonce, rest, key.encode())
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            raise IntegrityError(f"the object at {key} has been changed or is another's") from None


async def _run(work: Callable[[], bytes], size: int) -> bytes:
    return work() if size < _LARGE else await asyncio.to_thread(work)
