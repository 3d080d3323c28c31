"""``rpcshare ls``."""

import asyncio
import time

import click
import msgspec

from rpcshare.cli.connection import Server, with_server
from rpcshare.cli.terminal import Column, ago, json_text, print_table, say
from rpcshare.client import SessionIndex

__all__ = ["ls"]


@click.command()
@click.argument("query", required=False)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="List at most N shares; with --all-pages, request N at a time.",
)
@click.option("--all-pages", is_flag=True, help="List all shares.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@with_server
def ls(server: Server, query: str | None, limit: int | None, all_pages: bool, as_json: bool) -> None:
    """List your shares, newest first. QUERY selects those that have it in title, directory or id."""
    sessions, count = asyncio.run(_list(server, query, limit, all_pages))
    if as_json:
        linked = [msgspec.to_builtins(session) | {"url": server.link(session.id)} for session in sessions]
        click.echo(json_text(linked))
    elif sessions:
        _print_table(server, sessions)
    for session in sessions:
        if not as_json and session.last_refusal is not None:
            say(f"{session.id}: the last sync was refused: {session.last_refusal.message}", err=True)
    if len(sessions) < count and not all_pages:
        click.echo(f"{len(sessions)} of {count} shares; --all-pages lists all", err=True)


async def _list(
    server: Server, query: str | None, limit: int | None, all_pages: bool
) -> tuple[list[SessionIndex], int]:
    """Return the first page of shares, or all of them, and how many there are."""
    async with server.connected() as client:
        page = await client.list_shares(limit=limit, query=query)
        sessions = list(page.sessions)
        seen: set[str] = set()
        while all_pages and page.cursor is not None:
            if page.cursor in seen:
                raise click.ClickException("the server's listing does not end: it gives a cursor again")
            seen.add(page.cursor)
            page = await client.list_shares(cursor=page.cursor, limit=limit, query=query)
            sessions += page.sessions
        return sessions, page.count


def _print_table(server: Server, sessions: list[SessionIndex]) -> None:
    now = time.time()
    columns = (
        Column("id"),
        Column("title", without_room="cut"),
        Column("directory", without_room="cut"),
        Column("messages", is_number=True),
        Column("parts", is_number=True),
        Column("updated"),
        Column("url", without_room="below"),
    )
    rows = (
        (
            session.id,
            session.title,
            session.directory,
            str(session.message_count),
            str(session.part_count),
            ago(now - session.last_updated / 1000),
            server.link(session.id),
        )
        for session in sessions
    )
    print_table(columns, rows)
