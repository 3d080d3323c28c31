"""The processes that draw pieces of pages, and whose turn it is.

No library's pool does this. concurrent.futures breaks as a whole when one process dies; anyio.to_process and
pebble kill by time passed, not by CPU time; all import the server's main module in each process, and hand it
the server's environment with its secrets.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from rpcshare.render.pieces import LIMITS, OUT_OF_MEMORY, Answer, Cause, Request
from rpcshare.server.malloc_trim import trim_memory
from rpcshare.structured_log import structlog

__all__ = ["RenderProcesses"]

logger = structlog.get_logger("rpcshare.render")

# All in seconds.
HALF_LIFE = 10.0
"""After which half as much counts of the CPU time that a share has taken."""

IDLE_AFTER = 1.0
"""When nothing has been drawn for so long, what pages have taken of memory is given back."""

TRIMMED_AFTER: Final = 4 * 2**20
"""Characters of HTML, after which this process gives back what it has freed, too."""

GROWN: Final = 64 * 2**20
"""Bytes. A process begins with 40 MB, and keeps most of what it ever held."""

LATEST: Final = 20.0
"""For one piece, however little CPU time it gets, and for the start of a process."""

_LARGEST_ANSWER = 4 * max(limits.characters for limits in LIMITS.values()) + 2**16  # bytes

# Nothing of the server's settings, which hold secrets, but what Python itself may need.
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")

_FAILURES = (TimeoutError, EOFError, OSError, msgspec.DecodeError)

_decode = msgspec.msgpack.Decoder(Answer).decode
_encode = msgspec.msgpack.Encoder().encode


class RenderProcesses:
    """A few processes, each of which draws one piece at a time.

    The share whose pages have taken the least CPU time of late is next, and no share has all processes: a
    page that takes long delays the pages of other shares by one piece at most.
    """

    def __init__(
        self, number: int = 2, memory: int = 256 * 2**20, on_end: Callable[[Cause], None] | None = None
    ) -> None:
        """Start none yet.

        Args:
            number: how many there are.
            memory: bytes that each may take.
            on_end: is told when one has ended before it was told to, and why.
        """
        self._all = tuple(_DrawingProcess(memory, on_end) for _ in range(number))
        self._free = list(self._all)
        self._busy: Counter[str] = Counter()  # processes, by share
        self._taken: dict[str, tuple[float, float]] = {}  # by share: CPU seconds, as they counted when
        self._waiting: list[tuple[str, asyncio.Future[_DrawingProcess]]] = []
        self._drawing: set[asyncio.Task[Answer]] = set()
        self._when_idle: asyncio.Task[None] | None = None
        self._received = 0  # characters of HTML

    def start(self) -> None:
        """Start those that do not run. Otherwise, whoever comes first waits for that."""
        for process in self._all:
            process.start_soon()

    async def close(self) -> None:
        """End them all."""
        if self._when_idle is not None:
            self._when_idle.cancel()
        for task in self._drawing:
            task.cancel()
        await asyncio.gather(*self._drawing, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in self._all))

    async def draw(self, share_id: str, request: Request) -> Answer:
        """Return what is drawn for a share, or why that failed.

        Who is cancelled gives up its turn. What has begun goes on: to kill a process for it would cost more.
        """
        self.start()
        process = await self._turn(share_id)
        task = asyncio.create_task(process.answer(request))
        self._drawing.add(task)
        task.add_done_callback(partial(self._give_back, share_id, process))
        return await asyncio.shield(task)

    async def _turn(self, share_id: str) -> _DrawingProcess:
        if self._may_begin(share_id):
            return self._take(share_id)
        future: asyncio.Future[_DrawingProcess] = asyncio.get_running_loop().create_future()
        self._waiting.append((share_id, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._waiting.remove((share_id, future))
            else:
                self._give_back(share_id, future.result())
            raise

    def _may_begin(self, share_id: str) -> bool:
        return bool(self._free) and self._busy[share_id] < max(1, len(self._all) - 1)

    def _take(self, share_id: str) -> _DrawingProcess:
        self._busy[share_id] += 1
        # One that is ready, if there is any.
        return self._free.pop(max(range(len(self._free)), key=lambda place: self._free[place].is_ready))

    def _give_back(
        self, share_id: str, process: _DrawingProcess, task: asyncio.Task[Answer] | None = None
    ) -> None:
        now = asyncio.get_running_loop().time()
        if task is not None:
            self._drawing.discard(task)
            if not task.cancelled() and task.exception() is None:
                answer = task.result()
                self._received += len(answer.html)
                self._taken[share_id] = self._taken_of_late(share_id, now) + answer.seconds, now
        if len(self._taken) > 1000:
            old = [each for each in self._taken if self._taken_of_late(each, now) < 0.01]
            for each in old or list(self._taken)[:500]:
                del self._taken[each]
        self._busy[share_id] -= 1
        if not self._busy[share_id]:
            del self._busy[share_id]
        self._free.append(process)
        self._begin_waiting()
        if len(self._free) == len(self._all) and self._when_idle is None:
            self._when_idle = asyncio.create_task(self._give_back_memory())

    def _begin_waiting(self) -> None:
        now = asyncio.get_running_loop().time()
        while waiting := [turn for turn in self._waiting if self._may_begin(turn[0]) and not turn[1].done()]:
            turn = min(waiting, key=lambda turn: self._taken_of_late(turn[0], now))
            self._waiting.remove(turn)
            turn[1].set_result(self._take(turn[0]))

    async def _give_back_memory(self) -> None:
        await asyncio.sleep(IDLE_AFTER)
        self._when_idle = None
        if len(self._free) == len(self._all):
            taken, self._free = self._free, []
            await asyncio.gather(*(process.replace_grown() for process in taken))
            self._free = taken
            self._begin_waiting()
            if self._received > TRIMMED_AFTER:
                self._received = 0
                await asyncio.to_thread(trim_memory)

    def _taken_of_late(self, share_id: str, now: float) -> float:
        seconds, then = self._taken.get(share_id, (0.0, now))
        return float(seconds * 0.5 ** ((now - then) / HALF_LIFE))


class _DrawingProcess:
    """One of them, and those that take its place."""

    def __init__(self, memory: int, on_end: Callable[[Cause], None] | None) -> None:
        self._memory = memory
        self._on_end = on_end
        self._connection: asyncio.Task[_Connection] | None = None  # made, or being made
        self._has_grown = False

    @property
    def is_ready(self) -> bool:
        """Whether there is a process that can draw."""
        return self._connection is not None and self._connection.done()

    def start_soon(self) -> asyncio.Task[_Connection]:
        """Have the process started if there is none."""
        if self._connection is None:
            self._connection = asyncio.create_task(_connect(self._memory))
            self._connection.add_done_callback(_take_exception)
        return self._connection

    async def answer(self, request: Request) -> Answer:
        """Return the answer of the process, or what its end says."""
        connection, cause = None, Cause.ERROR
        try:
            connection = await asyncio.shield(self.start_soon())
            async with asyncio.timeout(LATEST):
                answer = await connection.ask(request)
        except TimeoutError:
            cause = Cause.TIME
        except (EOFError, OSError, msgspec.DecodeError):
            pass  # its status says more
        else:
            self._has_grown = answer.memory > GROWN
            return answer
        status = await self.close()
        cause = {-signal.SIGPROF: Cause.TIME, OUT_OF_MEMORY: Cause.MEMORY}.get(status, cause)
        if self._on_end is not None:
            self._on_end(cause)
        if connection is not None:
            self.start_soon()  # now, and not when somebody waits
        seconds = LIMITS[request.piece.is_whole].seconds
        where = f"a render process ended with status {status}"
        return Answer(seconds, cause=cause, where=where, is_accident=cause is Cause.ERROR)

    async def replace_grown(self) -> None:
        """Start the process anew if it has grown. It must not draw meanwhile."""
        if self._has_grown:
            await self.close()
            self.start_soon()

    async def close(self) -> int:
        """Kill the process, if there is one; return its exit status, which it may have had before."""
        making, self._connection, self._has_grown = self._connection, None, False
        if making is None:
            return 0
        making.cancel()  # if it is not done
        try:
            connection = await making
        except _FAILURES:
            return 1
        except asyncio.CancelledError:
            if making.cancelled():
                return 0
            raise
        return await connection.close()


def _take_exception(task: asyncio.Task[_Connection]) -> None:
    """Have it said nowhere else that a process could not be started: that is logged."""
    if not task.cancelled():
        task.exception()


class _Connection:
    """A running process, and the socket that leads to it."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self._process = process
        self._socket = sock
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Return when the process is ready.

        Raises:
            TimeoutError: it does not get there.
            EOFError, OSError, msgspec.DecodeError: as for :meth:`ask`.
        """
        async with asyncio.timeout(LATEST):
            self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
            await self._receive(self._reader)

    async def ask(self, request: Request) -> Answer:
        """Return the answer to a request.

        Raises:
            EOFError, OSError: the process has ended.
            msgspec.DecodeError: it answers something else.
        """
        if self._reader is None or self._writer is None:
            raise RuntimeError("the connection is not open")
        body = _encode(request)
        self._writer.write(len(body).to_bytes(4, "big"))
        self._writer.write(body)
        await self._writer.drain()
        return await self._receive(self._reader)

    async def _receive(self, reader: asyncio.StreamReader) -> Answer:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > _LARGEST_ANSWER:
            raise msgspec.DecodeError("the answer is too long")
        return _decode(await reader.readexactly(length))

    async def close(self) -> int:
        """Have the process end, unless it has; return its exit status."""
        self._process.kill()
        if self._writer is None:
            self._socket.close()
        else:
            self._writer.close()
        return await asyncio.shield(asyncio.to_thread(self._process.wait))


async def _connect(memory: int) -> _Connection:
    """Start a process, and return when it is ready; raises as :meth:`_Connection.open` does."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(  # noqa: S603, ASYNC220 -- which takes a millisecond
                [sys.executable, "-P", "-m", "rpcshare.render.render_process", str(memory)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # what a terminal sends is for the server
            )
        except OSError:
            ours.close()
            raise
    connection = _Connection(process, ours)
    try:
        await connection.open()
    except BaseException as exc:
        status = await connection.close()
        if isinstance(exc, Exception):
            # It has said why, unless it took too long.
            reason = type(exc).__name__
            logger.error("a process that draws pages cannot be started", status=status, reason=reason)  # noqa: TRY400
        raise
    return connection


def _environment() -> dict[str, str]:
    kept = {name: value for name in _KEPT_VARIABLES if (value := os.environ.get(name)) is not None}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
