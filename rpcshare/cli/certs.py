"""``rpcshare certs``: a private CA, and certificates for the machines that use one's server."""

from __future__ import annotations

import datetime as dt
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rpcshare.auth.audit import Action
from rpcshare.auth.caller import Scope
from rpcshare.auth.subjects import fault_of_subject
from rpcshare.cli.auditing import tell_audit_log
from rpcshare.cli.exit_status import NotFoundError
from rpcshare.cli.options import with_settings
from rpcshare.cli.terminal import json_text, printable, say
from rpcshare.config import Settings

if TYPE_CHECKING:  # it takes longer to import than the other commands need to run
    from rpcshare.auth.private_ca import IssuedCertificate, KeyPair, PrivateCA

__all__ = ["certs"]

DEFAULT_DAYS = 365

_UNFIT_FOR_FILE_NAMES = re.compile(r"[^A-Za-z0-9._@-]+")


@click.group()
def certs() -> None:
    """Create certificates for your server and its clients.

    They are kept in the directory certs of the data directory.
    """


@certs.command()
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name or address of the server, in addition to localhost; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the paths of the files as JSON.")
@with_settings("data_dir", "audit_log")
def init(settings: Settings, hosts: tuple[str, ...], as_json: bool) -> None:
    """Create a private CA, and a certificate for the server.

    Existing files stay as they are.
    """
    from rpcshare.auth.certificate_files import write_new_file  # noqa: PLC0415 -- as above
    from rpcshare.auth.private_ca import PrivateCA, server_names  # noqa: PLC0415 -- as above

    try:
        names = server_names(hosts)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--host") from None
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = _directory(settings)
    if PrivateCA.is_in(directory):
        ca = PrivateCA(directory)
        say(f"kept the CA in {directory}", err=True)
    else:
        ca = PrivateCA.make(directory)
        tell_audit_log(settings, Action.AUTHORITY_CREATE)
        say(f"made a CA in {directory}", err=True)
    certificate, key = directory / "server.pem", directory / "server-key.pem"
    if certificate.exists():
        say(f"kept {certificate}; to have another made, remove it and {key.name}", err=True)
    else:
        pair = ca.issue_to_server(names)
        write_new_file(key, pair.key_pem, mode=0o600)
        write_new_file(certificate, pair.certificate_pem, mode=0o644)
        tell_audit_log(
            settings, Action.CERTIFICATE_ISSUE, name="server", serial=f"{pair.certificate.serial_number:x}"
        )
        say(f"made {certificate}", err=True)
    options = {"tls-cert": "server", "tls-key": "server-key", "client-ca": "ca", "client-crl": "crl"}
    if as_json:
        click.echo(json_text({name: str(directory / f"{file}.pem") for name, file in options.items()}))
        return
    spelled = " ".join(f"--{name} {directory / f'{file}.pem'}" for name, file in options.items())
    say(f"rpcshare serve {spelled}")


@certs.command()
@click.argument("name")
@click.option("--days", type=click.IntRange(1, 36_500), default=DEFAULT_DAYS, show_default=True, metavar="N")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Directory for the files. [default: certs/clients in the data directory]",
)
@click.option(
    "--p12", is_flag=True, help="Also create a PKCS#12 file, for browsers; prompts for its password."
)
@click.option(
    "--p12-password",
    envvar="RPCSHARE_P12_PASSWORD",
    metavar="PASSWORD",
    help="Create a PKCS#12 file with this password. Other users can see the option in the list of processes, "
    "but not the environment variable. [env: RPCSHARE_P12_PASSWORD]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the paths of the files as JSON.")
@with_settings("data_dir", "audit_log")
def issue(
    settings: Settings,
    name: str,
    days: int,
    out: Path | None,
    p12: bool,
    p12_password: str | None,
    as_json: bool,
) -> None:
    """Issue a client certificate for NAME. The server identifies its holder as NAME.

    NAME may be a URI, an e-mail address, a host name, or any other name. The files are NAME.pem and
    NAME-key.pem.
    """
    from rpcshare.auth.certificate_files import write_new_file  # noqa: PLC0415 -- as above

    _check_name(name)
    stem = _UNFIT_FOR_FILE_NAMES.sub("-", name).strip("-.") or "client"
    directory = out or _directory(settings) / "clients"
    paths = {suffix: directory / f"{stem}{suffix}" for suffix in (".pem", "-key.pem", ".p12")}
    for path in paths.values():
        if path.exists():
            raise click.ClickException(f"{path} is there already: move it away, or give another --out")
    ca = _opened(settings)
    if p12_password == "":
        raise click.BadParameter("must not be empty", param_hint="--p12-password")
    if p12 and p12_password is None:
        p12_password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    try:
        pair = ca.issue_to_client(name, days)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="NAME") from None
    write_new_file(paths["-key.pem"], pair.key_pem, mode=0o600)
    write_new_file(paths[".pem"], pair.certificate_pem, mode=0o644)
    made = {"certificate": paths[".pem"], "key": paths["-key.pem"]}
    if p12_password is not None:
        write_new_file(paths[".p12"], _as_p12(name, pair, ca, p12_password), mode=0o600)
        made["p12"] = paths[".p12"]
    if as_json:
        serial = f"{pair.certificate.serial_number:x}"
        told = {kind: str(path) for kind, path in made.items()}
        click.echo(json_text({"name": name, "serial": serial, **told}))
    else:
        for path in made.values():
            _tell(path)
    tell_audit_log(
        settings, Action.CERTIFICATE_ISSUE, name=name, serial=f"{pair.certificate.serial_number:x}"
    )


@certs.command()
@click.argument("which", metavar="NAME|SERIAL")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@with_settings("data_dir", "audit_log")
def revoke(settings: Settings, which: str, as_json: bool) -> None:
    """Revoke client certificates: all of a NAME, or the one with a SERIAL number.

    A server that was started with --client-crl refuses them within 5 seconds, and closes their connections.
    """
    ca = _opened(settings)
    issued = ca.issued()
    found = [certificate for certificate in issued if certificate.name == which]
    found = found or [certificate for certificate in issued if _serial(certificate) == which.lower()]
    if not found:
        raise NotFoundError("no client certificate of that name or serial number was issued")
    valid = [certificate for certificate in found if certificate.revoked_at is None]
    if valid:
        ca.revoke(certificate.serial for certificate in valid)
    if as_json:
        told = [{"serial": _serial(each), "wasValid": each in valid} for each in found]
        click.echo(json_text(told))
    for certificate in () if as_json else found:
        state = "revoked" if certificate in valid else "was revoked before"
        click.echo(f"{_serial(certificate)} {state}")
    for certificate in valid:
        tell_audit_log(
            settings, Action.CERTIFICATE_REVOKE, name=certificate.name, serial=_serial(certificate)
        )


@certs.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@with_settings("data_dir")
def list_issued(settings: Settings, as_json: bool) -> None:
    """List the issued client certificates."""
    issued = _opened(settings).issued()
    if as_json:
        click.echo(json_text([_described(certificate) for certificate in issued]))
        return
    rows = [("NAME", "STATE", "ISSUED", "EXPIRES", "SERIAL")]
    rows += [
        (
            printable(certificate.name),
            _state(certificate),
            f"{certificate.issued_at:%Y-%m-%d}",
            f"{certificate.expires_at:%Y-%m-%d}",
            _serial(certificate),
        )
        for certificate in issued
    ]
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for *cells, last in rows:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        click.echo("  ".join([*padded, last]))


def _tell(path: Path) -> None:
    """Print where a file is: as it is for a script, and printable on a terminal."""
    if sys.stdout.isatty():
        say(str(path))
    else:
        click.echo(path)


def _directory(settings: Settings) -> Path:
    return settings.data_dir / "certs"


def _opened(settings: Settings) -> PrivateCA:
    from rpcshare.auth.private_ca import PrivateCA  # noqa: PLC0415 -- as above

    directory = _directory(settings)
    if not PrivateCA.is_in(directory):
        raise click.ClickException(f"there is no CA in {directory}: 'rpcshare certs init' makes one")
    return PrivateCA(directory)


def _check_name(name: str) -> None:
    # As a server takes it that gives certificates no more than the scope of its default.
    fault = fault_of_subject(name, frozenset({Scope.CREATE}))
    if fault is not None:
        raise click.BadParameter(fault, param_hint="NAME")


def _as_p12(name: str, pair: KeyPair, ca: PrivateCA, password: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 -- as above
        BestAvailableEncryption,
        pkcs12,
    )

    return pkcs12.serialize_key_and_certificates(
        name.encode(),
        pair.key,
        pair.certificate,
        [ca.certificate],
        BestAvailableEncryption(password.encode()),
    )


def _serial(certificate: IssuedCertificate) -> str:
    return f"{certificate.serial:x}"


def _state(certificate: IssuedCertificate) -> str:
    if certificate.revoked_at is not None:
        return "revoked"
    return "expired" if certificate.expires_at <= dt.datetime.now(dt.UTC) else "valid"


def _described(certificate: IssuedCertificate) -> dict[str, object]:
    return {
        "name": certificate.name,
        "serial": _serial(certificate),
        "state": _state(certificate),
        "issuedAt": _milliseconds(certificate.issued_at),
        "expiresAt": _milliseconds(certificate.expires_at),
        "revokedAt": None if certificate.revoked_at is None else _milliseconds(certificate.revoked_at),
    }


def _milliseconds(time: dt.datetime) -> int:
    return round(time.timestamp() * 1000)
