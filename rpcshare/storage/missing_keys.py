"""Noticing that a store is encrypted where nobody has named its keys."""

from rpcshare.storage.store import ObjectStore
from rpcshare.storage.store_identity import IDENTITY_KEY

__all__ = ["ENCRYPTED_MAGIC", "MissingKeysError", "check_needs_no_keys"]

ENCRYPTED_MAGIC = b"RPSE"
"""What an encrypted object begins with."""


class MissingKeysError(Exception):
    """The store is encrypted, and its keys are not given."""

    def __init__(self) -> None:
        super().__init__("the store is encrypted; --encryption-key-file must name the file with its keys")


async def check_needs_no_keys(store: ObjectStore) -> None:
    """Return if what ``store``, which was opened without keys, has can be read.

    One object is looked at: that which every server makes, or else the first.

    Raises:
        MissingKeysError: it is encrypted.
        StoreError: the store failed.
    """
    found = await store.get(IDENTITY_KEY)
    if found is None:
        async for info in store.list(""):
            found = await store.get(info.key)
            break
    if found is not None and found.body.startswith(ENCRYPTED_MAGIC):
        raise MissingKeysError
