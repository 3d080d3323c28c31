"""``rpcshare serve``."""

import click

from rpcshare.cli.options import with_settings
from rpcshare.config import Settings

__all__ = ["serve"]


@click.command()
@with_settings()
def serve(settings: Settings) -> int:
    """Run the server until it is stopped.

    No other service has to run. Shares are kept in the data directory, and so are the admin token and the
    shared secret, which are created at the first start. A setting on the command line wins over the
    environment, and the environment over the file of --config.
    """
    # Not with the module: --help must not wait for the imports of a web server.
    from rpcshare.server.run import serve as run_server  # noqa: PLC0415

    return run_server(settings)
