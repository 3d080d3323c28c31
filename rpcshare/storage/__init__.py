"""Where objects are kept: the :class:`ObjectStore` protocol and what implements it.

Not imported from here, because it needs packages that not every server has:
:class:`rpcshare.storage.s3.S3Store` and :class:`rpcshare.storage.encryption.EncryptedStore`.
"""

from rpcshare.storage.conditional_writes import UnconditionalWritesError, check_conditional_writes
from rpcshare.storage.memory import MemoryStore
from rpcshare.storage.opening import open_store
from rpcshare.storage.sqlite import SqliteStore
from rpcshare.storage.store import (
    ObjectInfo,
    ObjectStore,
    PreconditionFailedError,
    StoredObject,
    StoreError,
)
from rpcshare.storage.store_identity import IDENTITY_KEY, StoreIdentity, store_identity

__all__ = [
    "IDENTITY_KEY",
    "MemoryStore",
    "ObjectInfo",
    "ObjectStore",
    "PreconditionFailedError",
    "SqliteStore",
    "StoreError",
    "StoreIdentity",
    "StoredObject",
    "UnconditionalWritesError",
    "check_conditional_writes",
    "open_store",
    "store_identity",
]
