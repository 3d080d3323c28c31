"""The server's connections to the init of a pod; :mod:`~rpcshare.sandbox.pod_init` is the other end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Awaitable, Mapping
from hmac import compare_digest
from pathlib import Path
from typing import TypeAlias

from rpcshare.sandbox.init_channel import listen_for_callers
from rpcshare.sandbox.pod_init import keep_alive, proof

__all__ = ["PodLink", "PodLinkError"]

_SECONDS = 10.0
_LONGEST_LINE = 256 * 1024
_PIECE = 64 * 1024
_MAX_CONNECTIONS = 256

Streams: TypeAlias = "tuple[asyncio.StreamReader, asyncio.StreamWriter]"


class PodLinkError(OSError):
    """Whoever answers at the pod's address does not know its token."""


class PodLink:
    """Connects to one pod, and what is there with sockets of this machine."""

    def __init__(self, token: str, sockets: Mapping[int, Path]) -> None:
        """Lead the ports ``sockets``, inside, to Unix sockets here."""
        self._token = token.encode()
        self._sockets = dict(sockets)
        self._address: tuple[str, int] | None = None
        self._callers: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> Streams:
        """Return the control connection. Raises OSError, TimeoutError."""
        self._address = (host, port)
        return await self._connect("control", 0)

    async def _connect(self, role: str, number: int) -> Streams:
        if self._address is None:
            raise OSError("the pod has no address")
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(*self._address, limit=_LONGEST_LINE)
            try:
                keep_alive(writer.get_extra_info("socket"))
                greeting = json.loads(await reader.readline())
                nonce = secrets.token_hex(16)
                said = proof(self._token, "server", greeting["nonce"], role, number)
                message = {"role": role, "id": number, "nonce": nonce, "proof": said}
                writer.write(json.dumps(message).encode() + b"\n")
                answer = json.loads(await reader.readline())
                is_it = compare_digest(str(answer["proof"]), proof(self._token, "pod", nonce))
            except (ValueError, LookupError, TypeError) as exc:
                writer.close()
                raise PodLinkError("what answers is no sandbox of this server") from exc
            except BaseException:
                writer.close()
                raise
        if not is_it:
            writer.close()
            raise PodLinkError("another pod answers")
        return reader, writer

    def dial(self, number: int, port: int) -> None:
        """Connect what waits inside with the socket that its port leads to."""
        self._begin(self._carry_out(number, port))

    def _begin(self, carrying: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._quietly(carrying))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, carrying: Awaitable[None]) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await carrying

    async def _carry_out(self, number: int, port: int) -> None:
        path = self._sockets.get(port)
        if path is None or len(self._tasks) > _MAX_CONNECTIONS:
            return
        far = await self._connect("data", number)
        try:
            near = await asyncio.open_unix_connection(path)
        except OSError:
            far[1].close()
            raise
        await _join(near, far)

    async def listen(self, path: Path) -> None:
        """Lead a Unix socket at ``path`` to the command's port. Raises OSError."""

        async def carry_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                far = await self._connect("serve", 0)
            except (OSError, TimeoutError):
                writer.close()
                return
            await _join((reader, writer), far)

        def on_caller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._tasks) > _MAX_CONNECTIONS:
                writer.close()
            else:
                self._begin(carry_in(reader, writer))

        self._callers = await asyncio.start_unix_server(on_caller, sock=listen_for_callers(path))

    async def close(self) -> None:
        """End all connections but the control connection."""
        if self._callers is not None:
            self._callers.close()
        for each in list(self._tasks):
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _join(one: Streams, other: Streams) -> None:
    """Carry both ways until both ends have ended."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    carrying = [
        asyncio.ensure_future(carry(one[0], other[1])),
        asyncio.ensure_future(carry(other[0], one[1])),
    ]
    try:
        await asyncio.gather(*carrying)
    finally:
        for each in carrying:
            each.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)
        one[1].close()
        other[1].close()
