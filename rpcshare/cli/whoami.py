"""``rpcshare whoami``."""

import asyncio

import click
import msgspec

from rpcshare.cli.connection import Server, with_server
from rpcshare.cli.limits import used_of
from rpcshare.cli.profile_store import base_of
from rpcshare.cli.terminal import json_text, say
from rpcshare.client.types import Identity

__all__ = ["whoami"]


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="Print subject, scopes, user and usage as a JSON object."
)
@with_server
def whoami(server: Server, as_json: bool) -> None:
    """Print who you are to the server, what you may do, and which credential says so."""
    identity = asyncio.run(_ask(server))
    if as_json:
        told = msgspec.to_builtins(identity)
        if identity.user is None:
            del told["user"]
        if identity.usage is None:
            del told["usage"]
        click.echo(json_text(told))
        return
    say(
        f"subject: {identity.subject or 'anonymous'}",
        *_user(identity),
        *_usage(identity),
        f"scopes: {', '.join(identity.scopes) or 'none'}",
        f"server: {base_of(server.url)}",
        f"credential: {server.credential}",
    )


async def _ask(server: Server) -> Identity:
    async with server.connected() as client:
        return await client.whoami()


def _usage(identity: Identity) -> list[str]:
    return [f"{whose}: {used_of(measured)}" for whose, measured in (identity.usage or {}).items()]


def _user(identity: Identity) -> list[str]:
    user = identity.user
    if user is None:
        return []
    return [
        f"user: {user.get('name') or user.get('email')}, {user.get('role')} of {user.get('organization')}"
    ]
