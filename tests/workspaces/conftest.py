import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rpcshare.sandbox.bubblewrap import BubblewrapDriver
from rpcshare.sandbox.driver import SandboxError
from support.records_fixtures import *  # noqa: F403 -- fixtures, which pytest finds by their names

USER = (65534, 65534)


@pytest.fixture
async def driver() -> AsyncIterator[BubblewrapDriver]:
    """The driver ``local``, if it works here."""
    driver = BubblewrapDriver(user=USER)
    try:
        await driver.check()
    except SandboxError as exc:
        pytest.skip(f"bubblewrap does not run here: {exc}")
    yield driver
    await driver.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits, a tag, a link, a hook and a submodule that is never to be had."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "repositories"
    work = root / "work"
    work.mkdir(parents=True)
    git(work, "init", "-q", "-b", "main")
    (work / "README.md").write_text("# Demo\n")
    (work / "link").symlink_to("/etc/passwd")
    (work / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch /tmp/pwned"\n')
    (work / ".gitattributes").write_text("*.bin filter=lfs\n")
    (work / "a.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "first")
    git(work, "tag", "v1")
    (work / "second").write_text("of main\n")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "second")
    git(root, "clone", "-q", "--bare", str(work), str(root / "demo.git"))
    (root / "demo.git" / "hooks" / "post-checkout").write_text("#!/bin/sh\ntouch /tmp/pwned\n")
    for path in (tmp_path, root):
        path.chmod(0o755)
    return root / "demo.git"


def git(folder: Path, *arguments: str) -> None:
    """Run git as nobody in particular."""
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)
