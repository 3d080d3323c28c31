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

from rpcshare.cli.connection import Server, with_share
from rpcshare.cli.documents import to_sync_data
from rpcshare.cli.terminal import json_text

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
    type=click.Choice(["session", "data", "jsonl"]),
    default="session",
    help="session: an AgentSession (the default); data: a list of SyncData; jsonl: one SyncData per line.",
)
@with_share
def pull(server: Server, share_id: str, output: Path, form: str) -> None:
    """Fetch SHARE as JSON. SHARE is the id or the URL of a share."""
    lines = _lines(asyncio.run(_fetch(server, share_id)), form)
    if str(output) == "-":
        for line in lines:
            click.echo(line)
    else:
        _write(output, lines)


async def _fetch(server: Server, share_id: str) -> dict[str, Any]:
    async with server.connected() as client:
        session = await client.get_share(share_id)
        msgspec.convert(session, _AgentSession)
        return session


def _lines(session: dict[str, Any], form: str) -> Iterator[bytes]:
    if form == "session":
        yield json_text(session)
    elif form == "data":
        yield json_text(to_sync_data(session))
    else:
        yield from map(json_text, to_sync_data(session))


def _write(path: Path, lines: Iterable[bytes]) -> None:
    """Write a file atomically: a reader finds all of it, or what was there before.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        # A pipe, a terminal, /dev/null: nothing to put another file in the place of.
        with path.open("wb") as file:
            file.writelines(line + b"\n" for line in lines)
        return
    draft = path.with_name(f".rpcshare-{secrets.token_hex(6)}")
    try:
        with draft.open("xb") as file:
            _fill(file, path, lines)
        draft.replace(path)
    except OSError as exc:
        # The user has named the file, and has never heard of the draft.
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
    finally:
        with suppress(OSError):  # it has taken its place, or was never made
            draft.unlink()


def _fill(draft: BinaryIO, path: Path, lines: Iterable[bytes]) -> None:
    """Write what is to take the place of ``path``, durably."""
    if path.exists():
        os.fchmod(draft.fileno(), stat.S_IMODE(path.stat().st_mode))
    draft.writelines(line + b"\n" for line in lines)
    draft.flush()
    os.fsync(draft.fileno())
