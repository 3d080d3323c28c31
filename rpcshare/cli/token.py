"""``rpcshare token``: tokens that the server signs itself."""

import click

from rpcshare.auth.api_keys import DEFAULT_SCOPES
from rpcshare.auth.audit import Action
from rpcshare.auth.caller import Scope
from rpcshare.cli.auditing import tell_audit_log
from rpcshare.cli.options import with_settings
from rpcshare.config import Settings

__all__ = ["token"]


@click.group(invoke_without_command=True)
@click.pass_context
def token(ctx: click.Context) -> None:
    """Sign tokens with the server's own key."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@token.command(short_help="Sign a token, and print it.")
@click.option("--subject", required=True, metavar="NAME", help="Whom the token stands for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help=f"What that one may do; may be given more than once. [default: {DEFAULT_SCOPES[0]}]",
)
@click.option(
    "--expires",
    default="30d",
    show_default=True,
    metavar="DURATION",
    help="How long it is valid, at most 366d; it cannot be revoked.",
)
@with_settings("data_dir", "signing_key", "audit_log")
def create(settings: Settings, subject: str, scopes: tuple[str, ...], expires: str) -> None:
    """Sign a token (JWT) with the server's own key, and print it.

    No server has to run. Nothing is kept of it: what needs to be taken back one day is better done with
    'rpcshare keys'.
    """
    # Not with the module: help is to be had without waiting for cryptography's imports.
    from rpcshare.auth.signing_key import SigningKey  # noqa: PLC0415

    key = SigningKey.kept(settings.signing_key, settings.data_dir)
    click.echo(key.sign(subject, scopes or DEFAULT_SCOPES, expires))
    tell_audit_log(settings, Action.TOKEN_CREATE, name=subject)
