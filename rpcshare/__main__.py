"""``python -m rpcshare``: the same as the command ``rpcshare``."""

from rpcshare.cli import main

main(prog_name="rpcshare")
