"""``rpcshare watch``."""

import asyncio
import shutil

import click

from rpcshare.cli.connection import Server, with_share
from rpcshare.cli.event_lines import EventLines
from rpcshare.cli.terminal import json_text, standard_output
from rpcshare.client import ShareEvent

__all__ = ["watch"]

# Columns, where the output is no terminal that could tell.
UNKNOWN_WIDTH = 120


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print each event as a line of JSON.")
@click.option(
    "--from",
    "from_sync_count",
    type=click.IntRange(min=0),
    metavar="N",
    help="Start after the first N syncs, if the server still has the later ones separately.",
)
@with_share
def watch(server: Server, share_id: str, as_json: bool, from_sync_count: int | None) -> None:
    """Follow SHARE until it is deleted or you press Ctrl-C. SHARE is its id, its URL or its session's ID."""
    try:
        asyncio.run(_watch(server, share_id, from_sync_count, as_json))
    except KeyboardInterrupt:
        click.echo(err=True)  # an end of the line on which the terminal shows ^C


async def _watch(server: Server, share_id: str, from_sync_count: int | None, as_json: bool) -> None:
    lines = EventLines()
    out = standard_output()
    async with server.connected() as client:
        share_id = await server.share_id(client, share_id)
        async with client.subscribe(share_id, from_sync_count=from_sync_count) as events:
            async for event in events:
                if as_json:
                    click.echo(json_text(_wire_form(event)))
                    continue
                width = shutil.get_terminal_size((UNKNOWN_WIDTH, 0)).columns
                for line in lines.of(event):
                    click.echo(line[:width], file=out)


def _wire_form(event: ShareEvent) -> dict[str, object]:
    """Return the event as PROTOCOL.md, "Events", has it."""
    if event.sync_count is None:
        return {"type": event.type, "shareID": event.share_id}
    return {
        "type": event.type,
        "shareID": event.share_id,
        "syncCount": event.sync_count,
        "data": event.data,
    }
