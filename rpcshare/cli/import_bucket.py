"""``rpcshare import-bucket``."""

import asyncio
from contextlib import AsyncExitStack

import click
import msgspec

from rpcshare.auth.api_keys import ApiKeys
from rpcshare.auth.subject_sources import Source, is_source, owner_name
from rpcshare.auth.subjects import fault_of_name
from rpcshare.cli.options import with_settings
from rpcshare.cli.progress import counting
from rpcshare.cli.store_access import STORE_SETTINGS, configured_store, opened_store
from rpcshare.cli.terminal import json_text, say
from rpcshare.config import Settings
from rpcshare.maintenance.importing import Imported
from rpcshare.maintenance.importing import import_bucket as import_shares

__all__ = ["import_bucket"]


@click.command()
@click.option("--from", "source", required=True, metavar="STORE", help="URL of the older deployment's store.")
@click.option("--owner", metavar="SUBJECT", help="Owner of the imported shares, such as the name of a key.")
@click.option(
    "--owner-source",
    metavar="SOURCE",
    help="Source of the owner: key, token, certificate, proxy or jwt:ISSUER. [default: key, if there is an "
    "API key of that name; else as for owners without a source in the store]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@with_settings(*STORE_SETTINGS)
def import_bucket(
    settings: Settings, source: str, owner: str | None, owner_source: str | None, as_json: bool
) -> int:
    """Import the shares of an older deployment, which stores each share as one object, into the store.

    Ids and secrets of shares stay valid. If --from is the store itself, shares are upgraded in place; a
    server also upgrades them at their first write.

    With --owner, the shares belong to that subject, and so do shares that were imported before and belong
    to nobody. Without it, a share belongs to nobody until an admin creates it again, or a caller shows its
    secret.

    Malformed objects are skipped and listed, and stay where they are; then the exit status is 1. You may
    run the command again.
    """
    if owner == "":
        raise click.BadParameter("must not be empty", param_hint="--owner")
    if owner_source is not None and (
        owner is None or owner_source == Source.JWT or not is_source(owner_source)
    ):
        raise click.BadParameter(
            "goes with --owner, and is key, token, certificate, proxy or jwt:ISSUER",
            param_hint="--owner-source",
        )
    if owner is not None and (fault := fault_of_name(owner)):
        raise click.BadParameter(fault, param_hint="--owner")
    imported = asyncio.run(_import(settings, source, owner, owner_source))
    if as_json:
        click.echo(json_text(msgspec.to_builtins(imported)))
    else:
        for key, why in sorted(imported.skipped):
            say(f"skipped: {key}: {why}", err=True)
        counts = {
            "imported": imported.imported,
            "there already": imported.unchanged,
            **({"given to the owner": imported.given} if owner is not None else {}),
            "deleted since": imported.deleted,
            "skipped": len(imported.skipped),
        }
        click.echo(", ".join(f"{what}: {count}" for what, count in counts.items()))
    return 1 if imported.skipped else 0


async def _import(
    settings: Settings, source_url: str, owner: str | None, owner_source: str | None
) -> Imported:
    async with AsyncExitStack() as stack:
        if source_url == settings.store_url:
            source = target = await stack.enter_async_context(configured_store(settings))
        else:
            source = await stack.enter_async_context(opened_store(source_url, "--from"))
            target = await stack.enter_async_context(configured_store(settings, must_exist=False))
        if owner is not None and owner_source is None:
            keys = await ApiKeys(target).list()
            owner_source = Source.KEY if any(key.name == owner for key in keys) else ""
        if owner is not None:
            owner = owner_name(owner_source or "", owner)
        with counting("shares") as on_share:
            return await import_shares(source, target, owner=owner, on_share=on_share)
