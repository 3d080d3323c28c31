"""Servers to play the cases against: the target in this process, npm's, and any that a test writes out."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

from support.narrowing import not_none
from support.other_thread import in_other_thread

NODE = Path(__file__).parents[1] / "node"

needs_npm = pytest.mark.skipif(
    not (NODE / "node_modules" / "capnweb").is_dir(),
    reason="needs node, and tests/node/node_modules as `make test` installs them",
)


@contextmanager
def npm_target() -> Iterator[str]:
    """Yield the URL of the target, made with npm's capnweb."""
    with subprocess.Popen(
        ["node", "conformance_server.mjs"], cwd=NODE, stdout=subprocess.PIPE, text=True
    ) as process:
        ready = not_none(process.stdout).readline()
        yield ready.split()[-1]
        process.kill()


async def npm_client(url: str) -> dict[str, object]:
    """Return what npm's capnweb got out of the target at ``url``."""
    process = await asyncio.create_subprocess_exec(
        "node", "conformance_client.mjs", url, cwd=NODE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output)


@contextmanager
def scripted(answer: Callable[[ServerConnection], Awaitable[None]]) -> Iterator[str]:
    """Yield the URL of a server that does what ``answer`` does with each connection."""
    with in_other_thread(_listening(answer)) as url:
        yield url


@asynccontextmanager
async def _listening(answer: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    async with serve(answer, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def over_websocket(url: str) -> str:
    return url.replace("http:", "ws:")
