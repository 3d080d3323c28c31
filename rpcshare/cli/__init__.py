"""The ``rpcshare`` command. Each of its commands is one file here, listed in :mod:`.group`."""

import sys

try:
    from rpcshare.cli.group import CommandGroup
except ModuleNotFoundError as exc:
    if exc.name != "click":
        raise
    sys.stderr.write("rpcshare: commands need more packages: pip install 'rpcshare[server]'\n")
    raise SystemExit(1) from None

__all__ = ["main"]

main = CommandGroup()
