"""Share coding-agent sessions live from a server of your own, over capability RPC.

What a script needs is here; the server is :mod:`rpcshare.server`, the protocol :mod:`rpcshare.rpc`. A name is
imported when it is first used, so that the server and the command line do not import the client.
"""

import importlib

from rpcshare.compiled import core
from rpcshare.version import __version__

core()  # before all other imports: it decides which of them come from extension modules

TYPE_CHECKING = False  # type checkers know it by its name: nothing here needs typing
if TYPE_CHECKING:
    from rpcshare.client import (
        AccessSettings,
        Agent,
        AgentEvent,
        AgentEvents,
        AgentInfo,
        AgentRequest,
        Agents,
        BlockingShareClient,
        ConnectFailedError,
        ConnectionState,
        EventStream,
        Identity,
        SearchHit,
        SearchPage,
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

__all__ = [
    "UNDEFINED",
    "AccessSettings",
    "Agent",
    "AgentEvent",
    "AgentEvents",
    "AgentInfo",
    "AgentRequest",
    "Agents",
    "BlockingShareClient",
    "ConnectFailedError",
    "ConnectionState",
    "ErrorCode",
    "EventStream",
    "Identity",
    "RpcError",
    "RpcTarget",
    "SearchHit",
    "SearchPage",
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

_MODULES = {
    "rpcshare.errors": ("ErrorCode", "ShareError"),
    "rpcshare.rpc": ("UNDEFINED", "RpcError", "RpcTarget", "SessionClosedError", "Stub", "rpc_method"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in ("client", "errors", "rpc"):
        return importlib.import_module(f"rpcshare.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_MODULE_OF.get(name, "rpcshare.client")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
