"""``rpcshare organizations``: what organizations have and may have, and what was done in one."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import click

from rpcshare.cli.connection import Server, with_server
from rpcshare.cli.limits import changed_limits, limit_options, used_of
from rpcshare.cli.terminal import Column, json_text, print_table, say
from rpcshare.rpc import Stub

__all__ = ["organizations"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.pass_context
def organizations(ctx: click.Context) -> None:
    """List organizations, set their limits, and show what was done in one."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@organizations.command("list", short_help="List organizations.")
@_json_option
@with_server
def list_organizations(server: Server, as_json: bool) -> None:
    """List the organizations that you manage, with the number of their users."""
    found: list[dict[str, Any]] = []

    async def collect(api: Stub) -> None:
        cursor = None
        while True:
            page = await api.organizations({"limit": 200, "cursor": cursor})
            found.extend(page["organizations"])
            cursor = page["cursor"]
            if cursor is None:
                return

    _with_users(server, collect)
    if as_json:
        click.echo(json_text(found))
    elif found:
        columns = [Column("name"), Column("users"), Column("since")]
        rows = ((each["name"], f"{each['users']:,}", _moment(each["createdAt"])) for each in found)
        print_table(columns, rows)


@organizations.command(short_help="Show or change what an organization may have.")
@click.argument("name")
@limit_options
@_json_option
@with_server
def limits(
    server: Server, name: str, storage: object, shares: object, requests: object, as_json: bool
) -> None:
    """Show what all users of the organization NAME have and may have; change what an option names.

    To change it is for an admin of the server.
    """
    given = changed_limits(storage=storage, shares=shares, requests=requests)

    async def change(api: Stub) -> Any:  # noqa: ANN401 -- as it is told
        return await (api.setOrganizationLimits(name, given) if given else api.organizationLimits(name))

    told = _with_users(server, change)
    if as_json:
        click.echo(json_text(told))
    else:
        say(used_of(told))


@organizations.command(short_help="Show what was done in an organization.")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many.")
@_json_option
@with_server
def audit(server: Server, name: str, limit: int, as_json: bool) -> None:
    """Show who did what in the organization NAME, the newest first."""
    found: list[dict[str, Any]] = []

    async def collect(api: Stub) -> None:
        cursor = None
        while len(found) < limit:
            asked = {"organization": name, "limit": min(200, limit - len(found)), "cursor": cursor}
            page = await api.audit(asked)
            found.extend(page["events"])
            cursor = page["cursor"]
            if cursor is None:
                return

    _with_users(server, collect)
    if as_json:
        click.echo(json_text(found))
    elif found:
        columns = [Column(each) for each in ("time", "action", "outcome", "subject", "address", "about")]
        print_table(columns, map(_row, found))


def _with_users(server: Server, work: Callable[[Stub], Awaitable[Any]]) -> Any:  # noqa: ANN401 -- as it is told
    async def connect_and_work() -> Any:  # noqa: ANN401 -- likewise
        async with server.connected() as client:
            return await work(client.api.users())

    return asyncio.run(connect_and_work())


def _row(event: dict[str, Any]) -> tuple[str, ...]:
    about = ", ".join(f"{name} {value}" for name, value in event["details"].items())
    names = (event["action"], event["outcome"], event["subject"], event["address"])
    return (_moment(event["time"]), *names, about)


def _moment(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M}"
