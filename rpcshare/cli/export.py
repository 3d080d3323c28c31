"""``rpcshare export``."""

import asyncio
from pathlib import Path

import click

from rpcshare.cli.options import with_settings
from rpcshare.cli.progress import counting
from rpcshare.cli.store_access import STORE_SETTINGS, configured_store
from rpcshare.cli.terminal import json_text, say
from rpcshare.config import RECORDS_FILE, Settings
from rpcshare.maintenance.export_format import BackupError
from rpcshare.maintenance.exporting import Exported, export_shares
from rpcshare.maintenance.records_backup import back_up_records

__all__ = ["export"]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.argument("shares", metavar="[SHARE]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@with_settings(*STORE_SETTINGS)
def export(settings: Settings, folder: Path, shares: tuple[str, ...], as_json: bool) -> int:
    """Back up the shares with the ids SHARE, or all shares, into DIR. DIR must be empty or missing.

    With all shares, the backup has the users and the vault, too, unless they are in PostgreSQL. A server
    may be running on the store. The shared secret, from which the secrets of shares follow, is not in the
    backup, nor is any key: keep the server's, too.
    """
    try:
        exported = asyncio.run(_export(settings, folder, shares))
        has_records = not shares and back_up_records(settings.data_dir / RECORDS_FILE, folder)
    except BackupError as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        failures = [{"id": share_id, "reason": why} for share_id, why in exported.failures]
        records = {"records": True} if has_records else {}
        click.echo(json_text({"exported": exported.shares, "failures": failures, **records}))
        return 1 if failures else 0
    for share_id, why in exported.failures:
        say(f"not exported: {share_id}: {why}", err=True)
    say(f"exported to {folder}: {exported.shares}{', and the users and the vault' if has_records else ''}")
    return 1 if exported.failures else 0


async def _export(settings: Settings, folder: Path, shares: tuple[str, ...]) -> Exported:
    async with configured_store(settings) as store:
        with counting("shares") as on_share:
            return await export_shares(store, folder, shares, on_share=on_share)
