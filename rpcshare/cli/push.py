"""``rpcshare push``."""

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import click
import msgspec
from msgspec import UNSET, UnsetType

from rpcshare.cli.access_options import DURATION, with_password
from rpcshare.cli.connection import Server, with_server
from rpcshare.cli.documents import SizedItem, sized_items
from rpcshare.cli.terminal import json_text, say
from rpcshare.client import ShareClient, ShareCredentials
from rpcshare.client.share_client import Visibility
from rpcshare.client.types import SyncData
from rpcshare.shares.share_identity import is_session_id
from rpcshare.transcripts import SessionFile, SessionFileError, read_session_file, read_session_folder

__all__ = ["push"]

# Of one sync: enough to make its round trip cheap, and little enough for progress to be seen.
BATCH_BYTES = 1024 * 1024
BATCH_ITEMS = 500

# Syncs under way at once, which keeps the link busy while the server writes.
IN_FLIGHT = 4


class Batch(msgspec.Struct):
    """What one sync carries."""

    items: list[SyncData]
    size: int
    """In bytes of JSON."""


class Access(msgspec.Struct, frozen=True):
    """Who may read the share, and until when, as far as the command line says."""

    visibility: Visibility | UnsetType
    expires_in: str | UnsetType
    password: str | UnsetType

    def __repr__(self) -> str:
        """Leave out the password."""
        return f"Access(visibility={self.visibility!r}, expires_in={self.expires_in!r})"


@click.command()
@click.argument("file")
@click.argument("session_id", required=False)
@click.option("--private", is_flag=True, help="Readable only by you, and with view tokens (rpcshare access).")
@click.option("--organization", is_flag=True, help="Readable by the users of your organization.")
@with_password
@click.option("--expires", type=DURATION, metavar="TIME", help="Delete the share after TIME, such as 7d.")
@click.option("--json", "as_json", is_flag=True, help="Print id, url and syncCount as a JSON object.")
@click.option("--show-secret", is_flag=True, help="Also print the share's secret.")
@with_server
def push(
    server: Server,
    file: str,
    session_id: str | None,
    private: bool,
    organization: bool,
    password: str | UnsetType,
    expires: str | None,
    as_json: bool,
    show_secret: bool,
) -> None:
    """Share the session in FILE, and print the URL of the share.

    FILE (- for standard input) is what `opencode export` prints, a storage folder of opencode, a transcript
    of Claude Code, Codex or Gemini CLI, or what `rpcshare pull` prints. The session's ID is the file's own
    unless SESSION_ID is given, which also chooses one of several. If the session is shared already, the
    content of FILE is added to the share: messages, parts and models replace those with the same id, diffs
    are appended.
    """
    if private and organization:
        raise click.UsageError("--private and --organization exclude each other")
    visibility: Visibility | UnsetType = "private" if private else "organization" if organization else UNSET
    access = Access(visibility, UNSET if expires is None else expires, password)
    name = "standard input" if file == "-" else file
    try:
        session = _read(file, session_id)
        batches = list(split_into_batches(sized_items(session)))
    except SessionFileError as exc:
        raise click.ClickException(f"{name}: {exc}") from None
    if session_id is None:
        session_id = _own_id(session, name)
    with _progress(sum(batch.size for batch in batches)) as advance:
        share, sync_count = asyncio.run(_push(server, session_id, batches, access, advance))
    say(f"{name}: {session.kind}", err=True)
    if as_json:
        told = {"id": share.id, "url": share.url, "syncCount": sync_count}
        click.echo(json_text(told | {"secret": share.secret} if show_secret else told))
        return
    say(share.url)
    if show_secret:
        say(f"secret: {share.secret}")


def _read(file: str, session_id: str | None) -> SessionFile:
    if file != "-" and Path(file).is_dir():
        return read_session_folder(Path(file), session_id)
    with click.open_file(file, "rb") as opened:
        return read_session_file(opened.read(), session_id)


def _own_id(session: SessionFile, name: str) -> str:
    if session.session_id is None:
        raise click.UsageError(f"{name}: {session.kind} without a session ID: give one behind it")
    if not is_session_id(session.session_id):
        raise click.UsageError(
            f"{name}: {session.kind} whose session ID cannot be shared: give one behind it"
        )
    return session.session_id


def split_into_batches(items: Iterable[SizedItem]) -> Iterator[Batch]:
    """Yield ``items`` in order, in batches within the bounds; one value too large for any has its own."""
    batch = Batch([], 0)
    for item, size in _pieces(items):
        if batch.items and (batch.size + size > BATCH_BYTES or len(batch.items) == BATCH_ITEMS):
            yield batch
            batch = Batch([], 0)
        batch.items.append(item)
        batch.size += size
    if batch.items:
        yield batch


def _pieces(items: Iterable[SizedItem]) -> Iterator[tuple[SyncData, int]]:
    """Yield each item with its size, a list that is too large for a batch as several items."""
    for sized in items:
        size = sum(sized.sizes)
        if size <= BATCH_BYTES or len(sized.sizes) == 1:
            yield sized.item, size
            continue
        # Lists only ever add to what the share has, value by value, so any cut leaves the same share.
        start = taken = 0
        for index, value_size in enumerate((*sized.sizes, BATCH_BYTES)):
            if index > start and taken + value_size > BATCH_BYTES:
                yield {**sized.item, "data": sized.item["data"][start:index]}, taken
                start, taken = index, 0
            taken += value_size


async def _push(
    server: Server, session_id: str, batches: list[Batch], access: Access, advance: Callable[[int], None]
) -> tuple[ShareCredentials, int]:
    """Make the share, send it all, and return what it is called and how many syncs it has seen."""
    async with server.connected() as client:
        # Who has no name may not be able to read the share, whose syncs only a sync tells it then.
        may_be_nameless = server.token is None and not server.shows_certificate
        is_nameless = len(batches) <= 1 and may_be_nameless
        first, rest = (None, batches) if is_nameless or not batches else (batches[0], batches[1:])
        share = await client.create_share(
            session_id,
            None if first is None else first.items,
            visibility=access.visibility,
            expires_in=access.expires_in,
            password=access.password,
        )
        if first is not None:
            advance(first.size)
        count = 0
        async for synced, size in _synced(client, share, rest):
            count = synced
            advance(size)
        if not (rest or is_nameless):
            count = (await client.get_share_metadata(share.id)).sync_count
        return share, count


async def _synced(
    client: ShareClient, share: ShareCredentials, batches: list[Batch]
) -> AsyncIterator[tuple[int, int]]:
    """Send ``batches`` in order, and yield of each, once it is durable, the new syncCount and its size."""
    under_way: deque[tuple[asyncio.Task[int], int]] = deque()
    try:
        for batch in batches:
            if len(under_way) == IN_FLIGHT:
                sync, size = under_way.popleft()
                yield await sync, size
            sync = asyncio.create_task(client.sync_share(share.id, share.secret, batch.items))
            under_way.append((sync, batch.size))
        while under_way:
            sync, size = under_way.popleft()
            yield await sync, size
    finally:
        # After a failure those behind it fail as well, and one report is enough.
        for sync, _ in under_way:
            sync.cancel()
        await asyncio.gather(*(sync for sync, _ in under_way), return_exceptions=True)


def _progress(total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show on a terminal how many of ``total`` bytes have been sent."""
    if not sys.stderr.isatty():
        return nullcontext(lambda _size: None)
    return _progress_bar(total)


@contextmanager
def _progress_bar(total: int) -> Iterator[Callable[[int], None]]:
    # Not with the module: they take longer to import than most commands to run.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda size: progress.advance(bar, size)
