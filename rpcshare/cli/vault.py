"""``rpcshare vault``: keys of third parties, kept on a server."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from rpcshare.cli.connection import Server, with_server
from rpcshare.cli.exit_status import NotFoundError
from rpcshare.cli.options import with_settings
from rpcshare.cli.terminal import Column, ago, json_text, print_table, say
from rpcshare.config import Settings
from rpcshare.durations import parse_duration
from rpcshare.errors import ErrorCode
from rpcshare.rpc import RpcError, Stub
from rpcshare.storage.encryption_keys import KeyFileError

__all__ = ["vault"]

T = TypeVar("T")

_LONGEST = 64 * 1024 + 1  # bytes of a value, with the end of its line
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.pass_context
def vault(ctx: click.Context) -> None:
    """Keep keys of third parties, such as model providers, on the server, encrypted."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@vault.command("set", short_help="Store a key, or replace its value.")
@click.argument("name")
@click.option("--service", metavar="SERVICE", help="What the key is for, such as openai. [default: NAME]")
@click.option("--expires", metavar="DURATION", help="Lifetime, such as 30d. [default: no expiry]")
@click.option("--organization", is_flag=True, help="Store it for all of your organization.")
@_json_option
@with_server
def set_(
    server: Server, name: str, service: str | None, expires: str | None, organization: bool, as_json: bool
) -> None:
    """Store a key as NAME. Its value is prompted for, or read from standard input, and is no argument.

    If you have a key of this name already, its value is replaced.
    """
    service = service or name
    secret: dict[str, Any] = {"service": service, "name": name}
    secret["owner"] = "organization" if organization else "user"
    if expires is not None:
        try:
            secret["expiresAt"] = int((time.time() + parse_duration(expires)) * 1000)
        except ValueError as exc:
            raise click.UsageError(f"--expires: {exc}") from None
    secret["value"] = _read_value()

    async def store(entries: Stub) -> tuple[str, bool]:
        same = ("service", "name", "owner")
        for entry in await entries.list():
            if all(entry[each] == secret[each] for each in same):
                if expires is not None:
                    message = "--expires: is said of a new key; revoke this one first (rpcshare vault rm)"
                    raise click.UsageError(message)
                await entries.rotate(entry["id"], secret["value"])
                return str(entry["id"]), True
        return str((await entries.store(secret))["id"]), False

    entry_id, is_replaced = asyncio.run(_with_vault(server, store))
    if as_json:
        click.echo(json_text({"id": entry_id, "replaced": is_replaced}))
    else:
        say(f"{'replaced' if is_replaced else 'stored'} {name} of {service} ({entry_id})")


@vault.command("ls", short_help="List your keys, without their values.")
@_json_option
@with_server
def ls(server: Server, as_json: bool) -> None:
    """List your keys and your organization's, the oldest first. Values are not shown."""
    entries: list[dict[str, Any]] = asyncio.run(_with_vault(server, lambda entries: entries.list()))
    if as_json:
        click.echo(json_text(entries))
    elif entries:
        now = time.time()
        columns = [Column(each) for each in ("id", "service", "name", "owner", "changed", "used", "expires")]
        print_table(columns, (_cells(entry, now) for entry in entries))


@vault.command("get", short_help="Print the value of a key.")
@click.argument("entry_id", metavar="ID")
@_json_option
@with_server
def get(server: Server, entry_id: str, as_json: bool) -> None:
    """Print the value of the key with ID, which the audit log tells of."""
    entry = asyncio.run(_with_vault(server, lambda entries: entries.retrieve(entry_id)))
    value = str(entry["value"])
    click.echo(json_text(entry) if as_json else value, nl=as_json or not value.endswith("\n"))


@vault.command("rm", short_help="Revoke a key.")
@click.argument("entry_id", metavar="ID")
@_json_option
@with_server
def rm(server: Server, entry_id: str, as_json: bool) -> None:
    """Remove the key with ID. It is used nowhere from now on, and cannot be had back."""
    asyncio.run(_with_vault(server, lambda entries: entries.revoke(entry_id)))
    if as_json:
        click.echo(json_text({"id": entry_id, "revoked": True}))
    else:
        say(f"revoked {entry_id}")


@vault.command("rewrap", short_help="Wrap all keys by the first key of the ring.")
@_json_option
@with_settings("data_dir", "database", "encryption_key_file")
def rewrap(settings: Settings, as_json: bool) -> None:
    """Wrap all keys of this machine's vault by the first key in --encryption-key-file.

    Afterwards the other keys of that file are no longer needed by the vault. Values are not touched, and a
    server may run meanwhile. It does the same by itself when it opens the vault.
    """
    done, faults = asyncio.run(_rewrap(settings))
    if as_json:
        click.echo(json_text({"wrapped": done, "faults": faults}))
    else:
        say(f"{done} wrapped")
    for fault in faults:
        say(fault, err=True)
    if faults:
        raise click.exceptions.Exit(1)


async def _rewrap(settings: Settings) -> tuple[int, list[str]]:
    # These import SQLAlchemy, which the other commands do without.
    from rpcshare.server.backends import opened_records  # noqa: PLC0415
    from rpcshare.server.vault_opening import VaultKeyLostError, opened_key_ring  # noqa: PLC0415
    from rpcshare.vault.vault import Vault  # noqa: PLC0415

    async with opened_records(settings) as records:
        try:
            keys = await opened_key_ring(settings, records)
        except (VaultKeyLostError, KeyFileError) as exc:
            raise click.ClickException(str(exc)) from None
        done, faults = await Vault(records, keys).rewrap()
    return done, list(faults)


async def _with_vault(server: Server, work: Callable[[Stub], Awaitable[T]]) -> T:
    async with server.connected() as client:
        try:
            return await work(client.api.vault())
        except RpcError as exc:
            if exc.code == ErrorCode.INVALID_ARGUMENT and exc.message.startswith("id:"):
                raise NotFoundError("there is no such key (see 'rpcshare vault ls')") from None
            raise


def _read_value() -> str:
    if sys.stdin.isatty():
        value: str = click.prompt("Value", hide_input=True, err=True)
        return value
    data = sys.stdin.buffer.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise click.UsageError(f"standard input: a value has at most {_LONGEST - 1:,} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise click.UsageError("standard input: the value is not UTF-8") from None
    if "\n" not in text.removesuffix("\n"):  # or it is the end of the last of several lines
        text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise click.UsageError("standard input: the value is empty")
    return text


def _cells(entry: dict[str, Any], now: float) -> tuple[str, ...]:
    changed = entry["rotatedAt"] or entry["createdAt"]
    used = "never" if entry["usedAt"] is None else ago(now - entry["usedAt"] / 1000)
    end = entry["expiresAt"]
    expires = "" if end is None else f"{datetime.fromtimestamp(end / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    names = (entry["id"], entry["service"], entry["name"], entry["owner"])
    return (*map(str, names), ago(now - changed / 1000), used, expires)
