"""Opening a store, or its database, from the command line, and telling of its failures."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import click

from rpcshare.cli.terminal import say
from rpcshare.config import Settings
from rpcshare.database import DatabaseError, parse_location
from rpcshare.shares.search import open_index
from rpcshare.storage import MissingKeysError, ObjectStore, StoreError, check_needs_no_keys, open_store

if TYPE_CHECKING:
    from rpcshare.shares.search_index import SearchIndex

__all__ = [
    "DATABASE_SETTINGS",
    "STORE_SETTINGS",
    "configured_database",
    "configured_store",
    "opened_store",
    "telling_of_a_new_data_directory",
]

STORE_SETTINGS = ("data_dir", "store", "encryption_key_file", "encryption_allow_plain")
"""The settings that say which store a server has, and how to read it."""


DATABASE_SETTINGS = ("database",)
"""The settings that say which database a server has, besides those of its store."""


@asynccontextmanager
async def configured_database(settings: Settings) -> AsyncIterator["SearchIndex"]:
    """Open the search index that a server with these settings has.

    Raises:
        click.UsageError: the URL names no database.
        click.ClickException: the database cannot be opened, or failed while it was open.
    """
    try:
        location = parse_location(settings.database_url)
    except ValueError as exc:
        raise click.UsageError(f"--database: {exc}") from exc
    try:
        index = await open_index(location)
        try:
            yield index
        finally:
            await index.database.close()
    except DatabaseError as exc:
        raise click.ClickException(str(exc)) from exc


def configured_store(
    settings: Settings, *, must_exist: bool = True
) -> AbstractAsyncContextManager[ObjectStore]:
    """Open the store that a server with these settings has; as for :func:`opened_store`."""
    return opened_store(
        settings.store_url,
        "--store",
        key_file=settings.encryption_key_file,
        allow_plain=settings.encryption_allow_plain,
        must_exist=must_exist,
        is_readable=True,
    )


@contextmanager
def telling_of_a_new_data_directory(settings: Settings) -> Iterator[None]:
    """Say so if the work made the data directory: its server may have another one.

    The default depends on the working directory, so a key that is made elsewhere is one of no server.
    """
    was_there = settings.data_dir.exists()
    yield
    if not was_there and settings.data_dir.exists():
        made = settings.data_dir.absolute()
        say(
            f"made a new data directory, {made}: if the server has another, name it with --data-dir", err=True
        )


@asynccontextmanager
async def opened_store(
    url: str,
    option: str,
    *,
    key_file: Path | None = None,
    allow_plain: bool = False,
    must_exist: bool = True,
    is_readable: bool = False,
) -> AsyncIterator[ObjectStore]:
    """Open the store at ``url``, which ``option`` gave.

    Args:
        url: of the store.
        option: for errors.
        key_file: the file with its keys; None: what is there is read as it is.
        allow_plain: whether objects may be there that are not encrypted.
        must_exist: whether a file that is not there is an error, and not an empty store.
        is_readable: whether an encrypted store without a key file is an error.

    Raises:
        click.UsageError: ``url`` names no store, the key file holds no keys, or there is none and the store
            is encrypted.
        click.ClickException: the store cannot be opened, or failed while it was open.
    """
    if must_exist:
        _refuse_missing_file(url, option)
    try:
        store = await open_store(url, key_file=key_file, allow_plain=allow_plain)
    except ValueError as exc:
        raise click.UsageError(f"{option}: {exc}") from exc
    except StoreError as exc:
        raise click.ClickException(f"{option}: {exc}") from exc
    try:
        try:
            if is_readable and key_file is None:
                await check_needs_no_keys(store)
            yield store
        finally:
            await store.close()
    except MissingKeysError as exc:
        raise click.UsageError(str(exc)) from exc
    except StoreError as exc:
        raise click.ClickException(str(exc)) from exc


def _refuse_missing_file(url: str, option: str) -> None:
    scheme, _, rest = url.partition(":")
    path = Path(unquote(rest.removeprefix("///")))
    if scheme.lower() == "sqlite" and not path.is_file():
        hint = " (name the server's data directory with --data-dir)" if option == "--store" else ""
        raise click.ClickException(f"{option}: there is no store {path.absolute()}{hint}")
