"""Which ``opencode`` agents run, and how."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import msgspec

from rpcshare.process_directories import process_directory
from rpcshare.sandbox.driver import Mount, SandboxDriver, SandboxError, SandboxLimits, SandboxSpec
from rpcshare.workspaces.sandboxing import Program

__all__ = ["PORT", "OpencodeBinary", "OpencodeUnavailableError"]

JSONObject: TypeAlias = dict[str, Any]

PORT = 4096
"""On which it serves, inside."""

_INSIDE = PurePosixPath("/opt/opencode")
_VERSION = re.compile(r"\b(\d+)\.(\d+)\.(\d+)")
_SECONDS = 30.0
_NOT_FOUND = 127


class OpencodeUnavailableError(Exception):
    """There is no opencode that agents could run; the message is a sentence."""


class OpencodeBinary(msgspec.Struct, frozen=True):
    """A program that was found, and its version."""

    path: Path | None
    """None: the one on ``PATH`` inside, which the image of sandboxes has."""
    version: str

    @classmethod
    async def find(cls, wanted: Path | None) -> OpencodeBinary:
        """Return the one at ``wanted``, or on PATH.

        Raises:
            OpencodeUnavailableError: there is none, it does not run, or it is of a version that is not known
            here.
        """
        found = str(wanted) if wanted is not None else shutil.which("opencode")
        if found is None:
            message = "opencode is not on PATH: install it (npm i -g opencode-ai), or set --opencode-bin"
            raise OpencodeUnavailableError(message)
        path = Path(await asyncio.to_thread(os.path.realpath, found))
        version = _known_version(await _version_of(path), str(path))
        if await asyncio.to_thread(_is_script, path):
            message = f"{path} is a script that looks for opencode: set --opencode-bin to the binary itself"
            raise OpencodeUnavailableError(message)
        return cls(path, version)

    @classmethod
    async def find_inside(cls, driver: SandboxDriver) -> OpencodeBinary:
        """Return the one that the image of sandboxes has, which is asked for its version in one.

        Raises:
            OpencodeUnavailableError: as of :meth:`find`.
        """
        what = "the opencode of --agents-image"
        with (
            tempfile.TemporaryDirectory(prefix=".rpcshare-opencode-", dir=driver.scratch) as shared,
            process_directory("run") as run_dir,
        ):
            places = Path(shared, "workspace"), Path(shared, "home")
            for each in places:
                each.mkdir()
                each.chmod(0o777)  # whose user is the driver's; the directory above keeps others out
            command = ("opencode", "--version")
            limits = SandboxLimits(timeout=_SECONDS)
            try:
                sandbox = await driver.start(
                    SandboxSpec("opencode-version", command, *places, Path(run_dir), limits=limits)
                )
                status = await sandbox.wait()
            except SandboxError as exc:
                raise OpencodeUnavailableError(f"{what} cannot be asked: {exc.message}") from exc
            text = sandbox.log_tail(5)
        if status.exit_code == _NOT_FOUND:
            message = f"{what} is missing: put it on PATH there, or set --opencode-bin"
            raise OpencodeUnavailableError(message)
        if status.exit_code != 0:
            raise OpencodeUnavailableError(f"{what} {status.message}: {text[-200:]}")
        return cls(None, _known_version(text, what))

    def program(self, *, password: str, config: JSONObject, sockets: dict[int, Path]) -> Program:
        """Return what runs it on a workspace.

        Args:
            password: what its API wants to be shown.
            config: of opencode: providers, the default model, rules.
            sockets: ports inside, and the sockets of the server that they lead to.
        """
        binary = "opencode" if self.path is None else str(_INSIDE / "opencode")
        mounts = () if self.path is None else (Mount(self.path, PurePosixPath(binary)),)
        return Program(
            command=(binary, "serve", "--port", str(PORT), "--hostname", "127.0.0.1"),
            environment={
                "OPENCODE_SERVER_PASSWORD": password,
                "OPENCODE_CONFIG_CONTENT": msgspec.json.encode(config).decode(),
                "OPENCODE_DISABLE_AUTOUPDATE": "1",
                "OPENCODE_DISABLE_MODELS_FETCH": "1",
                "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
                "NO_COLOR": "1",
            },
            mounts=mounts,
            sockets=sockets,
            port=PORT,
        )


def _known_version(text: str, what: str) -> str:
    match = _VERSION.search(text)
    if match is None:
        raise OpencodeUnavailableError(f"{what} is no opencode: it says {text[:60]!r} of its version")
    if match[1] != "1":
        raise OpencodeUnavailableError(f"{what} is opencode {match.group()}: this server speaks to 1.x")
    return match.group()


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"


async def _version_of(path: Path) -> str:
    with process_directory("opencode") as home:
        try:
            process = await asyncio.create_subprocess_exec(
                str(path),
                "--version",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"HOME": home, "PATH": os.environ.get("PATH", os.defpath), "NO_COLOR": "1"},
            )
        except OSError as exc:
            raise OpencodeUnavailableError(f"{path} cannot be run: {exc.strerror}") from exc
        try:
            output, _ = await asyncio.wait_for(process.communicate(), _SECONDS)
        except TimeoutError:
            message = f"{path} does not say its version within {_SECONDS:.0f} s"
            raise OpencodeUnavailableError(message) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return output.decode(errors="replace").strip()
