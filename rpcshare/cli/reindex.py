"""``rpcshare reindex``."""

import asyncio
import gc
import sys

import click

from rpcshare.cli.options import with_settings
from rpcshare.cli.progress import counting
from rpcshare.cli.store_access import DATABASE_SETTINGS, STORE_SETTINGS, configured_database, configured_store
from rpcshare.cli.terminal import json_text
from rpcshare.config import Settings
from rpcshare.shares.reindexing import index_anew

__all__ = ["reindex"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@with_settings(*STORE_SETTINGS, *DATABASE_SETTINGS)
def reindex(settings: Settings, as_json: bool) -> int:
    """Build the search index again from the store, whether a server is running or not.

    If this is interrupted, the next one goes on where it was. The exit status is 1 if a share could not be
    read.
    """
    count, unread = asyncio.run(_reindex(settings))
    if as_json:
        click.echo(json_text({"indexed": count, "unread": unread}))
        return 1 if unread else 0
    for line in unread:
        click.echo(f"not indexed: {line}", err=True)
    click.echo(f"shares indexed: {count}")
    return 1 if unread else 0


async def _reindex(settings: Settings) -> tuple[int, list[str]]:
    # The thread that writes is to be done first: it waits for Python's interpreter no longer than this.
    sys.setswitchinterval(0.0005)
    # Texts have no cycles: looking for these takes a tenth of the time.
    gc.set_threshold(100_000, 50, 100)
    async with configured_store(settings) as store, configured_database(settings) as index:
        with counting("shares") as on_share:
            return await index_anew(store, index, on_share)
