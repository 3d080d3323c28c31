"""``rpcshare users``: who signs in to a server, managed over RPC by its admin or an organization's."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import click

from rpcshare.auth.caller import Role
from rpcshare.cli.connection import Server, with_server
from rpcshare.cli.limits import changed_limits, limit_options, used_of
from rpcshare.cli.terminal import Column, json_text, print_table, say
from rpcshare.rpc import Stub

__all__ = ["users"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.pass_context
def users(ctx: click.Context) -> None:
    """List users, set roles and limits, disable accounts, and claim shares for a user."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@users.command("list", short_help="List users.")
@click.option("--organization", metavar="NAME", help="Only this one's. [default: all that you manage]")
@click.option("--query", metavar="TEXT", default="", help="Text in names and addresses.")
@_json_option
@with_server
def list_users(server: Server, organization: str | None, query: str, as_json: bool) -> None:
    """List the users of the server, or of your organization."""
    found: list[dict[str, Any]] = []

    async def collect(api: Stub) -> None:
        cursor = None
        while True:
            asked = {"organization": organization, "query": query, "limit": 200, "cursor": cursor}
            page = await api.list(asked)
            found.extend(page["users"])
            cursor = page["cursor"]
            if cursor is None:
                return

    _with_users(server, collect)
    if as_json:
        click.echo(json_text(found))
    elif found:
        columns = [Column(name) for name in ("id", "email", "name", "organization", "role", "seen")]
        print_table(columns, map(_row, found))


@users.command(short_help="Give a user a role.")
@click.argument("user", metavar="ID")
@click.argument("role", type=click.Choice([role.value for role in Role]))
@_json_option
@with_server
def role(server: Server, user: str, role: str, as_json: bool) -> None:
    """Give the user with ID a role. What the old role allowed ends within 5 seconds."""
    _tell(_with_users(server, lambda api: api.setRole(user, role)), as_json=as_json)


@users.command(short_help="Disable a user.")
@click.argument("user", metavar="ID")
@_json_option
@with_server
def disable(server: Server, user: str, as_json: bool) -> None:
    """Disable the user with ID: sessions and keys end within 5 seconds."""
    _tell(_with_users(server, lambda api: api.disable(user)), as_json=as_json)


@users.command(short_help="Enable a user.")
@click.argument("user", metavar="ID")
@_json_option
@with_server
def enable(server: Server, user: str, as_json: bool) -> None:
    """Let the user with ID sign in again."""
    _tell(_with_users(server, lambda api: api.enable(user)), as_json=as_json)


@users.command(short_help="Make the shares of an old subject a user's.")
@click.argument("user", metavar="ID")
@click.argument("subject")
@click.option(
    "--source",
    default="key",
    show_default=True,
    help="Where the subject comes from: key, token, certificate, proxy or jwt:ISSUER; empty for shares of "
    "versions that stored none.",
)
@_json_option
@with_server
def claim(server: Server, user: str, subject: str, source: str, as_json: bool) -> None:
    """Make the shares of SUBJECT those of the user with ID. Their links and secrets stay the same.

    SUBJECT is the name of an API key, for example, that the person used before.
    """
    done = _with_users(server, lambda api: api.claimShares(user, {"subject": subject, "source": source}))
    if as_json:
        click.echo(json_text(done))
        return
    say(f"claimed {done['claimed']} shares")
    if done["indexing"]:
        say("warning: not all shares are indexed yet: run this again in a minute", err=True)


@users.command(short_help="Show or change what a user may have.")
@click.argument("user", metavar="ID")
@limit_options
@_json_option
@with_server
def limits(
    server: Server, user: str, storage: object, shares: object, requests: object, as_json: bool
) -> None:
    """Show what the user with ID has and may have; change what an option names.

    An admin of an organization allows no more than the settings of the server do.
    """
    given = changed_limits(storage=storage, shares=shares, requests=requests)

    async def change(api: Stub) -> Any:  # noqa: ANN401 -- as it is told
        return await (api.setLimits(user, given) if given else api.limits(user))

    told = _with_users(server, change)
    if as_json:
        click.echo(json_text(told))
    else:
        say(*(f"{whose}: {used_of(measured)}" for whose, measured in told.items()))


def _with_users(server: Server, work: Callable[[Stub], Awaitable[Any]]) -> Any:  # noqa: ANN401 -- as it is told
    async def connect_and_work() -> Any:  # noqa: ANN401 -- likewise
        async with server.connected() as client:
            return await work(client.api.users())

    return asyncio.run(connect_and_work())


def _tell(user: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(user))
    else:
        state = user["role"] if user["disabledAt"] is None else "disabled"
        say(f"{user['id']} ({user['email'] or user['name']}): {state}")


def _row(user: dict[str, Any]) -> tuple[str, ...]:
    seen = f"{datetime.fromtimestamp(user['seenAt'] / 1000, UTC):%Y-%m-%d %H:%M}"
    role = user["role"] if user["disabledAt"] is None else f"{user['role']} (disabled)"
    return user["id"], user["email"], user["name"], user["organization"], role, seen
