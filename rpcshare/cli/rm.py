"""``rpcshare rm``."""

import asyncio
import sys

import click

from rpcshare.cli.connection import Server, with_share
from rpcshare.cli.terminal import json_text, printable, say

__all__ = ["rm"]


@click.command()
@click.option("--secret", metavar="SECRET", help="The share's secret; the owner needs none.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print id and url of the deleted share as JSON.")
@with_share
def rm(server: Server, share_id: str, secret: str | None, yes: bool, as_json: bool) -> None:
    """Delete SHARE permanently. SHARE is the id or the URL of a share, or a session ID."""
    if not yes and sys.stdin.isatty():
        _ask(f"Take down {server.link(share_id)} for good?")
    deleted = asyncio.run(_delete(server, share_id, secret))
    if as_json:
        click.echo(json_text({"id": deleted, "url": server.link(deleted), "deleted": True}))
    else:
        say(f"deleted {server.link(deleted)}")


def _ask(question: str) -> None:
    try:
        is_meant = click.confirm(printable(question), err=True)
    except click.Abort:
        click.echo(err=True)  # an end of the line with the question
        raise
    if not is_meant:
        raise click.ClickException("nothing was taken down")


async def _delete(server: Server, named: str, secret: str | None) -> str:
    async with server.connected() as client:
        share_id = await server.share_id(client, named)
        await client.delete_share(share_id, secret)
        return share_id
