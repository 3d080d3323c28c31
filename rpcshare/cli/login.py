"""``rpcshare login``."""

import asyncio
import sys
from pathlib import Path

import click

from rpcshare.auth.authenticator import split_path_key
from rpcshare.auth.credential import MAX_CREDENTIAL_LENGTH, Credential, CredentialKind
from rpcshare.cli.client_tls import client_context, tls_files
from rpcshare.cli.connection import LOCAL_SERVER, Server, checked_url, is_loopback, with_tls_files
from rpcshare.cli.profile_store import Profile, Profiles, base_of, default_name, keyring
from rpcshare.cli.terminal import json_text, say
from rpcshare.client.types import Identity
from rpcshare.errors import ErrorCode, ShareError

__all__ = ["login"]


@click.command()
@click.argument("url", required=False, envvar="RPCSHARE_URL")
@click.option("--name", metavar="NAME", help="Name of the profile. [default: the server's host and port]")
@click.option(
    "--default/--no-default",
    "is_default",
    default=True,
    show_default=True,
    help="Whether commands use this server unless they name another one.",
)
@click.option("--no-keyring", is_flag=True, help="Keep the token in the file even if there is a keyring.")
@click.option("--json", "as_json", is_flag=True, help="Print profile, url, subject and scopes as JSON.")
@with_tls_files
def login(
    url: str | None,
    name: str | None,
    is_default: bool,
    no_keyring: bool,
    as_json: bool,
    ca: Path | None,
    cert: Path | None,
    cert_key: Path | None,
) -> None:
    """Sign in to the server at URL, and keep the token for all commands.

    The token (the admin token, an API key, or a signed token) is prompted for, or read from standard input:
    rpcshare login URL < FILE. It is verified before it is stored in the keyring, if there is one, or in
    $XDG_CONFIG_HOME/rpcshare/profiles.json, which only you can read.
    """
    profiles = Profiles()
    signed = profiles.read()
    if url is None:
        known = signed.profiles.get(name or signed.default or "")
        url = LOCAL_SERVER if known is None else known.url
    base = _base(url)
    name = default_name(base) if name is None else name
    if not name or not name.isprintable() or len(name) > MAX_CREDENTIAL_LENGTH:
        raise click.BadParameter("must be a printable name", param_hint="--name")
    is_encrypted = base.startswith("https://")
    if not is_encrypted and not is_loopback(checked_url(base).hostname or ""):
        say(f"warning: {base} is not encrypted: others on the way can read the token", err=True)
    context = client_context(tls_files(ca, cert, cert_key)) if is_encrypted else None
    token = _read_token(base)
    identity = asyncio.run(_verified(Server(base, token, context)))
    failure = profiles.add(
        name,
        Profile(base, identity.subject),
        token,
        in_keyring=not no_keyring and keyring() is not None,
        default=is_default,
    )
    if failure is not None:
        say(f"warning: the keyring did not take the token ({failure}): it is in {profiles.path}", err=True)
    if as_json:
        told = {"profile": name, "url": base, "subject": identity.subject, "scopes": identity.scopes}
        click.echo(json_text(told))
    else:
        say(f"signed in to {base} as {identity.subject or 'anonymous'} (profile {name})")


def _base(url: str) -> str:
    """Return the base URL of the server; a bare host name means https."""
    if "://" not in url:
        url = f"https://{url}"
    parts = checked_url(url)
    if parts.username is not None or split_path_key(parts.path)[0] is not None or parts.query:
        raise click.UsageError("the URL must not hold a key, a user or a query: the token is prompted for")
    return base_of(url)


def _read_token(base: str) -> str:
    """Return the token that the user types, without echo, or pipes in."""
    if sys.stdin.isatty():
        token = str(click.prompt(f"Token for {base}", hide_input=True, err=True)).strip()
    else:
        with click.open_file("-", "rb") as piped:
            line: bytes = piped.readline(MAX_CREDENTIAL_LENGTH + 2)
        token = line.decode("utf-8", "replace").strip()
    if not token:
        raise click.UsageError("no token: give it on standard input, or at the prompt of a terminal")
    if not Credential(CredentialKind.TOKEN, token).is_well_formed:
        raise click.UsageError("the token must be visible ASCII characters, none of them a space")
    return token


async def _verified(server: Server) -> Identity:
    try:
        async with server.connected() as client:
            return await client.whoami()
    except ShareError as exc:
        if exc.code is ErrorCode.UNAUTHORIZED:
            raise ShareError(exc.code, f"{exc.message}: the token is not stored") from None
        raise
