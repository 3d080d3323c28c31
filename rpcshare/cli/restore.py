"""``rpcshare restore``."""

import asyncio
from pathlib import Path

import click

from rpcshare.cli.options import with_settings
from rpcshare.cli.progress import counting
from rpcshare.cli.store_access import STORE_SETTINGS, configured_store
from rpcshare.cli.terminal import json_text, say
from rpcshare.config import RECORDS_FILE, Settings
from rpcshare.maintenance.export_format import BackupError
from rpcshare.maintenance.records_backup import RestoredRecords, restore_records
from rpcshare.maintenance.restoring import Restored, restore_shares

__all__ = ["restore"]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace existing shares that differ.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@with_settings(*STORE_SETTINGS)
def restore(settings: Settings, folder: Path, overwrite: bool, as_json: bool) -> int:
    """Restore the shares of the backup in DIR, with their ids, owners and secrets.

    Users and the vault are restored into a data directory that has none.

    First every file is verified. Without --overwrite, an existing share that differs is left as it is, and
    the exit status is 1. You may run the command again.
    """
    try:
        restored = asyncio.run(_restore(settings, folder, overwrite))
        records = restore_records(folder, settings.data_dir / RECORDS_FILE)
    except BackupError as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        refused = [{"id": share_id, "reason": why} for share_id, why in restored.refused]
        told = {"restored": restored.restored, "unchanged": restored.unchanged, "refused": refused}
        if records is not RestoredRecords.NONE:
            told["records"] = records.value
        click.echo(json_text(told))
        return 1 if refused or records is RestoredRecords.KEPT else 0
    for share_id, why in restored.refused:
        say(f"not restored: {share_id}: {why}", err=True)
    click.echo(f"restored: {restored.restored}, there already: {restored.unchanged}")
    if records is RestoredRecords.RESTORED:
        say("restored: the users and the vault")
    elif records is RestoredRecords.KEPT:
        say(f"not restored: users and vault: {settings.data_dir / RECORDS_FILE} is there already", err=True)
    return 1 if restored.refused or records is RestoredRecords.KEPT else 0


async def _restore(settings: Settings, folder: Path, overwrite: bool) -> Restored:
    async with configured_store(settings, must_exist=False) as store:
        with counting("shares") as on_share:
            return await restore_shares(store, folder, overwrite=overwrite, on_share=on_share)
