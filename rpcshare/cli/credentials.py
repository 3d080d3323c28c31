"""``rpcshare credentials``."""

import click
import msgspec

from rpcshare.auth.secret_files import kept_shared_secret
from rpcshare.cli.options import with_settings
from rpcshare.cli.terminal import json_text, say
from rpcshare.config import Settings
from rpcshare.shares.share_identity import Credentials

__all__ = ["credentials"]


@click.command()
@click.argument("session_id")
@click.option("--json", "as_json", is_flag=True, help="Print them as a JSON object.")
@with_settings("data_dir", "public_url", "shared_secret")
def credentials(settings: Settings, session_id: str, as_json: bool) -> None:
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
    if settings.public_url is None and settings.port == 0:
        raise click.UsageError("--public-url: must be given where the server takes any free port")
    share = Credentials(shared_secret, settings.base_url()).of_session(session_id)
    if as_json:
        click.echo(json_text(msgspec.to_builtins(share)))
    else:
        say(f"id: {share.id}", f"url: {share.url}", f"secret: {share.secret}")
