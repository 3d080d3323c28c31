"""What tells one store from every other, copies made by ``migrate`` and ``restore`` included."""

import secrets
from contextlib import suppress

import msgspec

from rpcshare.storage.store import ObjectStore, PreconditionFailedError, StoreError

__all__ = ["IDENTITY_KEY", "SERVED_WITH_KEY", "StoreIdentity", "note_shared_secret", "store_identity"]

IDENTITY_KEY = "store/identity"
"""The key of the object that holds it. It is never copied to another store."""

SERVED_WITH_KEY = "store/shared-secret"
"""The key of the object that tells by which shared secret the store was served last. Likewise."""

_VERSION = 1
_ID_BYTES = 16
_SECRET_BYTES = 32


class StoreIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A random name and a random secret, which whoever can read the store knows."""

    v: int = _VERSION
    id: str
    """Hexadecimal, 32 characters. May be shown."""
    secret: bytes
    """32 bytes, from which the nodes on the store derive the keys for what they tell each other."""

    def __repr__(self) -> str:
        """Leave out the secret."""
        return f"{type(self).__name__}(id={self.id!r})"


async def store_identity(store: ObjectStore) -> StoreIdentity:
    """Return the identity of ``store``, which is made when it is first asked for.

    Raises:
        StoreError: the store failed, or holds an identity that cannot be read.
    """
    found = await store.get(IDENTITY_KEY)
    if found is None:
        made = StoreIdentity(id=secrets.token_hex(_ID_BYTES), secret=secrets.token_bytes(_SECRET_BYTES))
        try:
            await store.put(IDENTITY_KEY, msgspec.json.encode(made), if_absent=True)
        except PreconditionFailedError:  # another node has made it at the same time
            found = await store.get(IDENTITY_KEY)
        else:
            return made
    try:
        identity = msgspec.json.decode(found.body if found else b"", type=StoreIdentity)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StoreError(f"{IDENTITY_KEY} cannot be read: {exc}") from exc
    if identity.v != _VERSION or len(identity.secret) != _SECRET_BYTES:
        raise StoreError(f"{IDENTITY_KEY} is not what this version of rpcshare writes")
    return identity


class _SharedSecret(msgspec.Struct, frozen=True, kw_only=True):
    v: int = _VERSION
    fingerprint: str


async def note_shared_secret(store: ObjectStore, fingerprint: str) -> bool:
    """Note by which shared secret ``store`` is served; return whether the last server had the same.

    Raises:
        StoreError: the store failed.
    """
    body = msgspec.json.encode(_SharedSecret(fingerprint=fingerprint))
    found = await store.get(SERVED_WITH_KEY)
    if found is not None and found.body == body:
        return True
    with suppress(PreconditionFailedError):  # another server starts at the same time
        await store.put(
            SERVED_WITH_KEY, body, if_absent=found is None, if_match=found.etag if found else None
        )
    return found is None
