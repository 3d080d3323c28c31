"""The sockets that the server listens on: its own, or those that a service manager passes on."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from ipaddress import IPv6Address

import structlog

from rpcshare.config import ConfigError, Settings

__all__ = ["listen", "passed_sockets"]

logger = structlog.get_logger("rpcshare.server")

BACKLOG = 2048

_FIRST_PASSED = 3  # sd_listen_fds(3)


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket, so that a port in use is known before anything else is begun.

    Raises:
        OSError: the address cannot be listened on.
        ConfigError: the host is nothing that could be one.
    """
    host, port = settings.host, settings.port
    is_v6 = ":" in host
    is_any = is_v6 and _is_unspecified(host)
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


def passed_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that were passed to this process (``LISTEN_FDS``, as systemd does it).

    The variables are taken out of ``environment``: they are for no other process.

    Raises:
        ConfigError: what was passed is no listening TCP socket.
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
    if passed.family not in (socket.AF_INET, socket.AF_INET6) or passed.type != socket.SOCK_STREAM:
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor} is not a TCP socket")
    if not is_listening:
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor} does not listen (a unit needs Accept=no)")
    passed.set_inheritable(False)
    return passed


def _is_unspecified(host: str) -> bool:
    try:
        return IPv6Address(host).is_unspecified
    except ValueError:
        return False
