"""``rpcshare doctor``."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec

from rpcshare.cli.options import with_settings
from rpcshare.cli.progress import counting
from rpcshare.cli.store_access import DATABASE_SETTINGS, STORE_SETTINGS, configured_database, configured_store
from rpcshare.cli.terminal import Column, json_text, print_table
from rpcshare.config import DATABASE_FILE, Settings
from rpcshare.maintenance.doctor import examine
from rpcshare.maintenance.findings import Finding, Report
from rpcshare.shares.reindexing import out_of_date
from rpcshare.shares.rollback import MARKS_FILE, HighWaterMarks, MarksError
from rpcshare.storage import ObjectStore

__all__ = ["doctor"]

PATIENCE = 2.0  # seconds that a running server may take for what it is in the middle of


@click.command()
@click.option("--fix", is_flag=True, help="Rebuild indexes and remove leftovers.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Time to wait before removing what a running server may still need; 0 if none is running.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as a JSON object.")
@with_settings(*STORE_SETTINGS, *DATABASE_SETTINGS)
def doctor(settings: Settings, fix: bool, grace: float, as_json: bool) -> int:
    """Verify every share in the store, whether a server is running on it or not.

    The exit status is 1 if something is wrong and was not repaired. Objects that cannot be understood are
    reported and never changed.
    """
    report, unindexed = asyncio.run(_examine(settings, fix, grace))
    if as_json:
        told = msgspec.to_builtins(report)
        indexed = {} if unindexed is None else {"unindexed": unindexed}
        click.echo(json_text({"ok": report.is_well, **told, **indexed}))
    else:
        _print(report)
        if unindexed:
            click.echo(f"shares that search has yet to take in: {unindexed} (see 'rpcshare reindex')")
    return 0 if report.is_well else 1


async def _examine(settings: Settings, fix: bool, grace: float) -> tuple[Report, int | None]:
    """Return what there is to be told of the store, and of how many shares search knows another state."""
    with _marks(settings) as marks:
        async with configured_store(settings) as store:
            with counting("shares") as on_share:
                report = await examine(
                    store,
                    fix=fix,
                    grace=grace,
                    patience=min(grace, PATIENCE),
                    on_share=on_share,
                    on_wait=_say_how_long,
                    marks=marks,
                )
            return report, await _unindexed(settings, store)


async def _unindexed(settings: Settings, store: ObjectStore) -> int | None:
    """Return of how many shares the search index knows another state; None if no server has made one."""
    if settings.database is None and not (settings.data_dir / DATABASE_FILE).exists():
        return None
    async with configured_database(settings) as index:
        return len([share_id async for share_id in out_of_date(store, index)])


@contextmanager
def _marks(settings: Settings) -> Iterator[HighWaterMarks | None]:
    """Open what a server with these settings has seen in its store, if there is such a file."""
    path = settings.data_dir / MARKS_FILE
    if not path.exists():
        yield None
        return
    try:
        marks = HighWaterMarks.open(path)
    except MarksError as exc:
        raise click.ClickException(str(exc)) from exc
    try:
        yield marks
    finally:
        marks.close()


def _say_how_long(seconds: float) -> None:
    click.echo(f"waiting {seconds:.0f} s before anything is removed (see --grace)", err=True)


def _print(report: Report) -> None:
    if report.findings:
        _print_table(report.findings)
    left = sum(not finding.fixed for finding in report.findings)
    fixed = len(report.findings) - left
    click.echo(f"shares: {report.shares}, in the older layout: {report.older}, fixed: {fixed}, wrong: {left}")
    if report.superfluous:
        click.echo(f"objects that servers have yet to remove: {report.superfluous}")


def _print_table(findings: list[Finding]) -> None:
    # The server's own words come first: a key that is folded never begins a line.
    columns = [Column("problem")]
    columns += [Column(heading, without_room="fold") for heading in ("where", "what", "")]
    rows = (
        (finding.problem, finding.place, finding.detail, "fixed" if finding.fixed else "")
        for finding in sorted(findings, key=lambda each: each.place)
    )
    print_table(columns, rows)
