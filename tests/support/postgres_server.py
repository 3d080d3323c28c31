"""A PostgreSQL of the tests' own, started by an unprivileged user: fixtures that a conftest.py imports."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["postgres_server", "postgres_url"]


def _program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return str(found[-1]) if found else shutil.which(name)


class PostgresServer:
    """A cluster in a folder of its own, on a port of its own, for whoever connects from this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "cluster"
        self._log = folder / "log"
        self._user = None
        if os.getuid() == 0:
            self._user = "postgres" if _is_user("postgres") else "nobody"
            folder.chmod(0o777)
            for parent in folder.parents:
                if parent.owner() == "root" and parent.stat().st_mode & 0o001 == 0:
                    parent.chmod(parent.stat().st_mode | 0o011)
        self._run("initdb", "--pgdata", self._folder, "--username=rpcshare", "--auth=trust", "--no-sync")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = (
            f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        )
        self._run("pg_ctl", "--pgdata", self._folder, "-w", "-l", self._log, "-o", options, "start")

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        self._run("pg_ctl", "--pgdata", self._folder, "-w", "-m", "immediate", "stop")

    def new_database(self) -> str:
        """Return the URL of an empty database."""
        name = f"t{uuid.uuid4().hex}"
        server = ["--host=127.0.0.1", f"--port={self.port}", "--username=rpcshare"]
        self._run("createdb", *server, name)
        return f"postgresql://rpcshare@127.0.0.1:{self.port}/{name}"

    def _run(self, name: str, *arguments: object) -> None:
        subprocess.run(
            [_program(name) or name, *map(str, arguments)],
            check=True,
            user=self._user,
            cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdout=subprocess.DEVNULL,
        )


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Return a PostgreSQL that runs."""
    if _program("initdb") is None or _program("pg_ctl") is None:
        pytest.skip("PostgreSQL is not installed")
    # Not in pytest's folder, which only the user that runs the tests may enter.
    with tempfile.TemporaryDirectory(prefix="rpcshare-postgres-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def postgres_url(postgres_server) -> str:
    """Return the URL of an empty database in PostgreSQL."""
    return postgres_server.new_database()
