"""``rpcshare serve``."""

import gc
import os

import click

from rpcshare.cli.options import variable_warnings, with_settings
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
    _warn_of_unknown_variables(settings)
    gc.disable()  # a sixth of the time that imports take; who runs the server enables it
    # Not with the module: --help must not wait for the imports of a web server.
    from rpcshare.server.run import serve as run_server  # noqa: PLC0415

    return run_server(settings)


def _warn_of_unknown_variables(settings: Settings) -> None:
    warnings = variable_warnings(os.environ)
    if not warnings:
        return
    from rpcshare.server.logs import configure_logging  # noqa: PLC0415 -- as above
    from rpcshare.structured_log import structlog  # noqa: PLC0415

    # In the form of the log, which a program may read.
    configure_logging(settings)
    for warning in warnings:
        structlog.get_logger("rpcshare.server").warning(warning)
