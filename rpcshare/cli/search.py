"""``rpcshare search``."""

import asyncio
import time

import click
import msgspec

from rpcshare.cli.connection import Server, with_server_without_short_options
from rpcshare.cli.terminal import Column, ago, json_text, print_table
from rpcshare.client import SearchHit, SearchPage
from rpcshare.render.anchors import anchor

__all__ = ["search"]


# A short option would be taken out of -word, of whichever word begins with its letter.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1, max=100), metavar="N", help="Show at most N hits.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@with_server_without_short_options
def search(server: Server, words: tuple[str, ...], limit: int | None, as_json: bool) -> None:
    """Find WORDS in the messages, tools and diffs of your shares; an admin searches everybody's.

    A word finds what begins so, '"two words"' a phrase; -word leaves out what has it. tool:bash,
    file:app.ts, role:user, before:2026-11-28 and after:2026-11-01 choose among the hits.
    """
    if words == ("-h",):
        click.echo(click.get_current_context().get_help())
        return
    page = asyncio.run(_search(server, " ".join(words), limit))
    if as_json:
        linked = [msgspec.to_builtins(hit) | {"url": _link(server, hit)} for hit in page.hits]
        click.echo(json_text(linked))
    elif page.hits:
        _print_table(server, page.hits)
    else:
        click.echo("nothing found", err=True)
    if page.indexing:
        click.echo("the server has not indexed all shares yet: there may be more", err=True)


async def _search(server: Server, query: str, limit: int | None) -> SearchPage:
    async with server.connected() as client:
        return await client.search_shares(query, limit=limit)


def _link(server: Server, hit: SearchHit) -> str:
    link = server.link(hit.share_id)
    if hit.message_id is not None:
        link += f"?at={anchor(hit.message_id)}"
    if hit.part_id is not None:  # a message may have hundreds of parts
        return f"{link}#p-{anchor(hit.part_id)}"
    return f"{link}#m-{anchor(hit.message_id)}" if hit.message_id is not None else link


def _print_table(server: Server, hits: list[SearchHit]) -> None:
    now = time.time()
    columns = (
        Column("title", without_room="cut"),
        Column("when"),
        Column("found", without_room="below"),
        Column("url", without_room="below"),
    )
    rows = ((hit.title, ago(now - hit.time / 1000), hit.snippet, _link(server, hit)) for hit in hits)
    print_table(columns, rows)
