"""Where objects are kept: the :class:`ObjectStore` protocol and what implements it.

Not imported from here, because it needs packages that not every server has:
:class:`rpcshare.storage.s3.S3Store` and :class:`rpcshare.storage.encryption.EncryptedStore`.
"""

from rpcshare.storage.conditional_write_probe import (
    UnconditionalWritesError,
    UselessConditionsError,
    check_conditional_writes,
)
from rpcshare.storage.factory import open_store
from rpcshare.storage.memory import MemoryStore
from rpcshare.storage.missing_keys import MissingKeysError, check_needs_no_keys
from rpcshare.storage.sqlite import SqliteStore
from rpcshare.storage.store import (
    AtomicStore,
    MeasuredStore,
    ObjectInfo,
    ObjectStore,
    PreconditionFailedError,
    Put,
    StoredObject,
    StoreError,
    StoreUsage,
)
from rpcshare.storage.store_identity import (
    IDENTITY_KEY,
    SERVED_WITH_KEY,
    StoreIdentity,
    note_shared_secret,
    store_identity,
)

__all__ = [
    "IDENTITY_KEY",
    "SERVED_WITH_KEY",
    "AtomicStore",
    "MeasuredStore",
    "MemoryStore",
    "MissingKeysError",
    "ObjectInfo",
    "ObjectStore",
    "PreconditionFailedError",
    "Put",
    "SqliteStore",
    "StoreError",
    "StoreIdentity",
    "StoreUsage",
    "StoredObject",
    "UnconditionalWritesError",
    "UselessConditionsError",
    "check_conditional_writes",
    "check_needs_no_keys",
    "note_shared_secret",
    "open_store",
    "store_identity",
]
