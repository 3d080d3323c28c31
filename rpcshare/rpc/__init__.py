"""Capability RPC in Python: the Cap'n Web protocol, wire-compatible with the ``capnweb`` package from npm.

Objects are passed by reference, in both directions, and results can be used before they have arrived::

    class Counter(RpcTarget):
        @rpc_method("increment(by?)")
        def increment(self, by: int = 1) -> int: ...

    async with Connection(transport, main=Counter()) as connection:
        print(await connection.remote_main.increment(5))

The pieces, from the inside out: :mod:`~rpcshare.rpc.values` and :mod:`~rpcshare.rpc.stub` (what an
application handles), :mod:`~rpcshare.rpc.session` (the rules, without input or output),
:mod:`~rpcshare.rpc.codec` (messages as text), :mod:`~rpcshare.rpc.transport` (what carries them) and
:mod:`~rpcshare.rpc.connection` (what drives it all, on asyncio or trio). PROTOCOL.md describes the wire.
"""

from typing import TYPE_CHECKING

from rpcshare.rpc.codec import JSON, Codec, JSONCodec
from rpcshare.rpc.connection import Connection
from rpcshare.rpc.errors import (
    AggregateError,
    ConnectionLostError,
    DisposedError,
    EncodeError,
    LimitExceededError,
    ProtocolError,
    RpcError,
    SessionClosedError,
    ThrownValueError,
)
from rpcshare.rpc.fetch import URL, Blob, Headers, Request, Response
from rpcshare.rpc.limits import Limits
from rpcshare.rpc.local_stubs import promise, stub
from rpcshare.rpc.payload import notify, when_room
from rpcshare.rpc.preencoded import Preencoded
from rpcshare.rpc.session import OnSendError, Session, Stats
from rpcshare.rpc.streams import ReadableStream, Sink, WritableStream
from rpcshare.rpc.stub import Promise, Stub
from rpcshare.rpc.target import RpcTarget, rpc_method, rpc_property
from rpcshare.rpc.transport import MemoryTransport, Transport, TransportClosedError, memory_pair
from rpcshare.rpc.values import (
    UNDEFINED,
    ArrayBuffer,
    BigInt,
    DataView,
    Date,
    Uint8ClampedArray,
    Undefined,
)

if TYPE_CHECKING:
    from rpcshare.rpc.websocket import WebSocketTransport

__all__ = [
    "JSON",
    "UNDEFINED",
    "URL",
    "AggregateError",
    "ArrayBuffer",
    "BigInt",
    "Blob",
    "Codec",
    "Connection",
    "ConnectionLostError",
    "DataView",
    "Date",
    "DisposedError",
    "EncodeError",
    "Headers",
    "JSONCodec",
    "LimitExceededError",
    "Limits",
    "MemoryTransport",
    "OnSendError",
    "Preencoded",
    "Promise",
    "ProtocolError",
    "ReadableStream",
    "Request",
    "Response",
    "RpcError",
    "RpcTarget",
    "Session",
    "SessionClosedError",
    "Sink",
    "Stats",
    "Stub",
    "ThrownValueError",
    "Transport",
    "TransportClosedError",
    "Uint8ClampedArray",
    "Undefined",
    "WebSocketTransport",
    "WritableStream",
    "memory_pair",
    "notify",
    "promise",
    "rpc_method",
    "rpc_property",
    "stub",
    "when_room",
]


def __getattr__(name: str) -> object:
    # The package `websockets` takes longer to import than all of this.
    if name == "WebSocketTransport":
        from rpcshare.rpc.websocket import WebSocketTransport  # noqa: PLC0415

        return WebSocketTransport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
