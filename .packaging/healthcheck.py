"""Asks the server of this container whether it is well, where the environment says that it listens.

The exit status is 0 if it is. A server with a certificate is asked by TLS; the certificate is not verified,
as it is for the names that clients use.
"""

import http.client
import os
import socket
import ssl
import sys

TIMEOUT = 2  # seconds

host = os.environ.get("RPCSHARE_HOST", "")
port = int(os.environ.get("RPCSHARE_PORT") or 8787)
if host.strip("[]") in ("", "0.0.0.0", "::"):  # noqa: S104 -- where a server listens
    host = "localhost"


def connect() -> socket.socket:
    """Return a connection to the server."""
    if not host.startswith("unix:"):
        return socket.create_connection((host, port), TIMEOUT)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT)
    connection.connect(host.removeprefix("unix:"))
    return connection


def is_well() -> bool:
    """Tell what GET /healthz says."""
    asking = http.client.HTTPConnection("localhost")
    asking.sock = connect()
    if os.environ.get("RPCSHARE_TLS_CERT"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        asking.sock = context.wrap_socket(asking.sock)
    asking.request("GET", "/healthz")
    return asking.getresponse().status == 200


try:
    sys.exit(0 if is_well() else "the server is not well")
except OSError as exc:
    sys.exit(f"the server does not answer: {exc}")
