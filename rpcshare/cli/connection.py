"""Command-line options that say which server a command talks to, and as whom."""

import functools
import ipaddress
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import click
import msgspec
from click.core import ParameterSource

from rpcshare.auth.authenticator import split_path_key
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.secret_files import ADMIN_TOKEN_FILE
from rpcshare.cli.client_tls import TlsFiles, client_context, tls_files
from rpcshare.cli.terminal import printable
from rpcshare.client import ShareClient
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import RpcError
from rpcshare.shares.share_identity import is_share_id

__all__ = ["Server", "with_server", "with_share"]

_Command = Callable[..., int | None]

_SHORTEST_ID = 8  # characters: a session ID of so many is the share's id as well
_SHARE_URL_END = re.compile(r"/?([?#].*)?$")
_ENDPOINT = re.compile(r"/rpc(/share)?$")
_WEB_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}


class Server(msgspec.Struct, frozen=True):
    """A server, and the credential to show it."""

    url: str
    token: str | None
    ssl_context: ssl.SSLContext | None = None
    shows_certificate: bool = False

    def __repr__(self) -> str:
        """Leave out the token, and the path, which may be one."""
        return f"Server({_origin(urlsplit(self.url))!r})"

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[ShareClient]:
        """Connect, and have what the server says of a failure printable.

        Raises:
            ShareError: what the server refused, with its code.
            click.ClickException: any other failure of a call, an answer of another shape, or the end
                of the connection.
            ConnectFailedError: there is no connection.
        """
        try:
            async with ShareClient(self.url, token=self.token, ssl_context=self.ssl_context) as client:
                yield client
        except ShareError as exc:
            message = printable(exc.message)
            if exc.code is ErrorCode.UNAUTHORIZED and self.token is None and not self.shows_certificate:
                message += "; no token was sent (see --token)"
            raise ShareError(exc.code, message) from None
        except RpcError as exc:
            raise click.ClickException(printable(str(exc))) from None
        except (msgspec.ValidationError, UnicodeEncodeError) as exc:  # half a surrogate pair for a name
            raise click.ClickException(f"the server's answer is none that rpcshare gives: {exc}") from None

    async def share_id(self, client: ShareClient, named: str) -> str:
        """Return the id of the share that a command line names by it, or by its session's ID.

        Raises:
            RpcError, ShareError: the server cannot say.
        """
        if len(named) <= _SHORTEST_ID:
            return named
        try:
            page = await client.list_shares(query=named)
        except ShareError:
            own = None  # who has no name, or may not list: what anybody may see has to do
        else:
            own = next((each.id for each in page.sessions if each.session_id == named), None)
        if own is not None:
            return own
        for length in (len(named), _SHORTEST_ID):
            share_id = named[-length:]
            try:
                index = await client.get_share_metadata(share_id)
            except ShareError as exc:
                if exc.code is not ErrorCode.SHARE_NOT_FOUND:
                    return share_id  # it is there, and what is asked of it is refused with its reason
                continue
            if named in (share_id, index.session_id):
                return share_id
        return named

    def link(self, share_id: str) -> str:
        """Return the URL of a share, seen from where this client stands."""
        parts = urlsplit(self.url)
        _, path = split_path_key(parts.path)
        base = _ENDPOINT.sub("", path.rstrip("/"))
        return f"{_origin(parts)}{base}/share/{share_id}"


def with_server(command: _Command) -> _Command:
    """Give a command the options for a server; its first argument is then the :class:`Server`."""

    @functools.wraps(command)
    def run(
        url: str,
        token: str | None,
        data_dir: Path,
        ca: Path | None,
        cert: Path | None,
        cert_key: Path | None,
        **arguments: object,
    ) -> int | None:
        files = tls_files(ca, cert, cert_key)
        return command(_server(url, url, token, data_dir, files), **arguments)

    return _with_options(run)


def with_share(command: _Command) -> _Command:
    """Give a command the argument SHARE and the options for a server.

    Its first two arguments are then the :class:`Server` and the share's id. A URL for SHARE names the
    server too, unless ``--url`` does.
    """

    @functools.wraps(command)
    def run(
        url: str,
        token: str | None,
        data_dir: Path,
        ca: Path | None,
        cert: Path | None,
        cert_key: Path | None,
        share: str,
        **arguments: object,
    ) -> int | None:
        named, share_id = _parse_share(share)
        place = url if named is None or _is_typed("url") else named
        files = tls_files(ca, cert, cert_key)
        return command(_server(place, url, token, data_dir, files), share_id, **arguments)

    return click.argument("share")(_with_options(run))


def _with_options(command: _Command) -> _Command:
    options = (
        click.option(
            "--url",
            envvar="RPCSHARE_URL",
            default="http://127.0.0.1:8787",
            metavar="URL",
            help="URL of the server. [default: http://127.0.0.1:8787] [env: RPCSHARE_URL]",
        ),
        click.option(
            "--token",
            envvar="RPCSHARE_TOKEN",
            metavar="TOKEN",
            help="Your token or API key. One from the environment is sent only to the server of --url or "
            "RPCSHARE_URL and to servers on this machine. [default: the admin token in --data-dir] "
            "[env: RPCSHARE_TOKEN]",
        ),
        click.option(
            "--data-dir",
            envvar="RPCSHARE_DATA_DIR",
            default=".rpcshare",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="Data directory of a server on this machine. [default: .rpcshare] [env: RPCSHARE_DATA_DIR]",
        ),
        *(
            click.option(
                name, envvar=variable, metavar="FILE", type=click.Path(path_type=Path), help=help_text
            )
            for name, variable, help_text in (
                (
                    "--ca",
                    "RPCSHARE_CA",
                    "CAs to trust for the server's certificate, in PEM, in addition to "
                    "the system's. [env: RPCSHARE_CA]",
                ),
                (
                    "--cert",
                    "RPCSHARE_CERT",
                    "Client certificate, in PEM. It is shown only to servers to which a "
                    "token would be sent. [env: RPCSHARE_CERT]",
                ),
                (
                    "--cert-key",
                    "RPCSHARE_CERT_KEY",
                    "Key of --cert, if it is in another file. [env: RPCSHARE_CERT_KEY]",
                ),
            )
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _is_typed(name: str) -> bool:
    """Whether the parameter ``name`` was given on this very command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _server(url: str, configured: str, token: str | None, data_dir: Path, files: TlsFiles) -> Server:
    """Return the server at ``url`` with the credentials that are meant for it, if there are any."""
    parts = _checked(url)
    is_encrypted = _WEB_SCHEMES[parts.scheme] == "https"
    if not is_encrypted and (_is_typed("ca") or _is_typed("cert")):
        raise click.UsageError("--ca and --cert are for servers whose URL begins with https://")
    if not (is_encrypted and _is_meant_for(parts, configured, "cert")):
        files = files.without_certificate()
    # A certificate that was asked for is who is asking, and not the token that happens to lie around.
    if token is None and (files.cert is None or _is_typed("data_dir")):
        token = _kept_token(data_dir)
        is_token_meant = _is_meant_for(parts, configured, "data_dir")
    else:
        is_token_meant = _is_meant_for(parts, configured, "token")
    if not is_token_meant:
        token = None
    if token is not None and not Credential(CredentialKind.TOKEN, token).is_well_formed:
        raise click.UsageError("the token must be visible ASCII characters, none of them a space")
    return Server(url, token, client_context(files) if is_encrypted else None, files.cert is not None)


def _is_meant_for(parts: SplitResult, configured: str, name: str) -> bool:
    """Whether the credential that the parameter ``name`` gave may be shown to the server at ``parts``."""
    source = click.get_current_context().get_parameter_source(name)
    if source is ParameterSource.COMMANDLINE:
        return True
    # The URL of a share may come from anybody. What lies around in the environment or the
    # working directory was meant for the user's own server, so another must not see it.
    is_own = source is ParameterSource.ENVIRONMENT and _origin(parts) == _origin(_checked(configured))
    has_key = split_path_key(parts.path)[0] is not None
    return not has_key and (is_own or _is_loopback(parts.hostname or ""))


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in _WEB_SCHEMES and parts.hostname and parts.port != 0:
            return parts
    except ValueError:
        pass  # brackets that do not match, or a port that is no number
    # A URL may hold a key, so it is not repeated.
    raise click.UsageError("the URL of a server begins with http:// or https:// and a host")


def _kept_token(data_dir: Path) -> str | None:
    try:
        return (data_dir / ADMIN_TOKEN_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        if _is_typed("data_dir"):
            reason = exc.strerror if isinstance(exc, OSError) else "not ASCII"
            raise click.ClickException(f"cannot read {data_dir / ADMIN_TOKEN_FILE}: {reason}") from None
        return None


def _parse_share(share: str) -> tuple[str | None, str]:
    """Return the RPC endpoint that ``share`` names, if it is a URL, and the share's id."""
    if is_share_id(share):
        return None, share
    address, found, share_id = _SHARE_URL_END.sub("", share).rpartition("/share/")
    if not found or not address.startswith(("http://", "https://")) or not is_share_id(share_id):
        raise click.BadParameter("must be the id or the URL of a share, or a session ID", param_hint="SHARE")
    return f"{address}/rpc", share_id


def _origin(parts: SplitResult) -> str:
    return f"{_WEB_SCHEMES.get(parts.scheme, parts.scheme)}://{parts.netloc.rpartition('@')[2]}".lower()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
