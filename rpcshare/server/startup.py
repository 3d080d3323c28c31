"""What there is before a server begins, and what it says once it listens."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from rpcshare.auth.secret_files import ADMIN_TOKEN_FILE, admin_token, shared_secret
from rpcshare.auth.sign_in_link import SignInLink
from rpcshare.compiled import core
from rpcshare.config import Settings
from rpcshare.server.listening import listen, port_of
from rpcshare.server.tls import ServerTls
from rpcshare.storage.sqlite_versions import wal_reset_warning
from rpcshare.structured_log import structlog

__all__ = ["Prepared", "prepared", "say_ready"]

logger = structlog.get_logger("rpcshare.server")


class Prepared(NamedTuple):
    """What there is before anything is begun, and is the same for all workers."""

    token: str
    secret: UUID
    tls: ServerTls | None
    listeners: list[socket.socket]
    are_passed: bool
    """Whether the listeners are a service manager's, who listens on when this server does not."""
    link: SignInLink | None
    """Signs in whoever has started the server; None: the settings want none."""

    @property
    def port(self) -> int:
        """The port of the first; 0 for a Unix socket."""
        return port_of(self.listeners[0])

    def base_url(self, settings: Settings) -> str:
        """Return the base of every link to the server."""
        return settings.base_url(self.port)

    def __repr__(self) -> str:
        """Leave out token and secret."""
        return f"Prepared(listeners={self.listeners!r})"


@contextlib.contextmanager
def prepared(settings: Settings, passed: list[socket.socket]) -> Iterator[Prepared]:
    """Read or make the secrets, load certificates, and listen, unless sockets were ``passed``."""
    token = settings.token.get_secret_value() if settings.token else None
    token = admin_token(token, settings.data_dir)
    secret = shared_secret(
        settings.shared_secret.get_secret_value() if settings.shared_secret else None,
        settings.data_dir,
    )
    tls = ServerTls.of_settings(settings)
    link = SignInLink(token) if settings.sign_in_link else None
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(each) for each in passed] or [stack.enter_context(listen(settings))]
        yield Prepared(token, secret, tls, listeners, are_passed=bool(passed), link=link)


def say_ready(settings: Settings, ready: Prepared) -> None:
    """Tell where the server listens, now that it does. A start that fails says nothing but why."""
    print(_announcement(settings, ready), flush=True)  # noqa: T201 -- this is what the command is for
    warning = wal_reset_warning() if settings.store_url.startswith("sqlite:") else None
    if warning is not None:
        logger.warning(warning)


def _announcement(settings: Settings, ready: Prepared) -> str:
    """Return what a user needs who has just started the server. The token itself is not in it."""
    base_url = ready.base_url(settings)
    listens = settings.listening_url(ready.port)
    if settings.token is not None:
        place, key = "as given in the settings", "TOKEN"
    else:
        # opencode puts the content of a file in the place of {file:…}.
        path = str((Path(settings.data_dir) / ADMIN_TOKEN_FILE).resolve())
        place, key = path, f"{{file:{path}}}"
    line = f'"enterprise": {{"url": {json.dumps(f"{base_url}/k/{key}")}}}'
    lines = [f"rpcshare is listening on {listens} ({core()})"]
    if base_url != listens:
        lines.append(f"  public URL:       {base_url}")
    lines += [f"  admin token:      {place}", f"  opencode config:  {line}"]
    lines.append(f"  data directory:   {Path(settings.data_dir).resolve()}")
    if ready.link is not None:
        lines.append(f"  sign in:          {ready.link.address(base_url)} (once, within 10 minutes)")
    return "\n".join(lines)
