"""``rpcshare token``: signing tokens with the server's own key, and ending signed tokens."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import click

from rpcshare.auth.api_keys import DEFAULT_SCOPES
from rpcshare.auth.audit import Action
from rpcshare.auth.caller import Scope
from rpcshare.cli.auditing import tell_audit_log
from rpcshare.cli.options import with_settings
from rpcshare.cli.store_access import STORE_SETTINGS, configured_store, telling_of_a_new_data_directory
from rpcshare.cli.terminal import Column, json_text, print_table, say
from rpcshare.config import Settings

if TYPE_CHECKING:  # it takes long to import
    from rpcshare.auth.token_revocations import Revocation, TokenRevocations

__all__ = ["token"]

T = TypeVar("T")


@click.group(invoke_without_command=True)
@click.pass_context
def token(ctx: click.Context) -> None:
    """Sign tokens with the server's own key, and revoke signed tokens of any issuer."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@token.command(short_help="Sign a token, and print it.")
@click.option("--subject", required=True, metavar="NAME", help="Subject of the token.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in Scope]),
    help=f"What the token allows; may be repeated. [default: {DEFAULT_SCOPES[0]}]",
)
@click.option(
    "--expires",
    default="30d",
    show_default=True,
    metavar="DURATION",
    help="Lifetime of the token, at most 366d.",
)
@click.option("--json", "as_json", is_flag=True, help="Print token, jti and subject as JSON.")
@with_settings("data_dir", "signing_key", "audit_log")
def create(settings: Settings, subject: str, scopes: tuple[str, ...], expires: str, as_json: bool) -> None:
    """Sign a token (JWT) with the server's own key, and print it.

    No server has to run. The token is not stored. Its id (jti) is printed on standard error; 'rpcshare token
    revoke' takes it.
    """
    # Not with the module: --help must not wait for the imports of cryptography.
    from rpcshare.auth.signing_key import SigningKey  # noqa: PLC0415

    with telling_of_a_new_data_directory(settings):
        key = SigningKey.kept(settings.signing_key, settings.data_dir)
        token_id = uuid4().hex
        signed = key.sign(subject, scopes or DEFAULT_SCOPES, expires, token_id=token_id)
    if as_json:
        click.echo(json_text({"token": signed, "jti": token_id, "subject": subject}))
    else:
        click.echo(signed)
        say(f"token of {subject}, jti {token_id}", err=True)
    tell_audit_log(settings, Action.TOKEN_CREATE, name=subject)


@token.command(short_help="Revoke signed tokens before they expire.")
@click.option("--jti", "token_id", metavar="ID", help="Revoke the token with this id.")
@click.option("--subject", metavar="NAME", help="Revoke all tokens that this subject has now.")
@click.option("--all", "all_of_them", is_flag=True, help="Revoke all tokens that exist now.")
@click.option(
    "--issuer",
    metavar="ISSUER",
    help="Revoke only tokens of this issuer: a claim iss, or rpcshare for tokens of 'rpcshare token'. "
    "[default: any issuer]",
)
@click.option(
    "--expires",
    metavar="DURATION",
    help="Time after which all of these tokens have expired, so that the entry can be removed. "
    "[default: 366d with --issuer rpcshare, else never]",
)
@click.option("--json", "as_json", is_flag=True, help="Print what is revoked as JSON.")
@with_settings(*STORE_SETTINGS, "audit_log")
def revoke(
    settings: Settings,
    token_id: str | None,
    subject: str | None,
    all_of_them: bool,
    issuer: str | None,
    expires: str | None,
    as_json: bool,
) -> None:
    """Revoke signed tokens: one, all of a subject, or all.

    Running servers refuse them within 5 seconds, and close their connections. Tokens that are issued later
    stay valid, so stop their issuer first.
    """
    from rpcshare.auth.signing_key import MAX_LIFETIME, OWN_ISSUER  # noqa: PLC0415 -- as above

    if [token_id is not None, subject is not None, all_of_them].count(True) != 1:
        raise click.UsageError("give one of --jti, --subject and --all")
    if expires is None and issuer == OWN_ISSUER:
        expires = f"{MAX_LIFETIME:.0f}s"
    made = _with_revocations(
        settings,
        lambda revocations: revocations.revoke(
            issuer=issuer, token_id=token_id, subject=subject, expires_in=expires
        ),
        must_exist=False,
    )
    if as_json:
        click.echo(json_text(made.described()))
    else:
        say(f"revoked {_what(made)}", err=True)
    named = {"jti": token_id, "name": subject, "issuer": issuer}
    tell_audit_log(settings, Action.TOKEN_REVOKE, **{key: value for key, value in named.items() if value})


@token.command("list-revoked", short_help="List revoked tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings(*STORE_SETTINGS)
def list_revoked(settings: Settings, as_json: bool) -> None:
    """List the tokens that were revoked before they expired, oldest first."""
    found = _with_revocations(settings, lambda revocations: revocations.list())
    if as_json:
        click.echo(json_text([each.described() for each in found]))
    elif found:
        columns = [Column("tokens"), Column("revoked"), Column("kept until")]
        rows = [
            (
                _what(each),
                _date(each.revoked_at),
                "for good" if each.expires_at is None else _date(each.expires_at),
            )
            for each in found
        ]
        print_table(columns, rows)


def _with_revocations(
    settings: Settings, work: "Callable[[TokenRevocations], Awaitable[T]]", *, must_exist: bool = True
) -> T:
    """Do ``work`` with the revocations in the configured store."""
    from rpcshare.auth.token_revocations import TokenRevocations  # noqa: PLC0415 -- as above

    if settings.store_url.lower().startswith("memory:"):
        raise click.UsageError(
            "--store: memory:// is in the server alone; another --signing-key ends its tokens"
        )

    async def open_and_work() -> T:
        async with configured_store(settings, must_exist=must_exist) as store:
            return await work(TokenRevocations(store))

    return asyncio.run(open_and_work())


def _what(revocation: "Revocation") -> str:
    of = "any issuer" if revocation.issuer is None else revocation.issuer
    if revocation.token_id is not None:
        return f"jti {revocation.token_id} of {of}"
    whose = "all" if revocation.subject is None else f"all of {revocation.subject}"
    return f"{whose}, of {of}, until {_date(revocation.revoked_at)}"


def _date(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
