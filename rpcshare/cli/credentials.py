"""``rpcshare credentials``."""

import click
import msgspec
from click.core import ParameterSource

from rpcshare.auth.secret_files import kept_shared_secret
from rpcshare.cli.connection import checked_url
from rpcshare.cli.options import with_settings
from rpcshare.cli.profile_store import base_of
from rpcshare.cli.terminal import json_text, say
from rpcshare.config import Settings
from rpcshare.shares.share_identity import Credentials

__all__ = ["credentials"]


@click.command()
@click.argument("session_id")
@click.option("--json", "as_json", is_flag=True, help="Print them as a JSON object.")
@click.option(
    "--url",
    envvar="RPCSHARE_URL",
    metavar="URL",
    help="URL of the server, for the URL of the share. [default: --public-url, or where the settings have "
    "the server listen] [env: RPCSHARE_URL]",
)
@with_settings("data_dir", "public_url", "shared_secret")
def credentials(settings: Settings, session_id: str, as_json: bool, url: str | None) -> None:
    """Print the id, URL and secret of SESSION_ID's share.

    The command computes them: no server has to run, and the share need not exist. They are those of the
    first caller that shares the session. If ids collide, the server may have given the share a longer id.
    """
    if settings.shared_secret is not None:
        shared_secret = settings.shared_secret.get_secret_value()
    else:
        # Only read: a secret made here, in the wrong directory perhaps, would be no server's.
        kept = kept_shared_secret(settings.data_dir)
        if kept is None:
            raise click.ClickException(
                f"no shared secret in {settings.data_dir}: start the server once, "
                "or give its --data-dir or --shared-secret"
            )
        shared_secret = kept
    base_url = _base_url(settings, url)
    if base_url is None:
        raise click.UsageError("--public-url: must be given where the server takes any free port")
    share = Credentials(shared_secret, base_url).of_session(session_id)
    if as_json:
        click.echo(json_text(msgspec.to_builtins(share)))
    else:
        say(f"id: {share.id}", f"url: {share.url}", f"secret: {share.secret}")


def _base_url(settings: Settings, url: str | None) -> str | None:
    """Return the base of the URL; None: nothing says on which port the server listens.

    A public URL is what the server itself prints; only a URL on the command line says more.
    """
    source = click.get_current_context().get_parameter_source
    is_typed = source("url") is ParameterSource.COMMANDLINE
    if is_typed and source("public_url") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--url and --public-url exclude each other")
    if url is not None and (is_typed or settings.public_url is None):
        checked_url(url)
        return base_of(url)
    if settings.public_url is None and settings.port == 0:
        return None
    return settings.base_url()
