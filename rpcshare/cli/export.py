"""``rpcshare export``."""

import asyncio
from pathlib import Path

import click

from rpcshare.cli.options import with_settings
from rpcshare.cli.progress import counting
from rpcshare.cli.store_access import STORE_SETTINGS, configured_store
from rpcshare.cli.terminal import json_text, say
from rpcshare.config import Settings
from rpcshare.maintenance.export_format import BackupError
from rpcshare.maintenance.exporting import Exported, export_shares

__all__ = ["export"]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.argument("shares", metavar="[SHARE]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@with_settings(*STORE_SETTINGS)
def export(settings: Settings, folder: Path, shares: tuple[str, ...], as_json: bool) -> int:
    """Back up the shares with the ids SHARE, or all shares, into DIR. DIR must be empty or missing.

    A server may be running on the store. The shared secret, from which the secrets of shares follow, is
    not in the backup: keep the server's, too.
    """
    try:
        exported = asyncio.run(_export(settings, folder, shares))
    except BackupError as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        failures = [{"id": share_id, "reason": why} for share_id, why in exported.failures]
        click.echo(json_text({"exported": exported.shares, "failures": failures}))
        return 1 if failures else 0
    for share_id, why in exported.failures:
        say(f"not exported: {share_id}: {why}", err=True)
    say(f"exported to {folder}: {exported.shares}")
    return 1 if exported.failures else 0


async def _export(settings: Settings, folder: Path, shares: tuple[str, ...]) -> Exported:
    async with configured_store(settings) as store:
        with counting("shares") as on_share:
            return await export_shares(store, folder, shares, on_share=on_share)
