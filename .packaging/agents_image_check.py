"""Starts opencode in the image for agents, by the driver ``docker``: see agents-image-check.sh."""

import asyncio
import os
import sys
import time
from pathlib import Path

from rpcshare.sandbox.docker import DockerDriver
from rpcshare.sandbox.driver import SandboxSpec

_USER = (65534, 65534)
_SECONDS = 120.0
_ANSWER_SECONDS = 5.0


async def main(work: Path) -> None:
    """Print what programs there are, and how long opencode takes to be ready."""
    driver = DockerDriver(
        "localhost/rpcshare-agents", work / "state", engine=work / "podman.sock", user=_USER
    )
    await driver.check()
    places = [work / name for name in ("workspace", "home", "sockets")]
    for each in places:
        each.mkdir()
        os.chown(each, *_USER)
    programs = ("opencode", "git", "rg", "python3", "ssh", "curl", "patch")
    script = (
        "; ".join(f"command -v {each} || exit 1" for each in programs) + "; opencode --version; git --version"
    )
    sandbox = await driver.start(SandboxSpec("programs", ("/bin/sh", "-c", script), *places))
    status = await sandbox.wait()
    print(sandbox.log_tail())
    if status.exit_code != 0:
        sys.exit(f"a program is missing: {status.message}")
    began = time.monotonic()
    command = ("opencode", "serve", "--port", "4096")
    sandbox = await driver.start(SandboxSpec("opencode", command, *places, port=4096))
    try:
        async with asyncio.timeout(_SECONDS):
            while not (answer := await healthy(sandbox.socket_path)):
                if not sandbox.status.running:
                    sys.exit(f"opencode {sandbox.status.message}: {sandbox.log_tail()}")
                await asyncio.sleep(0.2)
        memory = (sandbox.status.memory or 0) >> 20
        print(f"opencode is ready after {time.monotonic() - began:.1f} s, with {memory} MiB: {answer}")
    finally:
        await sandbox.terminate()
        await driver.close()


async def healthy(path: Path | None) -> str:
    """Return the body of its answer; nothing, if there is none."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(b"GET /global/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(_ANSWER_SECONDS):  # the first of them may hang
            answer = await reader.read()
    except (OSError, TimeoutError):
        return ""
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode() if b" 200 " in answer[:20] else ""


asyncio.run(main(Path(sys.argv[1])))
