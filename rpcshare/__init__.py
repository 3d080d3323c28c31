"""Share coding-agent sessions live from a server of your own, over capability RPC.

What a script needs is here; the server is :mod:`rpcshare.server`, the protocol :mod:`rpcshare.rpc`.
"""

from rpcshare.compiled import core  # isort: split

core()  # before all imports that follow: it decides which of them come from extension modules

from rpcshare.client import (
    AccessSettings,
    BlockingShareClient,
    ConnectFailedError,
    ConnectionState,
    EventStream,
    Identity,
    SessionIndex,
    SessionPage,
    ShareClient,
    ShareCredentials,
    ShareEvent,
    StateChange,
    ViewToken,
    batch,
    connect,
    connect_blocking,
)
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import UNDEFINED, RpcError, RpcTarget, SessionClosedError, Stub, rpc_method
from rpcshare.version import __version__

__all__ = [
    "UNDEFINED",
    "AccessSettings",
    "BlockingShareClient",
    "ConnectFailedError",
    "ConnectionState",
    "ErrorCode",
    "EventStream",
    "Identity",
    "RpcError",
    "RpcTarget",
    "SessionClosedError",
    "SessionIndex",
    "SessionPage",
    "ShareClient",
    "ShareCredentials",
    "ShareError",
    "ShareEvent",
    "StateChange",
    "Stub",
    "ViewToken",
    "__version__",
    "batch",
    "connect",
    "connect_blocking",
    "rpc_method",
]
