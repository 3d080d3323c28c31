"""``rpcshare keys``: API keys, managed in the store itself, whether or not a server runs on it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

import click

from rpcshare.auth.api_keys import DEFAULT_SCOPES, MAX_RATE, ApiKey, ApiKeys, NewApiKey, UnknownApiKeyError
from rpcshare.auth.audit import Action
from rpcshare.auth.caller import DefaultVisibility, Scope
from rpcshare.cli.auditing import tell_audit_log
from rpcshare.cli.exit_status import NotFoundError
from rpcshare.cli.options import with_settings
from rpcshare.cli.store_access import STORE_SETTINGS, configured_store, telling_of_a_new_data_directory
from rpcshare.cli.terminal import Column, json_text, print_table, say
from rpcshare.config import Settings
from rpcshare.durations import parse_duration

__all__ = ["keys"]

T = TypeVar("T")

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.pass_context
def keys(ctx: click.Context) -> None:
    """Create, list, rotate and revoke API keys."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@keys.command(short_help="Create a key, and print it.")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help=f"What the key allows; may be repeated. [default: {DEFAULT_SCOPES[0]}]",
)
@click.option("--expires", metavar="DURATION", help="Lifetime of the key, such as 30d. [default: no expiry]")
@click.option(
    "--default-visibility",
    type=click.Choice(["link", "private", "organization"]),
    help="Who may read the shares that are created with the key, unless their creator says. [default: the "
    "server's]",
)
@click.option(
    "--rate-limit",
    type=click.IntRange(1, MAX_RATE),
    help="Number of requests, and calls over RPC, in a minute. [default: no limit]",
)
@_json_option
@with_settings(*STORE_SETTINGS, "audit_log")
def create(
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    expires: str | None,
    default_visibility: DefaultVisibility | None,
    rate_limit: int | None,
    as_json: bool,
) -> None:
    """Create an API key for NAME, and print it. It is printed only once: the store keeps only a hash.

    Shares that are created with the key belong to NAME. Keys of one name own the same shares.
    """
    if expires is not None:
        _check_duration(expires)
    with telling_of_a_new_data_directory(settings):
        new = _with_keys(
            settings,
            lambda api_keys: api_keys.create(
                name, scopes or DEFAULT_SCOPES, expires, default_visibility, rate_limit=rate_limit
            ),
            must_exist=False,
        )
    _print_new(new, as_json=as_json)
    tell_audit_log(settings, Action.KEY_CREATE, key=new.kept.id)


@keys.command("list", short_help="List all keys.")
@_json_option
@with_settings(*STORE_SETTINGS)
def list_keys(settings: Settings, as_json: bool) -> None:
    """List all keys, oldest first. The keys themselves are not shown."""
    found = _with_keys(settings, lambda api_keys: api_keys.list())
    if as_json:
        click.echo(json_text([key.described() for key in found]))
    elif found:
        _print_table(found)


@keys.command(short_help="Replace a key by a new one.")
@click.argument("key_id", metavar="ID")
@_json_option
@with_settings(*STORE_SETTINGS, "audit_log")
def rotate(settings: Settings, key_id: str, as_json: bool) -> None:
    """Replace the key with ID by a new one, and print the new key. The old key is revoked.

    The new key has the same name, scopes and lifetime, which starts now.
    """
    new = _with_keys(settings, lambda api_keys: api_keys.rotate(key_id))
    _print_new(new, as_json=as_json)
    tell_audit_log(settings, Action.KEY_ROTATE, key=key_id, newKey=new.kept.id)


@keys.command(short_help="Revoke a key.")
@click.argument("key_id", metavar="ID")
@_json_option
@with_settings(*STORE_SETTINGS, "audit_log")
def revoke(settings: Settings, key_id: str, as_json: bool) -> None:
    """Revoke the key with ID. Running servers refuse it within 5 seconds, and close its connections."""
    _with_keys(settings, lambda api_keys: api_keys.revoke(key_id))
    if as_json:
        click.echo(json_text({"id": key_id, "revoked": True}))
    tell_audit_log(settings, Action.KEY_REVOKE, key=key_id)


def _with_keys(settings: Settings, work: Callable[[ApiKeys], Awaitable[T]], *, must_exist: bool = True) -> T:
    """Do ``work`` with the keys in the configured store."""
    if settings.store_url.lower().startswith("memory:"):
        raise click.UsageError("--store: memory:// is in the server alone; make keys over RPC, with keys()")

    async def open_and_work() -> T:
        async with configured_store(settings, must_exist=must_exist) as store:
            return await work(ApiKeys(store))

    try:
        return asyncio.run(open_and_work())
    except UnknownApiKeyError:
        raise NotFoundError("there is no key of this id (see 'rpcshare keys list')") from None


def _check_duration(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as exc:
        raise click.UsageError(f"--expires: {exc}") from None


def _print_new(new: NewApiKey, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_text(new.described()))
        return
    click.echo(new.key)
    kept = new.kept
    say(f"key {kept.id} of {kept.name} ({_listed(kept)}), {_end(kept)}; it is not shown again", err=True)


def _print_table(found: list[ApiKey]) -> None:
    columns = [Column(heading) for heading in ("id", "name", "scopes", "created", "state")]
    print_table(
        columns,
        ((key.id, key.name, _listed(key), _date(key.created_at), _state(key)) for key in found),
    )


def _listed(key: ApiKey) -> str:
    shares = f"; shares: {key.default_visibility}" if key.default_visibility else ""
    rate = f"; {key.rate_limit:,} requests a minute" if key.rate_limit else ""
    return ", ".join(sorted(key.scopes)) + shares + rate


def _state(key: ApiKey) -> str:
    if key.rotated_at is not None:
        return f"rotated {_date(key.rotated_at)}"
    if key.revoked_at is not None:
        return f"revoked {_date(key.revoked_at)}"
    return _end(key)


def _end(key: ApiKey) -> str:
    if key.expires_at is None:
        return "does not expire"
    verb = "expires" if key.expires_at > time.time() * 1000 else "expired"
    return f"{verb} {_date(key.expires_at)}"


def _date(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"
