"""Files of ``/etc`` inside a sandbox: they name its own user, and nothing of this machine."""

from __future__ import annotations

from pathlib import Path

from rpcshare.process_directories import process_directory
from rpcshare.sandbox.driver import AGENT_HOME

__all__ = ["InnerEtc"]


class InnerEtc:
    """A directory of such files, for as long as a driver is open."""

    def __init__(self, user: tuple[int, int]) -> None:
        """Write them, for a user and group inside. Raises OSError."""
        self._folder = process_directory("etc")
        uid, gid = user
        folder = Path(self._folder.name)
        folder.chmod(0o755)
        texts = {
            "passwd": f"root:x:0:0:root:/:/sbin/nologin\nagent:x:{uid}:{gid}:agent:{AGENT_HOME}:/bin/sh\n",
            "group": f"root:x:0:\nagent:x:{gid}:\n",
            "hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
            "hostname": "sandbox\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
            "resolv.conf": "# There is no DNS here: names are resolved by the proxy.\nnameserver 127.0.0.1\n",
        }
        self.files = [folder / name for name in sorted(texts)]
        """By the names that they have inside."""
        for file in self.files:
            file.write_text(texts[file.name])
            file.chmod(0o644)

    def remove(self) -> None:
        """Remove them."""
        self._folder.cleanup()
