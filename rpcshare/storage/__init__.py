"""Where objects are kept: the :class:`ObjectStore` protocol and what implements it."""

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

__all__ = [
    "MemoryStore",
    "ObjectInfo",
    "ObjectStore",
    "PreconditionFailedError",
    "SqliteStore",
    "StoreError",
    "StoredObject",
    "open_store",
]
