"""Command-line options that say which server a command talks to, and as whom."""

import functools
import ipaddress
import math
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import click
import msgspec
from click.core import ParameterSource

from rpcshare.auth.authenticator import split_path_key
from rpcshare.auth.credential import Credential, CredentialKind
from rpcshare.auth.secret_files import ADMIN_TOKEN_FILE
from rpcshare.cli.client_tls import client_context, tls_files
from rpcshare.cli.exit_status import NotSignedInError
from rpcshare.cli.profile_store import Profile, Profiles, Signed, base_of
from rpcshare.cli.terminal import printable, say
from rpcshare.client import ShareClient
from rpcshare.client.connect_failures import ConnectFailedError
from rpcshare.errors import ErrorCode, ShareError
from rpcshare.rpc import RpcError
from rpcshare.shares.share_identity import is_share_id

__all__ = [
    "LOCAL_SERVER",
    "Server",
    "checked_url",
    "is_loopback",
    "with_server",
    "with_server_without_short_options",
    "with_share",
    "with_tls_files",
]

LOCAL_SERVER = "http://127.0.0.1:8787"
"""The server that commands talk to if none is named, and there is no profile."""

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
    credential: str = "none"
    """Where the credential is from, for people."""
    profile: str | None = None
    """The profile whose token it is."""

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
            ConnectFailedError: there is no connection; it says when to try again, if the server does.
        """
        try:
            async with ShareClient(self.url, token=self.token, ssl_context=self.ssl_context) as client:
                yield client
        except ShareError as exc:
            raise self._explained(exc.code, exc.message) from None
        except RpcError as exc:
            code = ErrorCode.__members__.get(exc.code or "")
            if code is not None:
                raise self._explained(code, exc.message) from None
            raise click.ClickException(printable(str(exc))) from None
        except ConnectFailedError as exc:
            if exc.retry_after is None:
                raise
            message = f"{exc}; try again in {math.ceil(exc.retry_after)} s"
            raise ConnectFailedError(message, retry_after=exc.retry_after) from None
        except (msgspec.ValidationError, UnicodeEncodeError) as exc:  # half a surrogate pair for a name
            raise click.ClickException(f"the server's answer is none that rpcshare gives: {exc}") from None

    def _explained(self, code: ErrorCode, message: str) -> ShareError:
        message = printable(message)
        if code is ErrorCode.UNAUTHORIZED and self.profile is not None:
            message += f"; the token of profile {self.profile} is not valid: run 'rpcshare login' again"
        elif code is ErrorCode.UNAUTHORIZED and self.token is None and not self.shows_certificate:
            message += "; sign in with 'rpcshare login'; no token was sent (see --token)"
        return ShareError(code, message)

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


class _Given(msgspec.Struct, frozen=True):
    """What the options for a server say."""

    url: str | None
    profile: str | None
    token: str | None
    data_dir: Path
    ca: Path | None
    cert: Path | None
    cert_key: Path | None
    verbose: bool

    def __repr__(self) -> str:
        """Leave out the token, and the URL, which may hold one."""
        return "_Given()"

    @classmethod
    def taken_from(cls, arguments: dict[str, object]) -> "_Given":
        """Take the options out of the arguments of a command."""
        return msgspec.convert(
            {name: arguments.pop(name) for name in cls.__struct_fields__}, cls, strict=False
        )


def with_server(command: _Command) -> _Command:
    """Give a command the options for a server; its first argument is then the :class:`Server`."""
    return _with_server(command, "-v", "--verbose")


def with_server_without_short_options(command: _Command) -> _Command:
    """Do as :func:`with_server` does, for a command one of whose arguments may begin with a dash."""
    return _with_server(command, "--verbose")


def _with_server(command: _Command, *verbose: str) -> _Command:
    @functools.wraps(command)
    def run(**arguments: object) -> int | None:
        given = _Given.taken_from(arguments)
        return command(_server(None, given), **arguments)

    return _with_options(run, verbose)


def with_share(command: _Command) -> _Command:
    """Give a command the argument SHARE and the options for a server.

    Its first two arguments are then the :class:`Server` and the share's id. A URL for SHARE names the
    server too, unless ``--url`` or ``--profile`` does.
    """

    @functools.wraps(command)
    def run(share: str, **arguments: object) -> int | None:
        given = _Given.taken_from(arguments)
        named, share_id = _parse_share(share)
        return command(_server(named, given), share_id, **arguments)

    return click.argument("share")(_with_options(run, ("-v", "--verbose")))


def with_tls_files(command: _Command) -> _Command:
    """Give a command the options ``--ca``, ``--cert`` and ``--cert-key``."""
    for name, variable, help_text in reversed(_TLS_OPTIONS):
        command = click.option(
            name, envvar=variable, metavar="FILE", type=click.Path(path_type=Path), help=help_text
        )(command)
    return command


_TLS_OPTIONS = (
    (
        "--ca",
        "RPCSHARE_CA",
        "CAs to trust for the server's certificate, in PEM, in addition to the system's. [env: RPCSHARE_CA]",
    ),
    (
        "--cert",
        "RPCSHARE_CERT",
        "Client certificate, in PEM. It is shown only to servers to which a token would be sent. "
        "[env: RPCSHARE_CERT]",
    ),
    (
        "--cert-key",
        "RPCSHARE_CERT_KEY",
        "Key of --cert, if it is in another file. [env: RPCSHARE_CERT_KEY]",
    ),
)


def _with_options(command: _Command, verbose: Sequence[str]) -> _Command:
    options = (
        click.option(
            "--url",
            envvar="RPCSHARE_URL",
            metavar="URL",
            help=f"URL of the server. [default: the default profile's, or {LOCAL_SERVER}] "
            "[env: RPCSHARE_URL]",
        ),
        click.option(
            "--profile",
            envvar="RPCSHARE_PROFILE",
            metavar="NAME",
            help="Profile of 'rpcshare login' to use: its server, and its token. [env: RPCSHARE_PROFILE]",
        ),
        click.option(
            "--token",
            envvar="RPCSHARE_TOKEN",
            metavar="TOKEN",
            help="Your token or API key. One from the environment is sent only to the server of --url or "
            "RPCSHARE_URL (or of the profile) and to servers on this machine. [default: the token of the "
            "server's profile, or the admin token in --data-dir] [env: RPCSHARE_TOKEN]",
        ),
        click.option(
            "--data-dir",
            envvar="RPCSHARE_DATA_DIR",
            default=".rpcshare",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="Data directory of a server on this machine. [default: .rpcshare] [env: RPCSHARE_DATA_DIR]",
        ),
        with_tls_files,
        click.option(
            *verbose, "verbose", is_flag=True, help="Say which server is asked, and with which credential."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _is_typed(name: str) -> bool:
    """Whether the parameter ``name`` was given on this very command line."""
    return _source(name) is ParameterSource.COMMANDLINE


def _source(name: str) -> ParameterSource | None:
    return click.get_current_context().get_parameter_source(name)


class _Place(msgspec.Struct, frozen=True):
    """Which server is asked."""

    url: str
    own: str
    """The URL of the server that the user has named as his own."""
    profiles: Signed
    chosen: str | None
    """The name of the profile that names the server."""


def _server(named: str | None, given: _Given) -> Server:
    """Return the server, which a share's URL may have ``named``, with the credentials meant for it."""
    place = _place(named, given)
    parts = checked_url(place.url)
    is_encrypted = _WEB_SCHEMES[parts.scheme] == "https"
    if not is_encrypted and (_is_typed("ca") or _is_typed("cert")):
        raise click.UsageError("--ca and --cert are for servers whose URL begins with https://")
    files = tls_files(given.ca, given.cert, given.cert_key)
    if not (is_encrypted and _is_meant_for(parts, place.own, "cert")):
        files = files.without_certificate()
    token, source, profile = _token(parts, place, given, shows_certificate=files.cert is not None)
    if token is not None and not Credential(CredentialKind.TOKEN, token).is_well_formed:
        raise click.UsageError("the token must be visible ASCII characters, none of them a space")
    if token is None:
        source = "none" if files.cert is None else "a client certificate"
        if split_path_key(parts.path)[0] is not None:
            source = "the key in the URL"
    if given.verbose:
        say(f"server: {base_of(place.url)}, credential: {source}", err=True)
    context = client_context(files) if is_encrypted else None
    return Server(place.url, token, context, files.cert is not None, source, profile)


def _place(named: str | None, given: _Given) -> _Place:
    """Choose the server: options before what names a share, then the environment, then the profiles."""
    for first, second in (("url", "profile"), ("token", "data_dir")):
        if _is_typed(first) and _is_typed(second):
            options = f"--{first} and --{second.replace('_', '-')}"
            raise click.UsageError(f"{options} exclude each other")
    is_profile_typed = _is_typed("profile")
    # Who says all on the command line or in the environment does not depend on a file that may be damaged.
    is_said = given.url is not None and given.token is not None and (named is None or _is_typed("token"))
    is_enough = is_said and not is_profile_typed
    profiles = Signed() if is_enough else _profiles(given)
    chosen = profiles.default
    if given.profile is not None and (given.url is None or is_profile_typed):
        chosen = given.profile
        if chosen not in profiles.profiles:
            raise NotSignedInError(
                f"there is no profile {chosen}: 'rpcshare login --name {chosen} URL' makes one"
            )
    elif given.url is not None:
        chosen = None
    if chosen is not None and chosen in profiles.profiles:
        own = profiles.profiles[chosen].url
    else:
        own, chosen = given.url or LOCAL_SERVER, None
    is_named = named is not None and not _is_typed("url") and not is_profile_typed
    return _Place(named if is_named and named is not None else own, own, profiles, chosen)


def _profiles(given: _Given) -> Signed:
    """Return the profiles. If they cannot be read and are not needed: none, with a warning."""
    try:
        return Profiles().read()
    except click.ClickException as exc:
        if given.url is None or _is_typed("profile"):
            raise
        say(f"warning: no profile is used: {exc.message}", err=True)
        return Signed()


def _token(  # noqa: PLR0911 -- one for each place
    parts: SplitResult, place: _Place, given: _Given, *, shows_certificate: bool
) -> tuple[str | None, str, str | None]:
    """Return the token to send, what it is from, and the profile that it is of, if it is of one.

    Options come before the environment, then come profiles, and at last what lies in the working directory.
    """
    if _is_typed("token"):
        return given.token, "--token", None
    if _is_typed("data_dir"):
        return _kept_token(given.data_dir), f"the admin token in {given.data_dir}", None
    has_key = split_path_key(parts.path)[0] is not None
    if _is_typed("profile") and place.chosen is not None and not has_key:
        return _profile_token(place.chosen, place.profiles.profiles[place.chosen])
    if given.token is not None and _is_meant_for(parts, place.own, "token"):
        return given.token, "RPCSHARE_TOKEN", None
    # A certificate that was asked for is who is asking, and not the token that happens to lie around.
    if shows_certificate or has_key:
        return None, "none", None
    is_dir_meant = _is_meant_for(parts, place.own, "data_dir")
    is_dir_set = _source("data_dir") is ParameterSource.ENVIRONMENT
    kept = _kept_token(given.data_dir) if is_dir_meant else None
    if kept is not None and is_dir_set:
        return kept, f"the admin token in {given.data_dir} (RPCSHARE_DATA_DIR)", None
    name = _profile_of(place)
    if name is not None:
        return _profile_token(name, place.profiles.profiles[name])
    return kept, f"the admin token in {given.data_dir}", None


def _profile_of(place: _Place) -> str | None:
    """Return the name of the profile for the server: the chosen one if it is of this server, else another."""
    base = base_of(place.url)
    found = [name for name, profile in place.profiles.profiles.items() if profile.url == base]
    for preferred in (place.chosen, place.profiles.default):
        if preferred in found:
            return preferred
    return found[0] if found else None


def _profile_token(name: str, profile: Profile) -> tuple[str, str, str]:
    return Profiles().token(name, profile), f"profile {name}", name


def _is_meant_for(parts: SplitResult, configured: str, name: str) -> bool:
    """Whether the credential that the parameter ``name`` gave may be shown to the server at ``parts``."""
    source = _source(name)
    if source is ParameterSource.COMMANDLINE:
        return True
    # The URL of a share may come from anybody. What lies around in the environment or the
    # working directory was meant for the user's own server, so another must not see it.
    is_own = source is ParameterSource.ENVIRONMENT and _origin(parts) == _origin(checked_url(configured))
    has_key = split_path_key(parts.path)[0] is not None
    return not has_key and (is_own or is_loopback(parts.hostname or ""))


def checked_url(url: str) -> SplitResult:
    """Return the parts of the URL of a server.

    Raises:
        click.UsageError: it is no such URL; the message does not repeat it.
    """
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


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
