"""Connects standard input and output to a host through the egress proxy: the ProxyCommand of ssh, inside.

A program of its own, which imports nothing but Python's library. Its arguments are the proxy's port, a host
and a port.
"""

from __future__ import annotations

import os
import select
import socket
import sys

_PIECE = 64 * 1024


def main() -> int:
    """Relay until either end closes."""
    proxy = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    target = f"{sys.argv[2]}:{sys.argv[3]}"
    proxy.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = proxy.recv(1)
        if not piece:
            break
        head += piece
    if head.split(b" ")[1:2] != [b"200"]:
        said = head + proxy.recv(_PIECE)
        sys.stderr.write(said.rpartition(b"\r\n\r\n")[2].decode(errors="replace") or "the proxy refused\n")
        return 1
    while True:
        readable, _, _ = select.select([0, proxy.fileno()], [], [])
        if proxy.fileno() in readable:
            data = proxy.recv(_PIECE)
            if not data:
                return 0
            while data:
                data = data[os.write(1, data) :]
        if 0 in readable:
            data = os.read(0, _PIECE)
            if not data:
                return 0
            proxy.sendall(data)


if __name__ == "__main__":
    sys.exit(main())
