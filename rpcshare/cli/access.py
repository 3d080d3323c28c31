"""``rpcshare access``."""

import asyncio
import time
from datetime import UTC, datetime

import click
import msgspec
from msgspec import UNSET, UnsetType

from rpcshare.cli.access_options import DURATION, with_password
from rpcshare.cli.connection import Server, with_share
from rpcshare.cli.terminal import json_text, say
from rpcshare.client import AccessSettings, ViewToken
from rpcshare.client.share_client import Visibility

__all__ = ["access"]


@click.command()
@click.option("--secret", metavar="SECRET", help="The share's secret; the owner needs none.")
@click.option("--private", is_flag=True, help="Readable only by you, and with view tokens.")
@click.option("--link", is_flag=True, help="Readable by everybody with the link.")
@click.option("--organization", is_flag=True, help="Readable by the users of your organization.")
@with_password
@click.option("--no-password", is_flag=True, help="Remove the password.")
@click.option("--expires", type=DURATION, metavar="TIME", help="Delete the share after TIME, such as 7d.")
@click.option("--no-expiry", is_flag=True, help="Remove the expiry.")
@click.option("--view-token", is_flag=True, help="Print a token that lets anybody read the share.")
@click.option(
    "--token-expires", type=DURATION, metavar="TIME", help="Lifetime of the view token. [default: 7d]"
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@with_share
def access(
    server: Server,
    share_id: str,
    secret: str | None,
    private: bool,
    link: bool,
    organization: bool,
    password: str | UnsetType | None,
    no_password: bool,
    expires: str | UnsetType | None,
    no_expiry: bool,
    view_token: bool,
    token_expires: str | None,
    as_json: bool,
) -> None:
    """Show or change who may read SHARE, and until when. SHARE is its id, its URL or its session's ID.

    A change of visibility or password ends all view tokens of the share.
    """
    if private + link + organization > 1:
        raise click.UsageError("--private, --link and --organization exclude each other")
    if no_password:
        if password is not UNSET:
            raise click.UsageError("--no-password excludes a password")
        password = None
    if no_expiry and expires is not None:
        raise click.UsageError("--no-expiry excludes --expires")
    if token_expires is not None and not view_token:
        raise click.UsageError("--token-expires goes with --view-token")
    if expires is None and not no_expiry:
        expires = UNSET
    visibility: Visibility | UnsetType = "private" if private else "link" if link else UNSET
    visibility = "organization" if organization else visibility
    wanted = (visibility, expires, password)
    settings, token = asyncio.run(_access(server, share_id, secret, wanted, view_token, token_expires))
    if as_json:
        told = msgspec.to_builtins(settings)
        click.echo(json_text(told if token is None else told | {"viewToken": msgspec.to_builtins(token)}))
        return
    if token is not None:
        # On standard output alone, for a script to take.
        say(token.token)
    say(*_summary(settings), err=token is not None)


async def _access(
    server: Server,
    share_id: str,
    secret: str | None,
    wanted: tuple[Visibility | UnsetType, str | UnsetType | None, str | UnsetType | None],
    wants_token: bool,
    token_expires: str | None,
) -> tuple[AccessSettings, ViewToken | None]:
    visibility, expires, password = wanted
    async with server.connected() as client:
        share_id = await server.share_id(client, share_id)
        settings = await client.update_share(
            share_id, secret, visibility=visibility, expires_in=expires, password=password
        )
        if not wants_token:
            return settings, None
        return settings, await client.create_view_token(share_id, secret, expires_in=token_expires)


def _summary(settings: AccessSettings) -> tuple[str, str]:
    if settings.visibility == "private":
        who = "private"
    elif settings.visibility == "organization":
        who = "the users of the organization"
    else:
        who = "whoever has the link" + (" and the password" if settings.has_password else "")
    return f"read by: {who}", f"expires: {_date(settings.expires_at)}"


def _date(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "never"
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # a server may say anything
        return "at a time that no calendar has"
    left = max(0, milliseconds / 1000 - time.time())
    unit, name = next(
        (unit, name)
        for unit, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
        if left >= unit or unit == 1
    )
    return f"{moment} (in {left // unit:.0f} {name})"
