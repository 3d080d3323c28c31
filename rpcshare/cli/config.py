"""``rpcshare config``: what a server with these options, environment and file would run with."""

import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import click
from pydantic import Secret

from rpcshare.auth.secret_files import ADMIN_TOKEN_FILE, SHARED_SECRET_FILE, SIGNING_KEY_FILE
from rpcshare.cli.options import setting_places, spelled, variable_warnings, with_settings
from rpcshare.cli.terminal import Column, json_text, print_table, say
from rpcshare.config import NEVER_SHOWN, Settings, environment_name, option_name

__all__ = ["config"]

_MASK = "********"

# Files that have to be there, as the server does not make them.
_FILES = (
    "encryption_key_file", "signing_key", "jwt_key", "tls_cert", "tls_key", "client_ca", "client_crl",
    "proxy_secret_file", "git_known_hosts", "git_ca_file", "git_file_root",
)  # fmt: skip

_KEPT = {"token": ADMIN_TOKEN_FILE, "shared_secret": SHARED_SECRET_FILE, "signing_key": SIGNING_KEY_FILE}

# What of a store's URL is no secret.
_SHOWN_QUERY = re.compile(r"(region|endpoint_url)=[^@]*")


@click.group(invoke_without_command=True)
@click.pass_context
def config(ctx: click.Context) -> None:
    """Check a server's settings, and show where each comes from."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@with_settings()
def check(settings: Settings, as_json: bool) -> int:
    """Check the settings of `rpcshare serve` without a start: values, files, unknown variables.

    Nothing is connected to and nothing is made. The exit status is 1 if something is wrong, and 2 if a
    setting has a bad value.
    """
    problems = [*_problems(settings), *variable_warnings(os.environ)]
    if as_json:
        click.echo(json_text({"ok": not problems, "problems": problems}))
    elif problems:
        say(*problems, err=True)
    else:
        say("the settings are good")
    return 1 if problems else 0


@config.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@with_settings()
def show(settings: Settings, as_json: bool) -> None:
    """Show each setting of `rpcshare serve`, and where it comes from. Secrets are masked."""
    places = setting_places()
    shown = {field: _shown(settings, field) for field in Settings.model_fields}
    sources = {field: _source(field, places.get(field)) for field in shown}
    if as_json:
        told = [
            {"setting": field, "value": value, "source": sources[field][0], "place": sources[field][1]}
            for field, value in shown.items()
        ]
        click.echo(json_text(told))
    else:
        columns = [Column("setting"), Column("value", without_room="fold"), Column("from")]
        print_table(
            columns,
            ((field, value, " ".join(filter(None, sources[field]))) for field, value in shown.items()),
        )
    for warning in variable_warnings(os.environ):
        say(f"warning: {warning}", err=True)


def _source(field: str, place: str | None) -> tuple[str, str | None]:
    """Return the kind of place that a value comes from, and which one it is."""
    if place is None:
        return "default", None
    variable = environment_name(field)
    kinds = {option_name(field): "option", variable: "environment", f"{variable}_FILE": "environment"}
    return kinds.get(place, "file"), place


def _shown(settings: Settings, field: str) -> str:
    """Return the value of a setting, what stands for a missing one included, without any secret."""
    value: object = getattr(settings, field)
    if isinstance(value, Secret):
        return _MASK
    if value is None and field in _KEPT:
        return f"kept in {settings.data_dir / _KEPT[field]}"
    derived = {
        "store": settings.store_url,
        "database": settings.database_url,
        "public_url": settings.base_url(),
        "oidc": ", ".join(provider.name for provider in settings.oidc),
        "models": ", ".join(table.name for table in settings.models),
    }
    value = derived.get(field, value)
    if value is None:
        return ""
    return _masked(spelled(value)) if field in NEVER_SHOWN else spelled(value)


def _masked(url: str) -> str:
    """Return a URL without its password, and without those parts of its query that may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _MASK
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{colon and f':{_MASK}'}{at}{host}"
    query = "&".join(
        pair if _SHOWN_QUERY.fullmatch(pair) else f"{pair.partition('=')[0]}={_MASK}"
        for pair in parts.query.split("&")
        if pair
    )
    if not parts.netloc and not query:
        return url
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))


def _problems(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each thing that a start would fail on, as far as it can be seen from here."""
    from rpcshare.database import parse_location  # noqa: PLC0415 -- --help must not wait for it

    for field in _FILES:
        path: Path | None = getattr(settings, field)
        try:
            if path is not None:
                with path.open("rb"):
                    pass
        except OSError as exc:
            yield f"{option_name(field)}: cannot read {path}: {exc.strerror}"
    try:
        parse_location(settings.database_url)
    except ValueError as exc:
        yield f"--database: {exc}"
    if settings.store_url.partition(":")[0].lower() not in ("sqlite", "memory", "s3"):
        yield "--store: not the URL of a store: it begins with sqlite:///, memory:// or s3://"
    if settings.broadcast.partition(":")[0].lower() not in ("local", "redis", "rediss"):
        yield "--broadcast: must begin with local:// or redis://"
    if settings.data_dir.exists() and not os.access(settings.data_dir, os.R_OK | os.W_OK | os.X_OK):
        yield f"--data-dir: {settings.data_dir} cannot be written by this user"
    yield from _tls_problems(settings)
    if settings.models:
        from rpcshare.gateway.keys import fault_of_key  # noqa: PLC0415 -- few servers run agents

        yield from filter(None, map(fault_of_key, settings.models))


def _tls_problems(settings: Settings) -> Iterator[str]:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_cert, settings.tls_key
        )
    except ssl.SSLError:
        yield "--tls-cert, --tls-key: they do not hold a certificate and its key, in PEM"
    except OSError:
        pass  # it is told of already
