"""The sockets that the server listens on: its own, or those that a service manager passes on."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, MutableMapping
from ipaddress import IPv6Address
from pathlib import Path

from rpcshare.config import ConfigError, Settings
from rpcshare.setting_types import UNIX_PREFIX
from rpcshare.structured_log import structlog

__all__ = ["host_of", "listen", "passed_sockets", "port_of"]

logger = structlog.get_logger("rpcshare.server")

BACKLOG = 2048

_FIRST_PASSED = 3  # sd_listen_fds(3)

# The owner and the group of the server may connect to its Unix socket.
_SOCKET_MODE = 0o660


@contextlib.contextmanager
def listen(settings: Settings) -> Iterator[socket.socket]:
    """Listen while the context lasts, so that a port in use is known before anything else is begun.

    Raises:
        OSError: the address cannot be listened on.
        ConfigError: the host is nothing that could be one.
    """
    path = settings.socket_path
    with _listen_on_tcp(settings.host, settings.port) if path is None else _listen_on_unix(path) as listener:
        yield listener


def host_of(listener: socket.socket) -> str:
    """Return the address of a listening socket as the setting ``host`` has it."""
    address = listener.getsockname()
    return f"{UNIX_PREFIX}{address}" if listener.family == socket.AF_UNIX else str(address[0])


def port_of(listener: socket.socket) -> int:
    """Return the port of a listening socket; 0 for a Unix socket."""
    return 0 if listener.family == socket.AF_UNIX else int(listener.getsockname()[1])


@contextlib.contextmanager
def _listen_on_unix(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            _remove_stale_socket(path)
            # Nobody may connect before the mode is the right one.
            mask = os.umask(0o777 & ~_SOCKET_MODE)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            listener.listen(BACKLOG)
            own = path.stat().st_ino
        except OSError as exc:
            raise OSError(f"cannot listen on {UNIX_PREFIX}{path}: {exc.strerror or exc}") from exc
        yield listener
    # Another server may have taken the path meanwhile.
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == own:
            path.unlink()


def _remove_stale_socket(path: Path) -> None:
    """Remove the socket of a server that was killed. One that is in use, and any other file, stays."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise FileExistsError("there is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _listen_on_tcp(host: str, port: int) -> socket.socket:
    is_v6 = ":" in host
    is_any = is_v6 and _is_unspecified(host)
    if is_any and not _has_ipv6():
        logger.warning("only IPv4 is listened on: this system has no IPv6", host=host)
        host, is_v6, is_any = "0.0.0.0", False, False  # noqa: S104 -- it is what :: means here
    takes_both = is_any and socket.has_dualstack_ipv6()
    if is_any and not takes_both:
        logger.warning("only IPv6 is listened on: this system has no sockets for both families", host=host)
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if is_v6 else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=takes_both,
        )
    except OSError as exc:
        reason = exc.strerror or str(exc)
        raise OSError(f"cannot listen on {host} port {port}: {reason}") from exc
    except (TypeError, ValueError):  # of the encoding of names (IDNA), or a NUL
        raise ConfigError(f"--host: {host!r} is no address and no name of a host") from None


def _has_ipv6() -> bool:
    """Tell whether this system has sockets of IPv6, which socket.has_ipv6 does not tell."""
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True


def passed_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that were passed to this process (``LISTEN_FDS``, as systemd does it).

    The variables are taken out of ``environment``: they are for no other process.

    Raises:
        ConfigError: what was passed is no listening TCP or Unix socket.
    """
    number = environment.pop("LISTEN_FDS", "")
    for_whom = environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if not number or for_whom != str(os.getpid()):
        return []
    if not number.isdecimal():
        raise ConfigError(f"LISTEN_FDS: must be a number, not {number[:20]!r}")
    return [_passed(_FIRST_PASSED + index) for index in range(int(number))]


def _passed(descriptor: int) -> socket.socket:
    try:
        passed = socket.socket(fileno=descriptor)
        is_listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor}: {exc.strerror or exc}") from exc
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if passed.family not in families or passed.type != socket.SOCK_STREAM:
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor} is neither a TCP nor a Unix stream socket")
    if not is_listening:
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor} does not listen (a unit needs Accept=no)")
    passed.set_inheritable(False)
    return passed


def _is_unspecified(host: str) -> bool:
    try:
        return IPv6Address(host).is_unspecified
    except ValueError:
        return False
