"""``rpcshare migrate``."""

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click

from rpcshare.cli.progress import measuring
from rpcshare.cli.store_access import opened_store
from rpcshare.cli.terminal import json_text, say
from rpcshare.maintenance.migration import Migration, survey
from rpcshare.maintenance.migration import migrate as migrate_objects
from rpcshare.storage import ObjectStore

__all__ = ["migrate"]

KEY_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--from", "source", required=True, metavar="STORE", help="URL of the store to copy.")
@click.option("--to", "target", required=True, metavar="STORE", help="URL of the store to copy it to.")
@click.option("--from-key-file", type=KEY_FILE, metavar="FILE", help="Decrypt with the keys in FILE.")
@click.option("--to-key-file", type=KEY_FILE, metavar="FILE", help="Encrypt with the first key in FILE.")
@click.option("--overwrite", is_flag=True, help="Replace differing objects of the target.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
def migrate(
    source: str,
    target: str,
    from_key_file: Path | None,
    to_key_file: Path | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Copy a store into another, and verify the copy.

    STORE has the form that `rpcshare serve --store` takes. Encrypted objects stay as they are unless key
    files are given.

    Stop the servers first. Or copy while they run, and once more when they have stopped: what has been
    copied already is not copied again.

    Shares that were deleted or made private in either store stay so, and so do revoked keys. The exit
    status is 1 if the target lacks an object of the source, or has a different one that is not newer.
    """
    if source == target:
        raise click.UsageError("--from and --to name the same store")
    opened_source = opened_store(source, "--from", key_file=from_key_file)
    opened_target = opened_store(target, "--to", key_file=to_key_file, must_exist=False)
    migration = asyncio.run(_migrate(opened_source, opened_target, overwrite))
    if as_json:
        told = {
            "copied": migration.copied,
            "unchanged": migration.unchanged,
            "newer": migration.newer,
            "surplus": migration.surplus,
            "differing": migration.differing,
        }
        click.echo(json_text(told))
        return 1 if migration.differing else 0
    for key, why in sorted(migration.differing.items()):
        say(f"not copied: {key}: {why}", err=True)
    click.echo(f"copied: {migration.copied}, there already: {migration.unchanged}")
    if migration.newer:
        click.echo(f"kept, since the target's are newer or their shares have ended there: {migration.newer}")
    if migration.surplus:
        click.echo(f"objects that only the target has: {migration.surplus}")
    if migration.differing:
        click.echo("not all is copied; if a server is writing to the source, stop it and run this again")
        return 1
    return 0


async def _migrate(
    opened_source: AbstractAsyncContextManager[ObjectStore],
    opened_target: AbstractAsyncContextManager[ObjectStore],
    overwrite: bool,
) -> Migration:
    async with opened_source as source, opened_target as target:
        total = (await survey(source)).size
        with measuring(total, "copying", "verifying") as (on_copied, on_verified):
            return await migrate_objects(
                source, target, overwrite=overwrite, on_copied=on_copied, on_verified=on_verified
            )
