"""Cloning with a real git in a sandbox: what is cloned, what is not believed, what is said of a failure."""

import asyncio
import contextlib
import os
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from rpcshare.errors import ErrorCode, ShareError
from rpcshare.sandbox.driver import SandboxLimits
from rpcshare.workspaces.git_clone import GitClone, redacted_log
from rpcshare.workspaces.git_source import GitKey, GitLocation, parse_git_url
from support.authorities import Authority

pytestmark = pytest.mark.slow

MiB = 2**20
LIMITS = SandboxLimits(memory=512 * MiB, disk=64 * MiB)
USER = (65534, 65534)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, *USER)
    return folder


@pytest.fixture
def clone(driver) -> GitClone:
    return GitClone(driver, user=USER)


def at(repository: Path) -> GitLocation:
    return parse_git_url(f"file://{repository}", repository.parent)


async def failure(work) -> ShareError:
    with pytest.raises(ShareError) as caught:
        await work
    return caught.value


async def test_a_repository_is_cloned_and_nothing_of_it_is_run(clone, repository, target):
    await clone.clone(at(repository), target, LIMITS)
    assert (target / "README.md").read_text() == "# Demo\n"
    assert (target / "second").exists()
    assert (target / "link").is_symlink()
    assert (target / "a.bin").read_text().startswith("version https://git-lfs")
    assert not (target / "x").exists() or list((target / "x").iterdir()) == []
    assert not Path("/tmp/pwned").exists()
    assert list((target / ".git" / "hooks").iterdir()) == [] if (target / ".git" / "hooks").exists() else True
    if os.geteuid() == 0:
        assert {path.lstat().st_uid for path in target.rglob("*")} == {USER[0]}


async def test_a_branch_or_a_tag_may_be_named(clone, repository, target):
    await clone.clone(at(repository), target, LIMITS, ref="v1")
    assert not (target / "second").exists()


async def test_a_ref_that_is_not_there_is_a_sentence_with_git_s_last_lines(clone, repository, target):
    failed = await failure(clone.clone(at(repository), target, LIMITS, ref="nowhere"))
    assert failed.code is ErrorCode.SYNC_FAILED
    assert "nowhere" in failed.message


async def test_a_repository_that_does_not_fit_is_refused(clone, repository, target, tmp_path):
    work = repository.parent / "work"
    (work / "large").write_bytes(os.urandom(24 * MiB))
    for command in (["add", "-A"], ["-c", "user.name=T", "-c", "user.email=t@e", "commit", "-qm", "large"]):
        subprocess.run(["git", *command], cwd=work, check=True, capture_output=True)
    await asyncio.to_thread(
        subprocess.run,
        ["git", "push", "-q", str(repository), "main"], cwd=work, check=True, capture_output=True,
    )  # fmt: skip
    limits = SandboxLimits(memory=512 * MiB, disk=16 * MiB)
    failed = await failure(clone.clone(at(repository), target, limits))
    assert failed.code is ErrorCode.PAYLOAD_TOO_LARGE


async def test_a_clone_that_takes_too_long_is_ended(driver, target, tmp_path):
    async def silent(reader, writer):
        with contextlib.closing(writer):
            await reader.read()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    clone = GitClone(driver, user=USER, allows_private=lambda *_: True, seconds=1.5, resolve=here)
    failed = await failure(clone.clone(parse_git_url(f"https://git.test:{port}/a"), target, LIMITS))
    assert failed.code is ErrorCode.SYNC_FAILED
    assert "took longer" in failed.message
    server.close()


async def test_a_host_of_a_private_network_is_refused_and_told(driver, target):
    told = []
    clone = GitClone(driver, user=USER, resolve=here)
    work = clone.clone(
        parse_git_url("https://git.test/a"), target, LIMITS, on_refused=lambda *each: told.append(each)
    )
    assert (await failure(work)).code is ErrorCode.SYNC_FAILED
    assert [(reason.value, host) for reason, host in told] == [("private", "git.test:443")]


async def test_over_ssh_a_key_and_known_hosts_are_needed(driver, target, tmp_path):
    location = parse_git_url("git@git.test:a.git")
    assert "host keys" in (await failure(GitClone(driver).clone(location, target, LIMITS))).message
    hosts = tmp_path / "known_hosts"
    hosts.touch()
    failed = await failure(GitClone(driver, known_hosts=hosts).clone(location, target, LIMITS))
    assert "source.key" in failed.message


async def test_ssh_goes_through_the_proxy_and_believes_no_host_that_is_not_known(driver, target, tmp_path):
    seen = []

    async def banner(reader, writer):
        with contextlib.closing(writer):
            writer.write(b"SSH-2.0-test\r\n")
            seen.append(await reader.readline())

    server = await asyncio.start_server(banner, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hosts = tmp_path / "known_hosts"
    hosts.write_text("other.test ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ\n")
    clone = GitClone(driver, user=USER, known_hosts=hosts, allows_private=lambda *_: True, resolve=here)
    key = GitKey("vlt_1", "not-a-private-key-of-these-tests")
    failed = await failure(
        clone.clone(parse_git_url(f"ssh://git@git.test:{port}/a.git"), target, LIMITS, key=key)
    )
    assert failed.code in (ErrorCode.SYNC_FAILED, ErrorCode.INTEGRATION_AUTH_FAILED)
    assert b"SSH-2.0-OpenSSH" in seen[0]
    assert key.value not in failed.message
    server.close()


class GitServer:
    """A host of git over https, which wants a key. It notes what it was shown."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.redirects_to = ""
        self.shown: list[str] = []
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        name, usage = x509.DNSName("git.test"), ExtendedKeyUsageOID.SERVER_AUTH
        certificate = authority.issue("git.test", name, usage=usage)
        self.context.load_cert_chain(authority.pem(certificate))

    async def open(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.context)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, OSError):
            return
        line, *fields = head.split("\r\n")
        named = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        self.shown.append(named.get("authorization", ""))
        path = line.split()[1].partition("?")[0].removeprefix("/demo.git")
        file = self.folder / path.lstrip("/")
        if self.redirects_to:
            location = self.redirects_to + line.split()[1]
            answer, body = b"HTTP/1.1 302 Found\r\nLocation: %b\r\n" % location.encode(), b""
        elif not named.get("authorization"):
            answer = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n"
            body = b""
        elif file.is_file():
            answer, body = b"HTTP/1.1 200 OK\r\n", file.read_bytes()
        else:
            answer, body = b"HTTP/1.1 404 Not Found\r\n", b""
        writer.write(answer + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()


async def here(_host: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


async def test_over_https_the_key_goes_to_the_host_alone_and_is_kept_nowhere(
    driver, repository, target, tmp_path
):
    subprocess.run(["git", "update-server-info"], cwd=repository, check=True)
    authority = Authority(tmp_path / "ca")
    server = GitServer(repository, authority)
    port = await server.open()
    clone = GitClone(driver, user=USER, ca_file=authority.path, allows_private=lambda *_: True, resolve=here)
    location = parse_git_url(f"https://git.test:{port}/demo.git")
    refused = await failure(clone.clone(location, target, LIMITS))
    assert refused.code is ErrorCode.INTEGRATION_AUTH_FAILED
    assert set(server.shown) == {""}
    server.shown.clear()
    for path in target.iterdir():
        raise AssertionError(path)
    key = GitKey("vlt_1", "a-token-of-these-tests")
    await clone.clone(location, target, LIMITS, key=key)
    assert (target / "README.md").exists()
    assert all(shown.startswith("Basic ") for shown in server.shown)
    kept = [path for path in target.rglob("*") if path.is_file() and key.value.encode() in path.read_bytes()]
    assert kept == []
    assert "a-token" not in (target / ".git" / "config").read_text()
    server.server.close()


async def test_a_certificate_of_an_unknown_authority_is_not_believed(driver, repository, target, tmp_path):
    server = GitServer(repository, Authority(tmp_path / "ca"))
    port = await server.open()
    clone = GitClone(driver, user=USER, allows_private=lambda *_: True, resolve=here)
    key = GitKey("vlt_1", "a-token-of-these-tests")
    failed = await failure(
        clone.clone(parse_git_url(f"https://git.test:{port}/demo.git"), target, LIMITS, key=key)
    )
    assert failed.code is ErrorCode.SYNC_FAILED
    assert "certificate" in failed.message
    assert server.shown == []
    server.server.close()


async def test_a_redirect_to_another_host_is_refused_and_gets_no_key(driver, repository, target, tmp_path):
    """As of a host that is public at first, and sends git to what only the server reaches."""
    authority = Authority(tmp_path / "ca")
    inner = GitServer(repository, authority)
    inner_port = await inner.open()
    outer = GitServer(repository, authority)
    outer.redirects_to = f"https://inner.test:{inner_port}"
    port = await outer.open()
    told = []
    clone = GitClone(driver, user=USER, ca_file=authority.path, allows_private=lambda *_: True, resolve=here)
    key = GitKey("vlt_1", "a-token-of-these-tests")
    location = parse_git_url(f"https://git.test:{port}/demo.git")
    work = clone.clone(location, target, LIMITS, key=key, on_refused=lambda *each: told.append(each))
    assert (await failure(work)).code is ErrorCode.SYNC_FAILED
    assert [(reason.value, host) for reason, host in told] == [("host", f"inner.test:{inner_port}")]
    assert inner.shown == []
    for each in (inner, outer):
        each.server.close()


async def test_objects_that_are_links_to_elsewhere_are_not_cloned(clone, repository, target, tmp_path):
    """As CVE-2022-39253 had it: a repository whose objects are a link to what only the server reads."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret").write_text("of the server")
    evil = repository.parent / "evil.git"
    subprocess.run(["/bin/cp", "-r", repository, evil], check=True)
    (evil / "objects" / "aa").symlink_to(tmp_path / "private")
    await clone.clone(at(evil), target, LIMITS)
    assert not [
        path for path in target.rglob("*") if path.is_file() and b"of the server" in path.read_bytes()
    ]


def test_what_is_shown_of_a_log_has_no_credentials():
    log = "fatal: https://x:tok-1234567@h/ ghp_0123456789abcdefghijABCDEFGHIJ012345\nand tok-1234567 again\n"
    shown = redacted_log(log, "user:tok-1234567")
    assert "tok-1234567" not in shown
    assert "ghp_0123456789" not in shown
    assert "fatal" in shown
