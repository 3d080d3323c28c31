"""``rpcshare pull``."""

import asyncio
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from rpcshare import jsontext
from rpcshare.cli.connection import Server, with_share
from rpcshare.cli.terminal import json_text
from rpcshare.transcripts import sync_data_of_agent_session, turns_of_agent_session
from rpcshare.transcripts.markdown import markdown_pieces
from rpcshare.transcripts.opencode_export import export_pieces

__all__ = ["pull"]


class _AgentSession(msgspec.Struct):
    """What a server answers, as far as it has to be so to be written."""

    session: dict[str, Any]
    messages: list[Any]
    parts: list[Any]
    diffs: list[Any]
    models: list[Any]


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    help="File to write. [default: standard output]",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["opencode", "markdown", "json", "jsonl", "session", "data"]),
    default="json",
    help="opencode: what `opencode import FILE` takes; markdown: a document to read; json: an AgentSession "
    "(the default; also called session); jsonl: one SyncData per line; data: a list of SyncData.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@with_share
def pull(server: Server, share_id: str, output: Path, form: str, as_json: bool) -> None:
    """Fetch SHARE as a file. SHARE is the id or the URL of a share, or a session ID."""
    if as_json and form not in ("json", "session"):
        raise click.UsageError(f"--json and --format {form} exclude each other")
    pieces = _pieces(asyncio.run(_fetch(server, share_id)), form)
    if str(output) == "-":
        for piece in pieces:
            click.echo(piece, nl=False)
    else:
        _write(output, pieces)


async def _fetch(server: Server, share_id: str) -> dict[str, Any]:
    async with server.connected() as client:
        session = await client.get_share(await server.share_id(client, share_id))
        msgspec.convert(session, _AgentSession)
        return session


def _pieces(session: dict[str, Any], form: str) -> Iterator[bytes]:
    """Yield the pieces of the file, which is printable: no control character of anybody's is in it."""
    match form:
        case "json" | "session":
            yield json_text(session) + b"\n"
        case "data":
            yield json_text(sync_data_of_agent_session(session)) + b"\n"
        case "jsonl":
            yield from (json_text(item) + b"\n" for item in sync_data_of_agent_session(session))
        case "opencode":
            made = b"".join(export_pieces(turns_of_agent_session(session)))
            yield json_text(jsontext.decode(made)) + b"\n"
        case _:
            yield from markdown_pieces(turns_of_agent_session(session))


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file atomically: a reader finds all of it, or what was there before.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        # A pipe, a terminal, /dev/null: nothing to put another file in the place of.
        with path.open("wb") as file:
            file.writelines(pieces)
        return
    draft = path.with_name(f".rpcshare-{secrets.token_hex(6)}")
    try:
        with draft.open("xb") as file:
            _fill(file, path, pieces)
        draft.replace(path)
    except OSError as exc:
        # The user has named the file, and has never heard of the draft.
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
    finally:
        with suppress(OSError):  # it has taken its place, or was never made
            draft.unlink()


def _fill(draft: BinaryIO, path: Path, pieces: Iterable[bytes]) -> None:
    """Write what is to take the place of ``path``, durably."""
    if path.exists():
        os.fchmod(draft.fileno(), stat.S_IMODE(path.stat().st_mode))
    draft.writelines(pieces)
    draft.flush()
    os.fsync(draft.fileno())
