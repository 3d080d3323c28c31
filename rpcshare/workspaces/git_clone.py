"""Cloning a repository into a workspace: git runs in a sandbox of its own, and reaches one host.

Whatever the repository holds, nothing of it is run or believed: no hook, no submodule, no filter such as LFS,
no template, no file system monitor, no protocol but the one of the URL. Host keys of SSH are those that the
operator has named. The key of the vault is in that sandbox alone, and gone with it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.process_directories import process_directory
from rpcshare.sandbox import proxy_command
from rpcshare.sandbox.driver import (
    AGENT_HOME,
    EGRESS_PORT,
    EndReason,
    Mount,
    SandboxDriver,
    SandboxError,
    SandboxLimits,
    SandboxSpec,
    SandboxStatus,
)
from rpcshare.sandbox.egress_proxy import EgressPolicy, EgressProxy, EgressRefusal, Resolve
from rpcshare.shares.redaction import redact
from rpcshare.workspaces.git_source import GitKey, GitLocation

__all__ = ["CLONE_SECONDS", "GitClone", "redacted_log"]

CLONE_SECONDS = 600.0

_CONNECT = "/run/rpcshare-proxy-command.py"
_SHOWN_LINES = 6
_LONGEST_SHOWN = 1200

# Objects that are malformed are refused, but for faults that old and well-known repositories have.
_CONFIG = """\
[core]
    hooksPath = /dev/null
    fsmonitor = false
    protectHFS = true
    protectNTFS = true
    attributesFile = /dev/null
[init]
    templateDir =
[credential]
    helper =
[submodule]
    recurse = false
[transfer]
    fsckObjects = true
[fetch "fsck"]
    zeroPaddedFilemode = ignore
    missingSpaceBeforeDate = ignore
    badTimezone = ignore
    missingNameBeforeEmail = ignore
[filter "lfs"]
    smudge =
    process =
    required = false
[http]
    followRedirects = initial
    lowSpeedLimit = 100
    lowSpeedTime = 60
[safe]
    directory = *
[gc]
    auto = 0
[advice]
    detachedHead = false
"""

_AUTHENTICATION = re.compile(
    r"Authentication failed|could not read (Username|Password)|Permission denied [(,]"
    r"|Host key verification failed"
    r"|REMOTE HOST IDENTIFICATION|HTTP 40[13]|returned error: 40[13]|Invalid username or|access denied"
    r"|Repository not found|No ED25519 host key is known|host key is known",
    re.IGNORECASE,
)


class GitClone:
    """Clones repositories."""

    def __init__(
        self,
        driver: SandboxDriver,
        *,
        user: tuple[int, int] | None = None,
        known_hosts: Path | None = None,
        ca_file: Path | None = None,
        allows_private: Callable[[str, int], bool] = lambda _host, _port: False,
        seconds: float = CLONE_SECONDS,
        resolve: Resolve | None = None,
    ) -> None:
        """Clone by means of ``driver``.

        Args:
            driver: starts sandboxes.
            user: who owns the files of a workspace, where the server is root.
            known_hosts: the keys of hosts, as ssh has them; None: nothing is cloned over SSH.
            ca_file: certificates of the CAs of hosts; None: those of the system.
            allows_private: whether a host and port may be of a private network.
            seconds: how long a clone may take.
            resolve: looks up names; None: the system's resolver.
        """
        self._driver = driver
        self._user = user if os.geteuid() == 0 else None
        self._known_hosts = known_hosts
        self._ca_file = ca_file
        self._allows_private = allows_private
        self._seconds = seconds
        self._resolve = resolve

    async def clone(
        self,
        location: GitLocation,
        files: Path,
        limits: SandboxLimits,
        *,
        ref: str | None = None,
        key: GitKey | None = None,
        on_refused: Callable[[EgressRefusal, str], None] = lambda _reason, _host: None,
    ) -> None:
        """Clone a repository into the empty directory ``files``.

        Raises:
            ShareError: INVALID_ARGUMENT: it cannot be cloned by this server. INTEGRATION_AUTH_FAILED: its
                server refused the key, or its own is not the known one. PAYLOAD_TOO_LARGE: it is larger than
                the limit on disk. SYNC_FAILED: anything else, with git's last lines, without credentials.
        """
        if location.scheme == "ssh" and self._known_hosts is None:
            message = (
                "source.git: this server clones nothing over SSH: it knows no host keys (--git-known-hosts)"
            )
            raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
        if location.scheme == "ssh" and key is None:
            message = "source.key: over SSH a key is needed: keep it in the vault, for the service git"
            raise ShareError(ErrorCode.INVALID_ARGUMENT, message)
        with (
            process_directory("git") as folder,
            tempfile.TemporaryDirectory(prefix=".rpcs-git-", dir=self._driver.scratch) as shared,
        ):
            home, run_dir = Path(shared, "home"), Path(folder, "run")
            await asyncio.to_thread(self._prepare, home, run_dir, key if location.scheme == "ssh" else None)
            proxy = self._proxy(location, run_dir, on_refused)
            if proxy is not None:
                await proxy.open()
            try:
                spec = self._spec(location, files, home, run_dir, limits, ref, key, proxy)
                sandbox = await self._driver.start(spec)
                try:
                    status = await sandbox.wait()
                except asyncio.CancelledError:
                    await sandbox.terminate(grace=0.5)
                    raise
                log = sandbox.log_tail(100)
            except SandboxError as exc:
                raise ShareError(ErrorCode.SYNC_FAILED, f"git could not be started: {exc.message}") from exc
            finally:
                if proxy is not None:
                    await proxy.close()
        if status.reason is not EndReason.EXITED or status.exit_code != 0:
            raise _failure(status, log, key, limits)

    def _prepare(self, home: Path, run_dir: Path, key: GitKey | None) -> None:
        for each in (home, run_dir):
            each.mkdir(mode=0o700)
        (home / "gitconfig").write_text(_CONFIG)
        for file, name, option in (
            (self._known_hosts, "known_hosts", "--git-known-hosts"),
            (self._ca_file, "ca.pem", "--git-ca-file"),
        ):
            try:
                if file is not None:
                    shutil.copyfile(file, home / name)
            except OSError as exc:
                raise ShareError(ErrorCode.SYNC_FAILED, f"the file of {option} cannot be read") from exc
        if key is not None:
            (home / "key").touch(mode=0o600)
            (home / "key").write_text(key.value.rstrip("\n") + "\n")
        if self._user is not None:
            for path in (home, *home.iterdir()):
                os.chown(path, *self._user)

    def _proxy(
        self, location: GitLocation, run_dir: Path, on_refused: Callable[[EgressRefusal, str], None]
    ) -> EgressProxy | None:
        if location.scheme == "file":
            return None
        host = [f"{location.host}:{location.port}"]
        private = host if self._allows_private(location.host, location.port) else []
        policy = EgressPolicy(host, private)
        return EgressProxy(run_dir / "egress", policy, on_refused=on_refused, resolve=self._resolve)

    def _spec(
        self,
        location: GitLocation,
        files: Path,
        home: Path,
        run_dir: Path,
        limits: SandboxLimits,
        ref: str | None,
        key: GitKey | None,
        proxy: EgressProxy | None,
    ) -> SandboxSpec:
        command = ["git", "clone", "--no-recurse-submodules", "--template=", "--no-local", "--origin=origin"]
        command += [] if ref is None else [f"--branch={ref}"]
        command += ["--", location.url, "."]
        mounts = [Mount(Path(proxy_command.__file__), PurePosixPath(_CONNECT))]
        if location.scheme == "file":
            mounts.append(Mount(Path(location.path), PurePosixPath(location.path)))
        return SandboxSpec(
            name=f"git-{secrets.token_hex(6)}",
            command=tuple(command),
            workspace=files,
            home=home,
            run_dir=run_dir,
            environment={
                **_environment(location, key, self._driver.python),
                **({} if self._ca_file is None else {"GIT_SSL_CAINFO": f"{AGENT_HOME}/ca.pem"}),
            },
            mounts=tuple(mounts),
            limits=SandboxLimits(
                memory=limits.memory,
                cpus=limits.cpus,
                disk=limits.disk,
                files=limits.files,
                timeout=self._seconds,
            ),
            egress_socket=None if proxy is None else proxy.path,
        )


def _environment(location: GitLocation, key: GitKey | None, python: str) -> dict[str, str]:
    ssh = [
        *("ssh", "-F", "none", "-i", f"{AGENT_HOME}/key", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
        *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={AGENT_HOME}/known_hosts"),
        *("-o", "GlobalKnownHostsFile=/dev/null", "-o", "UpdateHostKeys=no", "-o", "ConnectTimeout=30"),
        *("-o", "ForwardAgent=no", "-o", "PasswordAuthentication=no"),
        *("-o", f"'ProxyCommand={python} -I -S {_CONNECT} {EGRESS_PORT} %h %p'"),
    ]
    environment = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": f"{AGENT_HOME}/gitconfig",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/true",
        "GIT_ALLOW_PROTOCOL": location.scheme,
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_SSH_COMMAND": " ".join(ssh),
        "LC_ALL": "C",
        # What is meant is this machine, which the proxy decides on as on any other.
        "NO_PROXY": "",
        "no_proxy": "",
    }
    if location.scheme == "https" and key is not None:
        user = key.value if ":" in key.value else f"x-access-token:{key.value}"
        encoded = base64.b64encode(user.encode()).decode()
        # For this host alone, and in no file.
        environment |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.https://{location.host}:{location.port}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {encoded}",
        }
    return environment


def _failure(status: SandboxStatus, log: str, key: GitKey | None, limits: SandboxLimits) -> ShareError:
    if status.reason is EndReason.DISK or "File too large" in log:
        message = f"source.git: the repository needs more than the {limits.disk:,} bytes of the workspace"
        return ShareError(ErrorCode.PAYLOAD_TOO_LARGE, message)
    if status.reason is not EndReason.EXITED:
        return ShareError(ErrorCode.SYNC_FAILED, f"the repository could not be cloned: git {status.message}")
    shown = redacted_log(log, *([] if key is None else [key.value]))
    if _AUTHENTICATION.search(log):
        what = "the repository's server refused, or is not the one that is known"
        return ShareError(ErrorCode.INTEGRATION_AUTH_FAILED, f"{what}: {shown}")
    return ShareError(ErrorCode.SYNC_FAILED, f"the repository could not be cloned: {shown}")


def redacted_log(log: str, *values: str) -> str:
    """Return the last lines of a log as one, without ``values``, and without what looks like a credential."""
    for value in values:
        for part in (value, *value.split(":"), base64.b64encode(value.encode()).decode()):
            if len(part) >= 4:
                log = log.replace(part, "[redacted]")
    lines = [line.strip() for line in log.splitlines() if line.strip()][-_SHOWN_LINES:]
    text: str = json.loads(redact(json.dumps(" / ".join(lines)).encode()))
    return text[-_LONGEST_SHOWN:] or "git said nothing"
