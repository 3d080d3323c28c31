"""Share coding-agent sessions live from a server of your own, over capability RPC.

What a script needs is here; the server is :mod:`rpcshare.server`, the protocol :mod:`rpcshare.rpc`.
"""

from rpcshare.version import __version__

__all__ = ["__version__"]
